"""How readable is the house? One table: rooms, lines, functions, names, pages.

    python tools/measure.py [--json]

Lines are counted after `ruff format` (100 columns), so that a packed line is no advantage.
"""
import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def formatted(source):
    "The source with one statement a line."
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.py"
        file.write_text(source)
        ruff = Path(sys.executable).with_name("ruff")
        subprocess.run([str(ruff), "format", "-q", "--isolated", "--line-length", "100", str(file)], check=True)
        return file.read_text()


def body_lines(function):
    "Lines of a function without signature and docstring."
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (first[-1].end_lineno - first[0].lineno + 1) if first else 0


def nested_comprehensions(tree):
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    inside = [n for n in ast.walk(tree) if isinstance(n, kinds)]
    return sum(any(isinstance(m, kinds) for m in ast.walk(n) if m is not n) or len(n.generators) > 1 for n in inside)


def room(module):
    "What one module looks like."
    source = (ROOT / f"mixlab/{module}.py").read_text()
    tidy = formatted(source)
    tree = ast.parse(tidy)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    top = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    borrowed = [a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level for a in n.names if a.name.startswith("_") and a.name != "__version__"]
    return {
        "lines": sum(bool(line.strip()) for line in source.splitlines()),
        "formatted": sum(bool(line.strip()) for line in tidy.splitlines()),
        "widths": [len(line) for line in source.splitlines() if line.strip()],
        "bodies": [body_lines(f) for f in functions],
        "public": sum(not n.name.startswith("_") for n in top),
        "private": sum(n.name.startswith("_") for n in top),
        "borrowed": len(borrowed),
        "nested": nested_comprehensions(tree),
        "lambdas": sum(isinstance(n, ast.Assign) and isinstance(n.value, ast.Lambda) for n in ast.walk(tree)),
    }


def page(path):
    "What one notebook looks like."
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    prose = " ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    followed, defined = 0, 0
    for i, cell in enumerate(code):
        if not re.match(r"#\|\s*export", cell):
            continue
        tree = ast.parse("\n".join(line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!"))))
        names = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
        defined += len(names)
        followed += sum(any(re.search(rf"\b{n}\b", later) and not later.startswith("#| export") for later in code[i + 1 : i + 3]) for n in names)
    return {"cells": len(cells), "words": len(prose.split()), "defined": defined, "followed": followed}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rooms = {p.stem: room(p.stem) for p in sorted((ROOT / "mixlab").glob("[a-z]*.py"))}
    pages = {p.stem: page(p) for p in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))}
    widths = np.concatenate([r["widths"] for r in rooms.values()])
    bodies = np.concatenate([r["bodies"] for r in rooms.values()])
    total = {
        "rooms": len(rooms),
        "formatted lines": sum(r["formatted"] for r in rooms.values()),
        "formatted lines of a room, median and largest": [float(np.median([r["formatted"] for r in rooms.values()])), max(r["formatted"] for r in rooms.values())],
        "growth by formatting": round(sum(r["formatted"] for r in rooms.values()) / sum(r["lines"] for r in rooms.values()), 2),
        "line width, 90th percentile": float(np.quantile(widths, 0.9)),
        "lines over 100 columns": int((widths > 100).sum()),
        "function body, 90th percentile and largest": [float(np.quantile(bodies, 0.9)), int(bodies.max())],
        "private : public names": [sum(r["private"] for r in rooms.values()), sum(r["public"] for r in rooms.values())],
        "private names taken from other rooms": sum(r["borrowed"] for r in rooms.values()),
        "nested comprehensions": sum(r["nested"] for r in rooms.values()),
        "lambdas assigned": sum(r["lambdas"] for r in rooms.values()),
        "definitions followed by a call within two cells": f"{sum(p['followed'] for p in pages.values()) / sum(p['defined'] for p in pages.values()):.0%}",
        "cells of a page, median and largest": [float(np.median([p["cells"] for p in pages.values()])), max(p["cells"] for p in pages.values())],
        "words of a page, median and largest": [float(np.median([p["words"] for p in pages.values()])), max(p["words"] for p in pages.values())],
    }
    if args.json:
        print(json.dumps({"total": total, "rooms": {k: {a: b for a, b in v.items() if a not in ("widths", "bodies")} for k, v in rooms.items()}, "pages": pages}, indent=1))
        return
    for what, value in total.items():
        print(f"{what:<52} {value}")
    print()
    for name, p in pages.items():
        r = rooms.get(name[3:], {})
        print(f"{name:16} {p['cells']:4} cells {p['words']:5} words   {r.get('formatted', 0):5} formatted lines  {r.get('private', 0):3} private {r.get('public', 0):3} public")


if __name__ == "__main__":
    main()
