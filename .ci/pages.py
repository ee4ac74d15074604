#!/usr/bin/env python3
"""Run the pages, check what is committed, write the README.

    python .ci/pages.py execute nbs/12_train.ipynb [...] [--slow]   top to bottom, in place, then clean
    python .ci/pages.py studies [nbs/30_average.ipynb ...]          the slow cells of all pages, into one store
    python .ci/pages.py clean [nbs/12_train.ipynb ...]              metadata and noise only; runs nothing
    python .ci/pages.py readme                                      index.ipynb -> README.md and its picture
    python .ci/pages.py check                                       what CI asks of the committed files

`studies` runs every page that has slow cells, with --store (default: MIXLAB_STUDIES, else mixlab's cache) as its cache, and
keeps there what was trained and which pages are done: stop it at any moment and call it again. With MIXLAB_STUDIES set,
`execute --slow` reads from that store, so that a page takes minutes.

The notebooks are the source: modules come out of them with `nbdev_export`, the README with `readme`.
"""
import argparse, base64, hashlib, json, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path
from queue import Empty

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "nbs/images/readme.png"
WIDGETS, VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"
# Folders of somebody's machine. /usr and /etc are the same everywhere and may be the lesson.
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|opt|tmp|mnt|srv|private|var/folders)/[\w.]|[A-Z]:\\\\?Users"
                     r"|site-packages/|/ipykernel_\d+")


def pages():
    "The front page and the numbered pages, in reading order."
    return [ROOT / "index.ipynb", *sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))]

def name(path): return os.path.relpath(path, ROOT)
def read(path): return nbformat.read(path, as_version=4)
def dumps(nb): return nbformat.writes(nb, version=4) + "\n"
def code_cells(nb): return [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]

def directives(cell):
    "nbdev's `#| word` lines at the top of a cell, as {word: rest}."
    found = {}
    for line in cell.source.strip().splitlines():
        m = re.match(r"#\s*\|\s*([\w-]+):?\s*(.*)", line)
        if not m: break
        found[m[1]] = m[2]
    return found

def is_slow(cell): return "slow" in directives(cell)


# ---- execute -------------------------------------------------------------------------------------------------------
class Client(NotebookClient):
    "nbclient that leaves some cells as they are and prints a warning without the path that it came from."
    skip = staticmethod(lambda cell: False)
    start = "import warnings; warnings.formatwarning = lambda m, c, *a, **k: f'{c.__name__}: {m}\\n'"

    async def async_start_new_kernel_client(self):
        kc = await super().async_start_new_kernel_client()
        await kc.execute(self.start, silent=True, store_history=False, reply=True, timeout=300)
        kc.shell_channel.get_msg = ask_again(kc.shell_channel.get_msg)
        return kc

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type == "code" and self.skip(cell): return cell
        begun = time.time()
        try: return await super().async_execute_cell(cell, cell_index, **kwargs)
        finally: self.seconds[cell_index] = time.time() - begun


def ask_again(get_msg):
    """`get_msg` in short waits. In one long wait it may sleep over a reply that is there: nbclient answers an Output widget
    through the same socket, behind asyncio's back, and a run in fifty hung until its timeout."""
    async def get(timeout=None):
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            try: return await get_msg(timeout=max(0, min(0.25, end - time.monotonic())))
            except Empty:
                if time.monotonic() >= end: raise
    return get


