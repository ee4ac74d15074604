"""A stand-in for mixlab.train: the same functions, instant and deterministic, and it misbehaves on request.

`FAKE_LOG` names a file to which every training appends its mixtures; `FAKE_SECONDS` is how long a stack takes;
`FAKE_RELEASE` names a file that ends every hang. The overrides
`die`, `fail`, `diverge`, `hang` and `stop` hold the share of the first domain at which a member kills its process, raises, diverges,
never returns, or stops its process as Ctrl-Z would. `lost` is the same as `die`, but once only: it names a file that the first death leaves."""
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np


class Corpus:
    "Three domains to mix and one more to evaluate on; no text."

    names, heldout, targets, hash = ("a", "b", "c"), ("d",), ("a", "b", "c", "d"), "0" * 64


class Absent(Corpus):
    "A corpus whose folder the worker does not have."

    def __reduce__(self):
        return missing, ("corpus.json",)


def missing(name):
    raise FileNotFoundError(f"no {name} here")


def configuration(corpus, scale, seed, **overrides):
    return {"scale": scale, "seed": seed, "steps": 10, **overrides}


def train(corpus, W, scale="tiny", seed=0, *, start=None, device=None, keep_optimizer=False, progress=True, parameters=64, **faults):
    if "FAKE_LOG" in os.environ:
        with open(os.environ["FAKE_LOG"], "a") as f:
            f.write(json.dumps(W[:, 0].tolist()) + "\n")
    time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
    misbehave(faults, W[:, 0])
    a = np.array([np.sin(np.arange(parameters) * (1 + w @ np.arange(1, len(w) + 1)) + seed) for w in W], np.float32)
    if start is not None:
        a = a + start.params["a"]
    if device == "meta":
        a = a + 1
    status = ["diverged" if w[0] == faults.get("diverge") else "ok" for w in W]
    curve = np.array([[5.5, np.nan if s == "diverged" else 2] for s in status], np.float32)
    optimizer = {"step": 10, "a": {"exp_avg": a * 0}}
    return SimpleNamespace(params={"a": a, "b": a[:, :3] * 2}, optimizer=optimizer, sampled=W.copy(), curve=curve, status=status)


def misbehave(faults, first):
    here = {name for name in ("die", "fail", "hang", "stop") if name in faults and (first == faults[name]).any()}
    if "die" in here:
        os.kill(os.getpid(), signal.SIGKILL)
    if "lost" in faults and not Path(faults["lost"]).exists():
        Path(faults["lost"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "stop" in here:
        os.kill(os.getpid(), signal.SIGSTOP)
    release = os.environ.get("FAKE_RELEASE")
    while "hang" in here and not (release and Path(release).exists()):
        time.sleep(0.01)
    if "fail" in here or faults.get("fail") == "all":
        raise LookupError("no such luck")


def losses(trained, corpus, split="valid", device=None):
    level = {"train": 1, "valid": 2, "test": 3}[split]
    loss = level + trained.params["a"][:, 1:2].astype(float) * np.linspace(0.1, 1, len(corpus.targets))
    loss[[s == "diverged" for s in trained.status]] = np.nan
    return loss


def restore(records):
    return SimpleNamespace(params={"a": np.stack([r["tensors"]["params/a"] for r in records])})
