"""Every page's lesson cells against the exported module.

`#| export` cells are not run; the names that they define come from mixlab/word.py instead. So the asserts on the pages
test the package, and a module that has drifted from its page is found. Cells under `#| slow` are left out.
"""
import ast, sys
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
    "The names that a cell's top-level statements define, but for `@patch`ed methods."
    names = []
    for node in parsed(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names += [] if node.decorator_list and node.name == "_" else [node.name]
        elif isinstance(node, (ast.Import, ast.ImportFrom)): names += [a.asname or a.name.split(".")[0] for a in node.names]
        else: names += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return names


def from_module(nb):
    "`nb` with each exported cell replaced by an import of what it defines."
    module = next(d["default_exp"] for c in pages.code_cells(nb) if "default_exp" in (d := pages.directives(c)))
    for cell in pages.code_cells(nb):
        if EXPORTS & set(pages.directives(cell)):
            names = defined(cell.source)
            cell.source = f"from mixlab.{module} import ({', '.join(names)})" if names else ""
    return nb


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