def run(nb, folder, skip=lambda cell: False, timeout=None):
    "Run `nb` top to bottom in one fresh kernel of this interpreter, without progress bars; seconds by cell number."
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = dict(TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", JUPYTER_PREFER_ENV_PATH="1",
                 PYDEVD_DISABLE_FILE_VALIDATION="1")
    os.environ.update(quiet | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
    client = Client(nb, kernel_name="python3", timeout=timeout, startup_timeout=300, store_widget_state=True,
                    record_timing=False, resources={"metadata": {"path": str(folder)}})
    client.skip, client.seconds = skip, {}
    client.execute()
    return client.seconds


def execute(path, slow=False):
    "Run one page in place; the file changes only if every cell ran."
    nb = read(path)
    before, counts = nb.metadata.get("widgets", {}), [c.get("execution_count") for c in code_cells(nb)]
    seconds = run(nb, path.parent, skip=lambda c: is_slow(c) and not slow)
    for cell, count in zip(code_cells(nb), counts):  # a slow cell that nobody ever ran stays without a count
        cell.execution_count = count if is_slow(cell) and not slow else 1
    if before and WIDGETS in nb.metadata.get("widgets", {}):
        state = nb.metadata.widgets[WIDGETS].state
        nb.metadata.widgets[WIDGETS].state = {**before[WIDGETS]["state"], **state}
    elif before: nb.metadata.widgets = before
    path.write_text(dumps(clean(nb)), encoding="utf-8")
    worst = sorted(seconds, key=seconds.get)[-3:][::-1]
    print(f"{name(path)}: {len(seconds)} cells in {sum(seconds.values()):.0f} s; slowest: " +
          ", ".join(f"{seconds[i]:.1f} s `{first_line(nb.cells[i])}`" for i in worst))

def first_line(cell):
    return next((l for l in cell.source.splitlines() if l.strip() and not l.startswith("#|")), cell.source)[:60]


# ---- studies -------------------------------------------------------------------------------------------------------
def with_slow_cells():
    return [p for p in pages() if any(map(is_slow, code_cells(read(p))))]

def study_key(path):
    "Another one when the page's code or the package changes: then the page runs again, from what the store still holds."
    sources = [cell.source for cell in code_cells(read(path))]
    sources += [p.read_text(encoding="utf-8") for p in sorted((ROOT / "mixlab").glob("*.py"))]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()

def studies(paths, store):
    "Run pages, slow cells too, with `store` as their cache. Pages that are done there are left out; returns what failed."
    store = Path(store).expanduser().absolute()
    store.mkdir(parents=True, exist_ok=True)
    os.environ["MIXLAB_CACHE"] = str(store)
    note, faults = store / "studies.json", []
    done = json.loads(note.read_text()) if note.exists() else {}
    for path in paths:
        key, begun = study_key(path), time.time()
        if (before := done.get(path.name, {})).get("key") == key:
            print(f"{name(path)}: done ({before['seconds']:.0f} s)")
            continue
        try:
            execute(path, slow=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            faults.append(f"{name(path)} stopped, file unchanged; what it trained is in the store:\n{error}")
            continue
        done[path.name] = {"key": key, "seconds": round(time.time() - begun, 1)}
        (store / "studies.new").write_text(json.dumps(done, indent=1))
        os.replace(store / "studies.new", note)
    return faults


# ---- clean ---------------------------------------------------------------------------------------------------------
def clean(nb):
    "nbdev's cleaning, plus: counts 1..n, no progress bars, no paths before warnings, no widget state that nothing shows."
    from nbdev.clean import clean_nb
    ran = [c.get("execution_count") is not None for c in code_cells(nb)]
    clean_nb(nb, allowed_cell_metadata_keys=["tags"])
    nb.metadata.pop("jupytext", None)
    nb.metadata["kernelspec"] = {"display_name": "python3", "language": "python", "name": "python3"}
    for i, (cell, done) in enumerate(zip(code_cells(nb), ran), start=1):
        cell.execution_count = i if done else None
        cell.outputs = [o for o in map(quiet, cell.outputs) if o]
        for o in cell.outputs:
            if o.output_type == "execute_result": o.execution_count = cell.execution_count
    keep_shown_widgets(nb)
    return nb

def quiet(output):
    "`output` without progress bars and without the source line under a warning; None if nothing is left."
    if output.output_type != "stream" or output.name != "stderr": return output
    lines = re.sub(r"[^\n]*\r(?!\n)", "", output.text).splitlines()
    lines = [l for l in lines if not re.search(r"\d+%\|.*\|| ?it/s\]|s/it\]|\d+it \[", l)]
    lines = [re.sub(r"^\S.*?:\d+: (?=\w*Warning: )", "", l) for l in lines]
    lines = [l for a, l in zip(["", *lines], lines) if l.strip() and not (l.startswith("  ") and "Warning: " in a)]
    output.text = "".join(l + "\n" for l in lines)
    return output if lines else None

def keep_shown_widgets(nb):
    "Drop progress bars drawn as widgets, then every widget model that no output shows; ids follow the page's order."
    state = nb.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    children = {k: re.findall(r"IPY_MODEL_(\w+)", json.dumps(v)) for k, v in state.items()}
    is_bar = lambda k: any("Progress" in state[c].get("model_name", "") for c in children.get(k, []) if c in state)
    shown = []
    for cell in code_cells(nb):
        cell.outputs = [o for o in cell.outputs if not is_bar(o.get("data", {}).get(VIEW, {}).get("model_id"))]
        todo = [o.data[VIEW]["model_id"] for o in cell.outputs if VIEW in o.get("data", {})]
        while todo:
            if (k := todo.pop(0)) in state and k not in shown: shown.append(k); todo += children[k]
    if not shown: nb.metadata.pop("widgets", None); return
    nb.metadata.widgets[WIDGETS]["state"] = {k: state[k] for k in shown}
    text = json.dumps(nb)
    for i, k in enumerate(shown): text = text.replace(k, f"{i:032x}")
    nb.update(nbformat.from_dict(json.loads(text)))


# ---- README --------------------------------------------------------------------------------------------------------
def table():
    "Every page with its question, read from the pages themselves."
    rows = ["| page | the question it answers |", "| --- | --- |"]
    for p in pages()[1:]:
        title, question = heading(read(p))
        rows.append(f"| [{p.stem[:2]} {title}](nbs/{p.name}) | {question} |")
    return "\n".join(rows)

def heading(nb):
    "The title and the question of a page: `# Title` and the `> question` under it."
    text = "\n".join(c.source for c in nb.cells[:2] if c.cell_type == "markdown")
    found = [re.search(p, text, re.M) for p in (r"^# (.+)", r"^> (.+)")]
    return [m[1].strip() if m else "" for m in found]

def with_table(source):
    return re.sub(r"(<!-- pages -->\n).*?(\n*<!-- /pages -->)", lambda m: f"{m[1]}\n{table()}\n\n{m[2].strip()}", source, flags=re.S)

def readme(nb):
    "README text and picture: the cells of the front page tagged `readme`; a code cell gives its source and its picture."
    parts, picture = ["<!-- Written by `python .ci/pages.py readme` from index.ipynb; edit that. -->"], b""
    for cell in nb.cells:
        if "readme" not in cell.metadata.get("tags", []): continue
        if cell.cell_type == "markdown": parts.append(with_table(cell.source.strip())); continue
        if directives(cell).get("echo") != "false":
            parts.append("```python\n" + "\n".join(cell.source.strip().splitlines()[len(directives(cell)):]) + "\n```")
        for png in [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]:
            picture = base64.b64decode(png)
            parts.append(f"![What the code above draws: {heading(nb)[1]}]({PICTURE})")
    return "\n\n".join(parts) + "\n", picture

def write_readme():
    path = ROOT / "index.ipynb"
    nb = read(path)
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = with_table(cell.source)
    path.write_text(dumps(nb), encoding="utf-8")
    text, picture = readme(nb)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    (ROOT / PICTURE).parent.mkdir(exist_ok=True)
    if picture: (ROOT / PICTURE).write_bytes(picture)
    print(f"README.md: {len(text.splitlines())} lines" + ("" if picture else "; no picture: no cell tagged `readme` has one yet"))


# ---- check ---------------------------------------------------------------------------------------------------------
def strings(x, key=""):
    "Every string inside an output, pictures left out."
    if isinstance(x, str):
        if not key.startswith("image/"): yield re.sub(r"base64,[\w+/=\s]+", "", x)
    elif isinstance(x, dict):
        for k, v in x.items(): yield from strings(v, k)
    elif isinstance(x, list):
        for v in x: yield from strings(v, key)

def page_faults(path):
    "What is wrong with one committed notebook, as a list of sentences."
    nb, faults = read(path), []
    if dumps(nb) != dumps(clean(read(path))): faults.append("is not clean: run `.ci/pages.py clean`")
    unrun = [(i, c) for i, c in enumerate(code_cells(nb), start=1) if c.execution_count != i]
    if unrun:
        slow = all(is_slow(c) for i, c in unrun)
        faults.append(f"{len(unrun)} cells were not run in order, from code cell {unrun[0][0]} `{first_line(unrun[0][1])}`: "
                      f"run `.ci/pages.py execute{' --slow' * slow}`")
    for i, cell in enumerate(code_cells(nb), start=1):
        where = f"code cell {i} `{first_line(cell)}`"
        if any(o.output_type == "error" for o in cell.outputs): faults.append(f"{where} ended in an error")
        for s in strings(cell.outputs):
            if m := MACHINE.search(s): faults.append(f"{where} shows a path of a machine: …{s[max(0, m.start() - 20):m.end() + 30]!r}…")
    for s in strings(nb.metadata.get("widgets", {})):
        if m := MACHINE.search(s): faults.append(f"a widget shows a path of a machine: {s[m.start():m.end() + 30]!r}")
    return faults

def export_faults():
    "Export every page into a copy; the package must be what comes out."
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        shutil.copytree(ROOT / "nbs", tmp / "nbs", ignore=shutil.ignore_patterns(".*", "images"))
        shutil.copy(ROOT / "settings.ini", tmp)
        (tmp / "mixlab").mkdir()
        shutil.copy(ROOT / "mixlab/__init__.py", tmp / "mixlab")
        made = subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"],
                              cwd=tmp, capture_output=True, text=True)
        if made.returncode: return [f"nbdev_export failed: {made.stderr[-2000:]}"]
        new, old = ({p.relative_to(d).as_posix(): p.read_text() for p in (d / "mixlab").rglob("*.py")} for d in (tmp, ROOT))
    return [f"{f} is not what the pages export: run `nbdev_export`" for f in sorted({*new, *old}) if new.get(f) != old.get(f)]

def version_faults():
    init = re.search(r'__version__ = "(.+)"', (ROOT / "mixlab/__init__.py").read_text())
    want = re.search(r"^version = (\S+)", (ROOT / "settings.ini").read_text(), re.M)[1]
    return [] if init and init[1] == want else [f"mixlab/__init__.py: __version__ is not settings.ini's {want}: run `nbdev_export`"]

def readme_faults():
    nb, old = read(ROOT / "index.ipynb"), ROOT / "README.md"
    text, picture = readme(nb)
    faults = [] if old.exists() and old.read_text() == text else ["README.md is not what index.ipynb gives: run `.ci/pages.py readme`"]
    if any(c.source != with_table(c.source) for c in nb.cells if c.cell_type == "markdown"):
        faults.append("index.ipynb: its table of pages is out of date: run `.ci/pages.py readme`")
    if picture and not ((ROOT / PICTURE).exists() and (ROOT / PICTURE).read_bytes() == picture):
        faults.append(f"{PICTURE} is not the picture in index.ipynb: run `.ci/pages.py readme`")
    return faults

def check():
    faults = [f"{name(p)}: {f}" for p in pages() for f in page_faults(p)]
    return faults + export_faults() + version_faults() + readme_faults()


# ---- the command line ----------------------------------------------------------------------------------------------
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("command", choices=["execute", "studies", "clean", "readme", "check"])
    ap.add_argument("pages", nargs="*", type=Path)
    ap.add_argument("--slow", action="store_true", help="run cells that begin with `#| slow` too")
    ap.add_argument("--store", help="folder of `studies`")
    args = ap.parse_intermixed_args()  # `execute --slow PAGE` too
    todo, faults = [p.resolve() for p in args.pages], []
    if args.command == "execute":
        if not todo: ap.error("execute which page?")
        if "MIXLAB_STUDIES" in os.environ: os.environ["MIXLAB_CACHE"] = os.environ["MIXLAB_STUDIES"]
        for p in todo:
            try: execute(p, args.slow)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as e: faults.append(f"{name(p)} stopped, file unchanged:\n{e}")
            else: faults += [f"{name(p)}: {f}" for f in page_faults(p) if "--slow" not in f]
    elif args.command == "studies":
        kept = (os.environ.get(variable) for variable in ("MIXLAB_STUDIES", "MIXLAB_CACHE"))
        faults = studies(todo or with_slow_cells(), args.store or next(filter(None, kept), "~/.cache/mixlab"))
    elif args.command == "clean":
        for p in todo or pages(): p.write_text(dumps(clean(read(p))), encoding="utf-8")
    elif args.command == "readme": write_readme()
    else: faults = check()
    for f in faults: print(f, file=sys.stderr)
    if faults: sys.exit(1)
    if args.command == "check": print(f"{len(pages())} notebooks, the package and the README agree")

if __name__ == "__main__": main()
