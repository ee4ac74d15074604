"Rows of mixlab.runs."
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from calls import TINY, Call, corpus
from mixlab import runs

IDENTITY = {"configuration": {"steps": 1}, "corpus": "3f", "mixture": [["alpha", 0.5], ["bravo", 0.5]]}
RECORD = {"status": "ok", "sampled": {"alpha": 0.5, "bravo": 0.5}, "losses": {"alpha": 3.2, "bravo": 2.9}}
KEY = runs.key_of(IDENTITY)
MIXTURES = pd.DataFrame([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], columns=["alpha", "bravo", "cargo"])


def folder():
    return Path(tempfile.mkdtemp(prefix="mixlab-calls-"))


def store():
    "A store that holds one run."
    made = runs.RunStore(folder())
    made.put(IDENTITY, RECORD, {"params/w": np.arange(3.0)})
    return made


def of_store(method):
    "Call a method of a store that holds one run."

    def call(**arguments):
        return getattr(store(), method)(**arguments)

    return call


def claim(**arguments):
    with runs.claimed(**arguments) as mine:
        return mine


def history():
    row = dict(worker="w-1", driver="d", begin=0.0, end=1.0, runs=2, finished=True)
    return pd.DataFrame([row, {**row, "worker": "w-2", "finished": False}])


def supervised(**arguments):
    return list(runs.supervise(**arguments))


def submit(pool, task):
    return pool.submit(lambda: {"left": []})


@contextmanager
def serial():
    yield runs.SerialExecutor()


def began(task):
    return True


def sweep_arguments():
    small = {name: value for name, value in TINY.items() if name != "progress"}
    return dict(
        corpus=corpus(), W=MIXTURES, scale="tiny", store=folder(), executor=None, seed=0, stack=2, workers=0, retries=0,
        timeout=60.0, on_error="warn", keep="none", start=None, device="cpu", progress=False, engine="mixlab.train", steps=2, **small,
    )


def stack_arguments():
    made = runs.RunStore(folder())
    small = {name: value for name, value in TINY.items() if name != "progress"} | {"steps": 2}
    jobs = runs._identities(corpus(), [[0.2, 0.3, 0.5]], "tiny", 0, "mixlab.train", small)
    how = dict(engine="mixlab.train", corpus=corpus(), scale="tiny", seed=0, device="cpu", overrides=small, keep="none")
    return dict(path=made.path, jobs=jobs, how=how, owner="me")


def losses_by_name(table):
    return {f"{block} {name}": table[block, name].to_numpy() for block, name in table.columns if block in ("mixture", "loss")}


ROWS = [
    Call("FORMAT", why="a constant"),
    Call("LEASE", why="a constant"),
    Call("KEEP", why="a constant"),
    Call("FLOOR", why="a constant"),
    Call("FACTOR", why="a constant"),
    Call("NOTICE", why="a constant"),
    Call("Damaged", why="an exception"),
    Call("StoreError", why="an exception"),
    Call("canonical", lambda: dict(x={"b": 1, "a": [0.5]}, sort=True)),
    Call("key_of", lambda: dict(identity=IDENTITY)),
    Call("pack", lambda: dict(record=RECORD, tensors={"w": np.arange(3.0)})),
    Call("unpack", lambda: dict(raw=runs.pack(RECORD))),
    Call("publish", lambda: dict(path=folder() / "name", data=b"data", scratch=folder())),
    Call("replace_file", lambda: dict(path=folder() / "name", data=b"data")),
    Call("try_file", lambda: dict(path=folder() / "name", data=b"data")),
    Call("RunStore", lambda: dict(path=folder()), result=len),
    Call("RunStore.put", lambda: dict(identity=IDENTITY, record=RECORD, tensors={"w": np.ones(2)}), call=of_store("put")),
    Call("RunStore.get", lambda: dict(key=KEY), call=of_store("get"), result=lambda r: r["losses"]),
    Call("RunStore.file", lambda: dict(key=KEY), call=of_store("file"), result=lambda path: path.name),
    Call("RunStore.keys", dict, call=of_store("keys")),
    Call("RunStore.verify", lambda: dict(keys=[KEY]), call=of_store("verify")),
    Call("RunStore.frame", lambda: dict(keys=[KEY]), call=of_store("frame")),
    Call("RunStore.history", dict, call=of_store("history")),
    Call("RunStore.rebuild", lambda: dict(path=store().path), result=len),
    Call("claimed", lambda: dict(store=store(), keys=[KEY], owner="me"), call=claim),
    Call("show_history", lambda: dict(tasks=history(), ax=None), result=lambda ax: ax.get_xlabel()),
    Call("run_stack", stack_arguments, result=lambda said: said["left"], fixed=("how",)),  # what `sweep` checked
    Call("SerialExecutor", dict, result=lambda made: None),
    Call("SpawnPool", lambda: dict(workers=2, preload="json"), result=lambda made: None),
    Call(
        "supervise",
        lambda: dict(tasks=[(0, 1), (2,)], submit=submit, make=serial, began=began, retries=1, timeout=5.0, started=None, wait=None),
        call=supervised,
        fixed=("submit", "make", "began"),  # any function may be one of these: what it returns is its own affair
    ),
    Call(
        "sweep",
        sweep_arguments,
        mixtures=("W",),
        result=losses_by_name,
        tolerance=1e-5,
        # settings are those of `configuration`, which has a row of its own; workers take seconds to import torch
        fixed=("store", "workers", "steps", *(name for name in TINY if name != "progress")),
    ),
]
