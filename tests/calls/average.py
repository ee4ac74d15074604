"Rows of mixlab.average."
import functools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from calls import TINY, Call, corpus
from mixlab.average import BaseUnits, QuadraticSurrogate, agree, probabilities, singles_and_pairs, study
from mixlab.train import train

SIZES = {"alpha": 3.0, "bravo": 2.0, "cargo": 1.0}
PAIRS = [("alpha", "bravo"), ("alpha", "cargo"), ("bravo", "cargo"), ("alpha", "bravo", "cargo")]
NAMES = ["alpha/0", "bravo/0", "cargo/0"]
WEIGHTS = pd.DataFrame([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], columns=NAMES)


@functools.cache
def units():
    "Three partitions of one unit each."
    return BaseUnits(corpus(), 1024, dict.fromkeys(("alpha", "bravo", "cargo"), 1))


@functools.cache
def pool():
    "A model for each unit."
    how = {k: v for k, v in TINY.items() if k != "progress"}
    return train(units(), np.eye(3), steps=2, seed=[1, 2, 3], progress=False, **how)


@functools.cache
def base():
    "Averages, and made-up losses of two targets."
    A = pd.DataFrame(singles_and_pairs(3), columns=NAMES, index=[f"run{i}" for i in range(6)])
    y = pd.DataFrame({"alpha": 1 + A["alpha/0"] ** 2, "delta": 2 + A["bravo/0"] * A["cargo/0"]}, index=A.index)
    return A, y


@functools.cache
def fitted():
    return QuadraticSurrogate().fit(*base())


def seq():
    "Losses of mixtures that were never trained."
    Y = np.random.default_rng(0).uniform(1, 3, (len(PAIRS), 4))
    return pd.DataFrame(Y, columns=list(units().targets), index=[" + ".join(pair) for pair in PAIRS])


@functools.cache
def table():
    "A study of pairs and the triple."
    return study(units(), pool(), PAIRS, seq(), tokens=256, progress=False)


@functools.cache
def room():
    return Path(tempfile.mkdtemp(prefix="mixlab-calls-"))


@functools.cache
def checkpoints():
    "Two small files."
    from safetensors.torch import save_file

    files = [room() / f"{name}.safetensors" for name in "ab"]
    for i, file in enumerate(files):
        save_file({"w": torch.full((2, 3), float(i)), "step": torch.tensor(7)}, file)
    return [str(f) for f in files]


@functools.cache
def grown():
    "A store with a seed model of the three partitions, and its key."
    from mixlab.runs import RunStore, sweep

    store = RunStore(room() / "store")
    found = sweep(corpus(), [[1 / 3] * 3], store=store, steps=2, keep="optimizer", workers=0, **TINY)
    return store, found["run", "key"][0]


def agreement_data():
    n = 8
    rng = np.random.default_rng(0)
    index = [f"run{i}" for i in range(n)]
    members = pd.DataFrame(np.array([[i in p for i in range(5)] for p in [(a, b) for a in range(5) for b in range(a)][:n]], int), index=index)
    members.columns = list("vwxyz")
    return pd.Series(rng.uniform(1, 2, n), index=index), pd.Series(rng.uniform(1, 2, n), index=index), members


def nothing(answer):
    return None


def merged_params(answer):
    return {name: x.double() for name, x in answer.params.items()} | {"W": answer.W}


def written(answer):
    "The numbers of a merge on disk."
    from safetensors.torch import load_file

    return {"w": load_file(answer.out)["w"].double(), "weights": answer.weights}


SCORED = dict(split="valid", tokens=128, targets=["alpha", "delta"])

