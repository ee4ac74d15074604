"""Would the tests notice a wrong number? Random small faults in the method code, each against its room's tests.

    python benchmarks/mutation.py --sample 100 [--modules regmix,stats] [--seed 0] [--pages] [--processes 2]

A fault is one change of the syntax tree: a comparison or an operation swapped, a constant moved, a condition negated, a
minimum for a maximum, another axis, another split. Messages, figures, reprs and checks of arguments are left out: a
test of what a method computes cannot see them. A module is changed in a copy of the repository, and
`tests/test_<module>.py` and its rows of `tests/test_doors.py` are run there. With --pages, what they let live is tried
against the asserts of the module's page too. The share noticed is printed, and every survivor with its line.
"""
import argparse
import ast
import collections
import concurrent.futures
import datetime
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.MatMult: ast.Add,
}
NAMES = {
    "min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin", "minimum": "maximum", "maximum": "minimum", "mean": "sum", "sum": "mean",
    "log": "log1p", "exp": "expm1", "sqrt": "abs", "cumsum": "cumprod", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "cos": "sin", "median": "mean", "std": "var", "var": "std",
}
WORDS = {"train": "valid", "valid": "train", "test": "valid"}
PLUMBING = ("show_", "__repr__", "_repr_html_", "_html", "_headline", "_bars", "_as_text", "_as_html")


def sites(tree):
    "Every (node, field, replacement) that is a fault of method code."
    found = []

    def add(node, change):
        found.append((node, change))

    def visit(node, inside):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name.startswith(PLUMBING):
                return
            inside = True
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.split(".")[-1].startswith(("as_", "_check", "warn", "validate", "check_")):
                return
        if isinstance(node, ast.If) and any(isinstance(s, ast.Raise) for s in node.body):
            for child in node.orelse:
                visit(child, inside)
            return
        if inside:
            if isinstance(node, ast.BinOp) and type(node.op) in OTHER and not isinstance(node.left, ast.Constant | ast.JoinedStr) | (
                isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
            ):
                add(node, ("op", OTHER[type(node.op)]))
            if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OTHER:
                add(node, ("compare", OTHER[type(node.ops[0])]))
            if isinstance(node, ast.BoolOp):
                add(node, ("bool", OTHER[type(node.op)]))
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
                add(node, ("drop", None))
            if isinstance(node, ast.Attribute) and node.attr in NAMES:
                add(node, ("attr", NAMES[node.attr]))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
                add(node.func, ("name", NAMES[node.func.id]))
            if isinstance(node, ast.IfExp):
                add(node, ("swap", None))
            if isinstance(node, ast.Constant):
                if node.value in WORDS if isinstance(node.value, str) else False:
                    add(node, ("value", WORDS[node.value]))
                elif isinstance(node.value, bool):
                    add(node, ("value", not node.value))
                elif isinstance(node.value, int) and abs(node.value) < 100:
                    add(node, ("value", node.value + 1))
                elif isinstance(node.value, float):
                    add(node, ("value", node.value * 1.5))
        body = node.body[1:] if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and ast.get_docstring(node) else None
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            children = body if field == "body" and body is not None else value if isinstance(value, list) else [value]
            for child in children:
                if isinstance(child, ast.AST):
                    visit(child, inside)

    visit(tree, False)
    return found


def mutated(source, number):
    "The source with fault `number`, the line it stands on, and what it was and became."
    tree = ast.parse(source)
    node, (kind, new) = sites(tree)[number]
    before, line = ast.unparse(node), node.lineno
    if kind == "op":
        node.op = new()
    elif kind == "compare":
        node.ops = [new()]
    elif kind == "bool":
        node.op = new()
    elif kind == "attr":
        node.attr = new
    elif kind == "name":
        node.id = new
    elif kind == "value":
        node.value = new
    elif kind == "swap":
        node.body, node.orelse = node.orelse, node.body
    after = ast.unparse(node)
    if kind == "drop":
        after = ast.unparse(node.operand)
        for parent in ast.walk(tree):
            for field, value in ast.iter_fields(parent):
                if value is node:
                    setattr(parent, field, node.operand)
                elif isinstance(value, list) and any(v is node for v in value):
                    setattr(parent, field, [node.operand if v is node else v for v in value])
    return ast.unparse(ast.fix_missing_locations(tree)), line, before, after


