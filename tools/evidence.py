"""Every number that an issue asks for, beside its bar.

    python tools/evidence.py sound [--cases FOLDER] [--quick]

Exit status 1 where a bar is missed. Numbers that take long to make come from `benchmarks/results/*.json`, each with the
command, the date and the machine that made it; `--fresh` makes them again.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


class Evidence:
    "Lines of a report: what, measured, bar, met or missed."

    def __init__(self):
        self.missed = 0

    def line(self, what, measured, bar, met):
        self.missed += not met
        print(f"{'met   ' if met else 'MISSED'}  {what:<58} {measured!s:<44} bar: {bar}", flush=True)


def run(command, **env):
    "A command in the repository; its finished process."
    plain = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=os.environ | plain | env, capture_output=True, text=True)


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:120] if lines else ""


def pytest(*arguments, **env):
    "Does pytest pass, and its closing line."
    done = run([sys.executable, "-m", "pytest", "-q", "--no-header", *arguments], **env)
    summary = [line for line in done.stdout.splitlines() if " passed" in line or " failed" in line]
    return done.returncode == 0, (summary or [last_line(done.stdout + done.stderr)])[-1].strip("= ")


def stored(name):
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def sound(evidence, args):
    "Issue: green on every machine, one door for mixtures, nothing silent."
    from mixlab.samples import fixed_corpus

    expected = json.loads((ROOT / "mixlab/data/samples.json").read_text())["corpus"]
    corpus = fixed_corpus(progress=False)
    enough = len(corpus.names) >= 7 and len(corpus.heldout) >= 5
    evidence.line("fixed corpus: content hash", corpus.hash[:16], expected[:16], corpus.hash == expected)
    evidence.line("fixed corpus: training and held-out domains", f"{len(corpus.names)} + {len(corpus.heldout)}", "7 + 5", enough)
    if args.cases:
        for script in sorted(Path(args.cases).glob("*.py")):
            if script.stem == "values":
                continue
            done = run([sys.executable, str(script)])
            evidence.line(f"case {script.stem}", "passes" if done.returncode == 0 else last_line(done.stderr), "passes", done.returncode == 0)
    numerical = ["-m", "numerical"]
    if not args.quick:
        for name, env in {"native": {}, "avx2": dict(ATEN_CPU_CAPABILITY="avx2"), "default": dict(ATEN_CPU_CAPABILITY="default"),
                          "MKL_CBWR=COMPATIBLE": dict(MKL_CBWR="COMPATIBLE")}.items():
            passed, said = pytest(*numerical, **env)
            evidence.line(f"numerical tests, {name}", said, "all pass", passed)
        passed, said = pytest("tests/test_doors.py")
        evidence.line("names decide: every public function, six forms", said, "all pass", passed)
    for name, bar, share in (("fuzz", "90 % clear or accepted, no NaN, no hang", "share"), ("mutation", "90 % noticed", "share")):
        result = stored(name)
        if result is None:
            evidence.line(name, f"no benchmarks/results/{name}.json: run benchmarks/{name}.py", bar, False)
            continue
        met = result["share"] >= 0.9 and not result.get("nan", 0) and not result.get("slow", 0)
        evidence.line(f"{name} ({result['date']}, {result['calls']} tried)", f"{result['share']:.1%}, {result['detail']}", bar, met)


ISSUES = {"sound": sound}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("issue", choices=ISSUES)
    parser.add_argument("--cases", help="a folder of small scripts, each of which must pass")
    parser.add_argument("--quick", action="store_true", help="leave out whole test runs")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    evidence = Evidence()
    ISSUES[args.issue](evidence, args)
    print("every bar is met" if not evidence.missed else f"{evidence.missed} bars are missed")
    sys.exit(1 if evidence.missed else 0)


if __name__ == "__main__":
    main()