ROWS = [
    Call("cost", lambda: dict(sizes=SIZES, k=2, tokens=1.0, hours=5.0, scored=0.01), missing=("sizes",)),
    Call("show_cost", lambda: dict(n=8, k=(2, 3), hours=5.0, tokens=1.0, ax=None), result=nothing),
    Call("merge", lambda: dict(stack=pool(), A=WEIGHTS), mixtures=("A",), result=merged_params),
    Call(
        "merge_losses",
        lambda: dict(stack=pool(), A=WEIGHTS, corpus=units(), block=2, progress=False, **SCORED),
        mixtures=("A",),
    ),
    Call("barrier", lambda: dict(stack=pool(), corpus=units(), i=0, j=1, points=3, **SCORED)),
    Call("midpoint_gap", lambda: dict(stack=pool(), corpus=units(), **SCORED)),
    Call("BaseUnits", lambda: dict(corpus=corpus(), tokens=1024, counts={"alpha": 2, "bravo": 1, "cargo": 1}), result=nothing),
    Call("BaseUnits.tokens", lambda: dict(name="alpha/0", split="train"), call=lambda **how: units().tokens(**how)),
    Call("BaseUnits.rows", lambda: dict(mixtures=PAIRS, kind="micro"), call=lambda **how: units().rows(**how)),
    Call(
        "continued",
        lambda: dict(
            units=units(), rows=WEIGHTS, start=grown()[1], scale="tiny", seed=0, store=grown()[0], keep="none", workers=0,
            steps=1, **TINY,
        ),
        mixtures=("rows",),
        result=lambda answer: answer["loss"],
        fixed=("store", "width", "heads", "hidden", "depth", "context", "batch", "steps"),  # `sweep` and `configuration` check them
    ),
    Call("probabilities", lambda: dict(stack=pool(), corpus=units(), **SCORED), result=nothing),
    Call(
        "ensemble_losses",
        lambda: dict(given=probabilities(pool(), units(), **SCORED), A=WEIGHTS.to_numpy(), block=2),
    ),
    Call("QuadraticSurrogate", lambda: dict(log=True), call=lambda **how: QuadraticSurrogate(**how).fit(*base()).predict(WEIGHTS)),
    Call(
        "QuadraticSurrogate.fit",
        lambda: dict(A=base()[0], y=base()[1]),
        call=lambda **how: QuadraticSurrogate().fit(**how).predict(WEIGHTS),
        result=np.sort,  # columns come in the order of y
        tables=("A", "y"),
    ),
    Call(
        "QuadraticSurrogate.predict",
        lambda: dict(A=WEIGHTS),
        call=lambda **how: fitted().predict(**how),
        mixtures=("A",),
    ),
    Call(
        "QuadraticSurrogate.best",
        lambda: dict(target={"alpha": 0.25, "delta": 0.75}),
        call=lambda **how: fitted().best(**how),
        targets=("target",),
        tolerance=1e-5,  # of a numerical minimum
    ),
    Call("singles_and_pairs", lambda: dict(n=4)),
    Call(
        "study",
        lambda: dict(
            units=units(), pool=pool(), mixtures=PAIRS, seq=seq(), again=seq() + 0.1, parts=pool(), surrogate=None, tokens=128,
            progress=False,
        ),
        tables=("seq", "again"),
        work=("tokens",),
    ),
    Call(
        "agreement",
        lambda: dict(zip(("x", "y", "members"), agreement_data()), level=0.9, resamples=50, seed=0),
        tables=("x", "y", "members"),
    ),
    Call("scores", lambda: dict(table=table(), on="outside")),
    Call("agree", lambda: dict(table=table(), on="inside", level=0.9, resamples=20, seed=0)),
    Call("show_proxies", lambda: dict(table=table(), on="outside", proxies=["mean IND", "MERGED"], ax=None), result=nothing),
    Call("show_agreement", lambda: dict(tables={"one": agree(table(), "inside", resamples=20)}, ax=None), result=nothing),
    Call("open_checkpoint", lambda: dict(path=checkpoints()[0], name="a"), result=nothing),
    Call(
        "merge_files",
        lambda: dict(
            paths=checkpoints(), weights={"a": 0.25, "b": 0.75}, out=str(room() / "merged.safetensors"), names=["a", "b"],
            dtype="float32", config_from=0, ignore=["step"], negative=False, overwrite=True, hashes=True, progress=False,
        ),
        result=written,
    ),
    Call("PROXIES", why="names of columns"),
    Call("FLOATS", why="a table of types"),
    Call("COUNTS", why="a table of types"),
    Call("TYPES", why="a table of types"),
    Call("LETTERS", why="a table of types"),
    Call("BLOCK", why="a constant"),
    Call("WINDOW", why="a constant"),
    Call("Place", why="a record that open_checkpoint makes"),
    Call("Checkpoint", why="a record that open_checkpoint makes"),
    Call("Merged", why="a record that merge_files makes"),
]
