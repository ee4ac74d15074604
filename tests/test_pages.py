"""Every page's lesson cells against the exported module.

`#| export` cells are not run; the names that they define come from mixlab/word.py instead. So the asserts on the pages
test the package, and a module that has drifted from its page is found. Cells under `#| slow` are left out.
"""
import ast, symtable, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import pages

SECONDS = 600  # a cell that takes longer has hung: whole pages take a minute or two
ABSENT = "neither found nor downloaded"  # what load_released says on a machine without RegMix's files and without network
EXPORTS = {"export", "exporti", "exports"}


def parsed(source):
    "Syntax tree of a cell, its magic lines left out."
    return ast.parse("\n".join(l for l in source.splitlines() if not l.lstrip().startswith(("%", "!"))))

def defined(source):
    "The names that a cell's top-level statements assign, define or import, but for the `_` of `@patch`ed methods."
    symbols = symtable.symtable(ast.unparse(parsed(source)), "cell", "exec").get_symbols()
    return [s.get_name() for s in symbols if (s.is_assigned() or s.is_imported()) and s.get_name() != "_"]


def from_module(nb):
    "`nb` with each exported cell replaced by an import of what it defines."
    module = next(d["default_exp"] for c in pages.code_cells(nb) if "default_exp" in (d := pages.directives(c)))
    for cell in pages.code_cells(nb):
        if EXPORTS & set(pages.directives(cell)):
            names = defined(cell.source)
            cell.source = f"from mixlab.{module} import ({', '.join(names)})" if names else ""
    return nb


@pytest.mark.timeout(1200)  # a whole page
@pytest.mark.parametrize("path", pages.pages()[1:], ids=lambda p: p.stem)
def test_lesson_cells_hold_for_the_exported_module(path):
    nb = from_module(pages.read(path))
    try: pages.run(nb, path.parent, skip=lambda c: pages.is_slow(c) or pages.directives(c).get("eval") == "false", timeout=SECONDS)
    except pages.CellExecutionError as e:
        if ABSENT not in str(e): raise
        pytest.skip("RegMix's published runs are neither here nor to be downloaded")


def test_drift_is_found():
    "A page whose module lacks a name, or whose module gives another value, fails."
    nb = pages.nbformat.v4.new_notebook(cells=[pages.nbformat.v4.new_code_cell(s) for s in (
        "#| default_exp mixture", "#| export\ndef uniform(x): return 'the page itself'", "assert uniform(['a', 'b']) == 'the page itself'")])
    with pytest.raises(pages.CellExecutionError, match="assert uniform"): pages.run(from_module(nb), ROOT / "nbs", timeout=60)
    nb.cells[1].source = "#| export\ndef nowhere(): pass"
    with pytest.raises(pages.CellExecutionError, match="nowhere"): pages.run(from_module(nb), ROOT / "nbs", timeout=60)


def test_what_is_committed_agrees():
    "Notebooks clean and run in order, package and README written from them, one version."
    assert not (faults := pages.check()), "\n" + "\n".join(faults)


# ---- the page runner itself -------------------------------------------------------------------------------------------
@pytest.fixture
def page(tmp_path):
    "Path of a page of the given code cells."
    def make(*sources):
        cells = [pages.nbformat.v4.new_markdown_cell("# A page\n> A question?"), *map(pages.nbformat.v4.new_code_cell, sources)]
        path = tmp_path / "90_page.ipynb"
        path.write_text(pages.dumps(pages.nbformat.v4.new_notebook(cells=cells)))
        return path
    return make

def test_execute_leaves_slow_cells_until_asked(page):
    path = page("import sys; print('10%|# | 1/10', file=sys.stderr); 1", "#| slow\nx = 41", "import warnings; warnings.warn('odd'); 2")
    pages.execute(path)
    one, slow, two = pages.code_cells(pages.read(path))
    assert [c.execution_count for c in (one, slow, two)] == [1, None, 3] and [o.output_type for o in one.outputs] == ["execute_result"]
    assert two.outputs[0].text == "UserWarning: odd\n", "a warning is shown without the path that it came from"
    assert [f for f in pages.page_faults(path) if "--slow" in f]
    pages.execute(path, slow=True)
    assert not pages.page_faults(path)
    ran = path.read_text()
    pages.execute(path)
    assert path.read_text() == ran, "a page gives the same file again, its slow cells as they were"

def test_a_failing_page_stays_as_it_was(page):
    path = page("1", "1 / 0")
    before = path.read_text()
    with pytest.raises(pages.CellExecutionError, match="ZeroDivisionError"): pages.execute(path)
    assert path.read_text() == before

@pytest.mark.parametrize("damage, named", [
    (lambda cell: cell.update(execution_count=7), "not run in order"),
    (lambda cell: cell.outputs.append(pages.nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])), "error"),
    (lambda cell: cell.outputs.append(pages.nbformat.v4.new_output("stream", text="see /" + "home/somebody/x\n")), "path of a machine"),
    (lambda cell: cell.metadata.update(collapsed=True), "not clean")])
def test_check_names_what_is_wrong(page, damage, named):
    path = page("1")
    pages.execute(path)
    nb = pages.read(path)
    damage(nb.cells[1])
    path.write_text(pages.dumps(nb))
    assert any(named in f for f in pages.page_faults(path))
