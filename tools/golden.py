"""Did a change that should move nothing move a number? A golden file of every public function's answer.

    python tools/golden.py write [FILE]      before the change
    python tools/golden.py check [FILE]      after it: names every answer that is another, or gone

The answers are those of the good calls in tests/calls. The file belongs to one machine and one change; it is not committed.
"""
import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np

import calls
import test_doors


def plain(x):
    "Nested lists of numbers and texts, as JSON can hold them."
    if isinstance(x, np.ndarray):
        return plain(x.tolist())
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if isinstance(x, (bool, int, float, str, type(None))):
        return x
    return f"<{type(x).__name__}>"


def answers():
    "Every module's rows and what they answer now."
    for module in calls.modules():
        for call in calls.rows(module):
            if call.arguments is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield f"{module}.{call.name}", plain(test_doors.answer(module, call)), call.tolerance


def same(a, b, tolerance):
    "Equal up to rounding?"
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return bool(np.isclose(a, b, rtol=1e-7, atol=tolerance, equal_nan=True))
    return a == b


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "check"])
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "build" / "golden.json")
    args = parser.parse_args()
    if args.command == "write":
        args.file.parent.mkdir(parents=True, exist_ok=True)
        found = {name: answer for name, answer, _ in answers()}
        args.file.write_text(json.dumps(found))
        print(f"{len(found)} answers written")
        return
    before = json.loads(args.file.read_text())
    now = {name: (answer, tolerance) for name, answer, tolerance in answers()}
    moved = [name for name, (answer, tolerance) in now.items() if name in before and not same(before[name], answer, tolerance)]
    gone = sorted(set(before) - set(now))
    for name in moved:
        print(f"another answer: {name}")
    for name in gone:
        print(f"gone: {name}")
    print(f"{len(now)} answers, {len(moved)} moved, {len(gone)} gone, {len(set(now) - set(before))} new")
    sys.exit(1 if moved or gone else 0)


if __name__ == "__main__":
    main()