def copy_of_repository(folder):
    "A copy that may be broken."
    ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", ".pytest_cache", ".hypothesis")
    shutil.copytree(ROOT, folder / "repo", ignore=ignore)
    return folder / "repo"


def tests_of(module):
    "The tests of a room."
    names = [f"tests/test_{module}.py"] + (["tests/test_merge_files.py"] if module == "average" else [])
    return [n for n in names if (ROOT / n).exists()]


def run_tests(repo, arguments, limit):
    "Do the tests fail (True: the fault was noticed)? A run that takes too long has noticed too."
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *arguments]
    env = os.environ | {"PYTHONPATH": str(repo), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MIXLAB_CI": "1"}
    try:
        done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode not in (0, 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100, help="faults to try, over all modules")
    parser.add_argument("--modules", default="", help="comma separated; default: all but checks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pages", action="store_true", help="try survivors against the page's asserts")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--trust", action="store_true", help="do not first run the tests without a fault: they have just passed")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long; the share is that of what was tried")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one run of tests")
    parser.add_argument("--write", type=Path, help="also write the share to this JSON file")
    parser.add_argument("--list", action="store_true", help="only say what would be tried")
    args = parser.parse_args()
    modules = args.modules.split(",") if args.modules else sorted(p.stem for p in (ROOT / "mixlab").glob("[a-z]*.py") if p.stem != "checks")
    sources = {m: (ROOT / f"mixlab/{m}.py").read_text() for m in modules}
    every = [(m, i) for m in modules for i in range(len(sites(ast.parse(sources[m]))))]
    chosen = random.Random(args.seed).sample(every, min(args.sample, len(every)))
    print(f"{len(every)} places for a fault, {len(chosen)} tried")
    queues = collections.deque()

    def try_one(job):
        module, number = job
        text, line, before, after = mutated(sources[module], number)
        where = f"{module}:{line}  {before[:70]}  ->  {after[:70]}"
        if args.list:
            return module, None, where
        repo = queues.pop()
        file = repo / f"mixlab/{module}.py"
        try:
            file.write_text(text)
            noticed = run_tests(repo, tests_of(module), args.limit)
            if not noticed:
                noticed = run_tests(repo, ["tests/test_doors.py", "-k", f"{module}."], args.limit)
            if not noticed and args.pages:
                page = next((ROOT / "nbs").glob(f"[0-9][0-9]_{module}.ipynb")).stem
                noticed = run_tests(repo, ["tests/test_pages.py", "-k", page], args.limit)
        finally:
            file.write_text(sources[module])
            queues.append(repo)
        return module, noticed, where

    found = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.processes):
            (Path(folder) / str(i)).mkdir()
            queues.append(copy_of_repository(Path(folder) / str(i)))
        for module in [] if args.list or args.trust else sorted({m for m, _ in chosen}):
            if run_tests(queues[0], [*tests_of(module), "tests/test_doors.py", "-k", f"test_{module} or {module}."], args.limit):
                sys.exit(f"{module}: its tests fail without a fault, so they cannot judge one")
        end = time.monotonic() + 60 * args.minutes
        with concurrent.futures.ThreadPoolExecutor(args.processes) as pool:
            jobs = [pool.submit(try_one, job) for job in chosen]
            try:
                for job in concurrent.futures.as_completed(jobs, timeout=max(0, end - time.monotonic())):
                    module, noticed, where = job.result()
                    found[module].append(noticed)
                    print(f"{'noticed' if noticed else 'lives  '}  {where}", flush=True)
            except concurrent.futures.TimeoutError:
                print(f"stopped after {args.minutes:g} minutes", flush=True)
                pool.shutdown(cancel_futures=True)
    if args.list:
        return
    for module, noticed in sorted(found.items()):
        print(f"{module:12} {sum(noticed):4} of {len(noticed)} noticed")
    total = [n for noticed in found.values() for n in noticed]
    share = sum(total) / max(len(total), 1)
    print(f"noticed: {sum(total)} of {len(total)} = {share:.0%}; aim: at least 90 %: {'met' if share >= 0.9 else 'MISSED'}")
    if args.write:
        detail = ", ".join(f"{m} {sum(n)}/{len(n)}" for m, n in sorted(found.items()))
        record = dict(date=datetime.date.today().isoformat(), machine=platform.machine(), calls=len(total), share=share, detail=detail, seed=args.seed, pages=args.pages)
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(0 if share >= 0.9 else 1)


if __name__ == "__main__":
    main()
