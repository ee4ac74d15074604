"""One good call of every public name, and which of its arguments are mixtures, targets or tables.

`tests/test_doors.py` feeds the same arguments in other forms and orders and expects the same answer; it fails when a
public name stands in no row. `benchmarks/fuzz.py` makes one argument wrong at a time. A file here is one module's rows.
"""
import functools
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

NAMES = ("alpha", "bravo", "cargo")
HELDOUT = ("delta",)


@dataclass
class Call:
    name: str  # public name in the module, or "Class.method"
    arguments: Callable[[], dict] | None = None  # keyword arguments of a good, cheap call; made anew each time
    mixtures: tuple = ()  # arguments that are mixtures: {name: share} for one, a DataFrame (N, K) for many
    targets: tuple = ()  # arguments that weigh targets: {name: weight}
    amounts: tuple = ()  # arguments with a number for each domain: {name: number}
    tables: tuple = ()  # arguments whose rows are runs: DataFrame or Series with an index of run names
    call: Callable | None = None  # how to call it, as call(**arguments); default: the public name itself
    result: Callable = field(default=lambda answer: answer)  # the numbers of an answer that must not change
    tolerance: float = 1e-9  # of the comparison
    fixed: tuple = ()  # arguments that the fuzz leaves alone (say why beside it)
    missing: tuple = ()  # arguments in which NaN means "missing" and may come out again
    work: tuple = ()  # counts "at most": more than there is means all there is, which may take long
    why: str = ""  # where `arguments` is None: why there is nothing to call


def documents(names=NAMES + HELDOUT, n=150):
    "Small made-up text, the same each time."
    draw = random.Random(0)
    words = {name: (name, name[::-1], "and") for name in names}
    return {
        name: [
            f"{name} {i} " + " ".join(draw.choice([*words[name], str(draw.randrange(99))]) for _ in range(60))
            for i in range(n)
        ]
        for name in names
    }


@functools.cache
def corpus():
    "A tiny corpus of three training domains and one that is held out."
    from mixlab.corpus import from_documents

    return from_documents(
        documents(), heldout=HELDOUT, context=64, cache=tempfile.mkdtemp(prefix="mixlab-calls-"), progress=False
    )


TINY = dict(width=16, heads=1, hidden=16, depth=1, context=16, batch=2, progress=False)  # a model that trains in no time


def modules():
    "Module names that have a file of rows here."
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def rows(module: str) -> list[Call]:
    "The rows of one module."
    function = globals()["corpus"]
    found = import_module(f"calls.{module}").ROWS
    globals()["corpus"] = function  # calls/corpus.py, a module of the same name, would take its place
    return found


def target_of(module: str, call: Call):
    "What a row calls."
    if call.call is not None:
        return call.call
    thing = import_module(f"mixlab.{module}")
    for part in call.name.split("."):
        thing = getattr(thing, part)
    return thing
