"""What an import costs: CPU seconds that mixlab's rooms add to torch, the median of five fresh interpreters.

    python benchmarks/imports.py
"""
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def seconds(first: str, then: str) -> float:
    "CPU seconds that a fresh interpreter takes to import `then` once it holds `first`."
    code = f"import time, {first}; t = time.process_time(); import {then}; print(time.process_time() - t)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def main():
    rooms = sorted(p.stem for p in (ROOT / "mixlab").glob("[a-z]*.py"))
    for first, then in [("os", "mixlab"), *(("torch", f"mixlab.{room}") for room in rooms)]:
        costs = [seconds(first, then) for _ in range(5)]
        print(f"{then:20} {statistics.median(costs):6.2f} s over {first}")


if __name__ == "__main__":
    main()
