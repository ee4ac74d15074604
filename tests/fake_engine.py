"""A stand-in for mixlab.train: the same three functions, instant and deterministic, and it misbehaves on request.

`FAKE_LOG` names a file to which every training appends its mixtures; `FAKE_SECONDS` is how long a stack takes. The overrides
`die`, `fail` and `diverge` hold the share of the first domain at which a member kills its process, raises, or diverges."""
import json, os, signal, time
from types import SimpleNamespace
import numpy as np


class Corpus:
    "Three domains to mix and one more to evaluate on; no text."
    names, heldout, targets, hash = ("a", "b", "c"), ("d",), ("a", "b", "c", "d"), "0" * 64


def configuration(corpus, scale, seed, **overrides): return {"scale": scale, "seed": seed, "steps": 10, **overrides}


def train(corpus, W, scale="tiny", seed=0, *, keep_optimizer=False, progress=True, die=None, fail=None, diverge=None, parameters=64):
    if "FAKE_LOG" in os.environ:
        with open(os.environ["FAKE_LOG"], "a") as f: f.write(json.dumps(W[:, 0].tolist()) + "\n")
    time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
    if die is not None and (W[:, 0] == die).any(): os.kill(os.getpid(), signal.SIGKILL)
    if fail is not None and (W[:, 0] == fail).any(): raise LookupError("no such luck")
    a = np.array([np.sin(np.arange(parameters) * (1 + w @ np.arange(1, len(w) + 1)) + seed) for w in W], np.float32)
    status = ["diverged" if w[0] == diverge else "ok" for w in W]
    curve = np.array([[5.5, np.nan if s == "diverged" else 2] for s in status], np.float32)
    return SimpleNamespace(params={"a": a, "b": a[:, :3] * 2}, optimizer={"step": 10, "a": {"exp_avg": a * 0}}, sampled=W.copy(), curve=curve, status=status)


def losses(trained, corpus, split="valid"):
    loss = 2 + trained.params["a"][:, 1:2].astype(float) * np.linspace(.1, 1, len(corpus.targets))
    loss[[s == "diverged" for s in trained.status]] = np.nan
    return loss
