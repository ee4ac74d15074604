"The rules of the house: which page may import which, what an import costs, what is never committed."
import ast, json, os, re, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import pages

PAGES = {p.stem[3:]: p for p in pages.pages()[1:]}   # word -> notebook, in reading order
MODULES = {w: ROOT / f"mixlab/{w}.py" for w in PAGES}
ALONE = {"checks", "corpus", "samples", "mixture", "runs", "stats"}  # may import checks and mixture, nothing else of ours
METHODS = {"regmix", "average", "sharpness", "sweetspot", "twin", "online"}
TRACKED = [ROOT / f for f in subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0") if f]
TEXTS = [f for f in TRACKED if f.suffix != ".png" and f.is_file()]
EVERY = pytest.mark.parametrize("word", MODULES)


def tree(word): return ast.parse(MODULES[word].read_text())

def imported(nodes):
    "Modules that these nodes import, anywhere inside them."
    for n in (n for top in nodes for n in ast.walk(top)):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        if isinstance(n, ast.ImportFrom):
            base = f"mixlab.{n.module or ''}".rstrip(".") if n.level else n.module
            yield from ([f"mixlab.{a.name}" for a in n.names] if base == "mixlab" else [base])

def ours(nodes): return {m.split(".")[1] for m in imported(nodes) if m.startswith("mixlab.")} - {"__version__"}

def at_import(word):
    "Statements that run when the module is imported: all but the bodies of functions."
    class Bodiless(ast.NodeTransformer):
        def visit_FunctionDef(self, node): node.body = [ast.Pass()]; return node
        visit_AsyncFunctionDef = visit_FunctionDef
    return Bodiless().visit(tree(word)).body


# ---- arrows ----------------------------------------------------------------------------------------------------------
@EVERY
def test_a_page_imports_only_pages_above_it(word):
    above = list(MODULES)[:list(MODULES).index(word)]
    assert ours(at_import(word)) <= set(above)
    lazily = ours(tree(word).body)
    assert lazily <= set(above), f"{word} imports a page below it inside a function"
    if word in METHODS: assert not lazily & METHODS, "methods meet in compare, as arguments"

@pytest.mark.parametrize("word", sorted(ALONE & set(MODULES)))
def test_materials_stand_alone(word):
    assert ours(at_import(word)) <= {"checks", "mixture"} and "torch" not in {m.split(".")[0] for m in imported(at_import(word))}

def test_there_is_no_drawer_for_odds_and_ends():
    names = {p.stem for p in (ROOT / "mixlab").glob("*.py")}
    assert names == {*MODULES, "__init__", "_modidx"}
    assert not names & {"core", "utils", "common", "helpers", "plots", "widgets"}

@EVERY
def test_a_figure_is_drawn_on_axes_that_it_is_given(word):
    for f in (n for n in tree(word).body if isinstance(n, ast.FunctionDef) and n.name.startswith("show_")):
        assert "ax" in [a.arg for a in f.args.args + f.args.kwonlyargs], f.name


# ---- exported code ---------------------------------------------------------------------------------------------------
@EVERY
def test_every_public_thing_is_documented(word):
    body = tree(word).body
    public = ast.literal_eval(next(n.value for n in body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"))
    made = [n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in public]
    made += [m for c in made if isinstance(c, ast.ClassDef) for m in c.body if isinstance(m, ast.FunctionDef)
             and not m.name.startswith("_") and not m.name.endswith("_") and m.name not in ("fit", "predict", "transform", "score", "forward", "backward")]
    assert made and ast.get_docstring(tree(word)), "the page's question is the module's docstring"
    assert not [n.name for n in made if not ast.get_docstring(n)]

@EVERY
def test_python_3_10_can_read_it(word):
    ast.parse(MODULES[word].read_text(), feature_version=(3, 10))
    # an f-string of 3.12 may hold its own quote, which `feature_version` lets pass
    for f in (n for n in ast.walk(tree(word)) if isinstance(n, ast.JoinedStr)):
        source = ast.get_source_segment(MODULES[word].read_text(), f) or ""
        if f.lineno == f.end_lineno and (m := re.match(r"[rRfF]+(\"\"\"|'''|\"|')", source)): assert m[1] not in source[m.end():-len(m[1])], source

@EVERY
def test_nothing_is_unpickled(word):
    assert not {m.split(".")[0] for m in imported(tree(word).body)} & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for call in (n for n in ast.walk(tree(word)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
        where, args = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        if where == "torch.load": assert args.get("weights_only") == "True", ast.unparse(call)
        if where in ("np.load", "numpy.load"): assert "allow_pickle" not in args, ast.unparse(call)


# ---- what an import costs --------------------------------------------------------------------------------------------
def imports(first, then):
    "Top-level modules that a fresh interpreter holds once it has imported `first`, and those that `then` adds."
    code = f"import sys, {first}; had = set(sys.modules); import {then}; print(*had); print(*sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    before, after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=env).stdout.splitlines()
    return {m.split(".")[0] for m in before.split()}, {m.split(".")[0] for m in after.split()}

def test_import_is_cheap():
    """Methods are scikit-learn estimators, so they may import scikit-learn; nothing else may. What an import costs is what it
    brings in; `benchmarks/imports.py` prints the seconds."""
    had, held = imports("torch", ", ".join(["mixlab", *(f"mixlab.{w}" for w in MODULES if w not in METHODS)]))
    assert not (held - had) & {"pandas", "pyarrow", "scipy", "sklearn", "safetensors", "pebble", "zstandard", "pooch"}

def test_import_holds_no_notebook_machinery():
    _, held = imports("torch", ", ".join(["mixlab", *(f"mixlab.{w}" for w in MODULES)]))
    assert not (found := held & {"IPython", "ipywidgets", "ipykernel", "lightgbm", "matplotlib", "seaborn", "nbdev", "fastcore", "datasets"}), sorted(found)

def test_import_of_the_package_alone_needs_no_torch():
    _, held = imports("os", "mixlab")
    assert not held & {"torch", "numpy"}


# ---- pages -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", PAGES)
def test_page_has_its_sections(word):
    nb = pages.read(PAGES[word])
    assert all(pages.heading(nb)), "a page opens with `# Title` and `> the one question`"
    prose = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    for section in ("Answer", "What did not work", "Exercises", "Sources"): assert re.search(rf"^## .*{section}", prose, re.M), section
    code = pages.code_cells(nb)
    assert any("image/png" in o.get("data", {}) for c in code for o in c.outputs), "no picture"
    long = [(i, n) for i, c in enumerate(code, start=1) if (n := len([l for l in c.source.splitlines() if l.strip()])) > (60 if "export" in pages.directives(c) else 25)]
    assert not long, f"a cell is one idea: (cell, lines) {long}"

def test_front_page_runs_whole():
    assert not any(map(pages.is_slow, pages.read(ROOT / "index.ipynb").cells)), "the main job leaves nothing out"

def test_notebooks_stay_small():
    assert not [f"{pages.name(p)}: {p.stat().st_size / 2**20:.1f} MB" for p in pages.pages() if p.stat().st_size > 2 * 2**20]

def test_readme_example_imports():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    imports = "\n".join(l for b in blocks for l in b.splitlines() if l.startswith(("from mixlab", "import mixlab")))
    assert imports
    subprocess.run([sys.executable, "-c", imports], check=True, cwd=ROOT)

@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages.pages()], ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    text = path.read_text() if path.suffix == ".md" else "\n".join(c.source for c in pages.read(path).cells if c.cell_type == "markdown")
    links = [l.split("#")[0] for l in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:|attachment:|#", l)]
    assert not [l for l in links if not (path.parent / l).exists()]


# ---- what is committed -----------------------------------------------------------------------------------------------
def test_no_registry_host_is_named():
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "pypi" + ".python", "npmjs" + ".org", "debian" + ".org", "anaconda" + ".org",
             "conda" + ".io", "download.pytorch" + ".org", "crates" + ".io", "proxy.golang" + ".org"]
    assert not [(f.name, h) for f in TEXTS for h in hosts if h in f.read_text(errors="replace")]

def test_no_path_of_a_machine():
    "In sources and outputs; pictures, which are base64, are left out."
    here = re.compile("|".join(map(re.escape, {str(ROOT) + "/", str(ROOT.parent) + "/", str(Path.home()) + "/"} - {"//", "/tmp/", "/home/"})))
    for f in TEXTS:
        text = "\n".join(pages.strings(json.loads(f.read_text()))) if f.suffix == ".ipynb" else f.read_text(errors="replace")
        assert not (m := here.search(text)), f"{f.name}: …{text[max(0, m.start() - 40):m.end() + 40]}…"

def test_data_that_ships_is_small():
    assert not [f for f in TRACKED if f.is_file() and f.stat().st_size > (2 if f.suffix == ".ipynb" else 1) * 2**20]
