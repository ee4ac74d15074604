"Rows of mixlab.train."
import functools
from copy import deepcopy

import numpy as np
import pandas as pd

import calls
from calls import NAMES, TINY, Call

MIXTURE = dict(zip(NAMES, (0.5, 0.3, 0.2)))
MIXTURES = pd.DataFrame([(0.5, 0.3, 0.2), (0.1, 0.1, 0.8)], columns=list(NAMES))
QUICK = {**TINY, "steps": 4}


def trained(**how):
    "Two members after four steps; a fresh copy."
    return deepcopy(_trained(**how))


@functools.cache
def _trained(**how):
    from mixlab.train import train

    return train(calls.corpus(), MIXTURES, **{**QUICK, "keep_optimizer": True, **how})


@functools.cache
def _records():
    import tempfile

    from mixlab.runs import RunStore, sweep

    store = RunStore(tempfile.mkdtemp(prefix="mixlab-calls-"))
    table = sweep(calls.corpus(), MIXTURES, store=store, keep="params", workers=0, **QUICK)
    return [store.get(key) for key in table["run", "key"]]


def config():
    from mixlab.train import configuration

    return configuration(calls.corpus(), **{k: v for k, v in QUICK.items() if k != "progress"})


def numbers(trained):
    "What a stack is, without its tensors' names."
    return [trained.params["embed"], trained.params["head"], trained.W, trained.sampled, trained.curve]


def drawn(iterator):
    return [[tokens, domain] for tokens, domain in iterator]


def measured(context):
    with context as nothing:
        return nothing


ROWS = [
    Call("ENGINE", why="a value"),
    Call("SCALES", why="a value"),
    Call("counter_hash", lambda: dict(parts=np.arange(3)), call=lambda parts: _hash(parts)),
    Call("shuffled", lambda: dict(card=np.arange(5), deck=7, key=3)),
    Call(
        "domain_draws",
        lambda: dict(W=MIXTURES[list(NAMES)], seeds=np.arange(2), steps=np.arange(3), batch=2),
    ),  # no names are given that could decide, so the first row's order holds
    Call(
        "batches",
        lambda: dict(corpus=calls.corpus(), W=MIXTURES, seeds=[0, 1], batch=2, context=8, first=1, last=3, block=2),
        mixtures=("W",),
        result=drawn,
    ),
    Call(
        "configuration",
        lambda: dict(
            corpus=calls.corpus(), scale="tiny", seed=3, steps=7, batch=4, rows=2, context=8, width=16, depth=1, heads=2,
            hidden=8, lr=0.01, warmup=0.1, weight_decay=0.1, betas=(0.9, 0.95), clip=1.0, schedule="cosine", block="llama",
        ),
    ),
    Call("proxy", lambda: dict(c=config()), result=repr),
    Call("learning_rate", lambda: dict(c=config(), step=2)),
    Call("fast_products", lambda: {}, result=measured),
    Call("Trained", why="made by train; every function that takes one checks it"),
    Call("Trained.__getitem__", lambda: dict(i=[1, 0]), call=lambda i: trained()[i], result=numbers),
    Call("as_corpus", lambda: dict(corpus=calls.corpus()), result=lambda c: c.hash),
    Call("as_member", lambda: dict(start=None, name="start"), fixed=("name",)),
    Call("stack_size", lambda: dict(config=config(), device="cpu", memory=1e9)),
    Call(
        "train",
        lambda: dict(corpus=calls.corpus(), W=MIXTURES, scale="tiny", seed=[3, 4], start=None, stop=1, resume=None,
                     device="cpu", stack=2, keep_optimizer=True, **{**QUICK, "context": 4, "batch": 1}),
        mixtures=("W",),
        result=numbers,
    ),
    Call("join", lambda: dict(parts=[trained(), trained()]), result=numbers),
    Call("tqdm_or_not", lambda: dict(progress=False), result=lambda bar: bar.disable),
    Call("restore", lambda: dict(records=deepcopy(_records())), result=numbers),
    Call("windows", lambda: dict(corpus=calls.corpus(), domain="alpha", split="valid", context=8, tokens=40)),
    Call(
        "losses",
        lambda: dict(trained=trained(), corpus=calls.corpus(), split="valid", tokens=64, device="cpu", targets=["alpha", "delta"]),
    ),
]


def _hash(*parts):
    from mixlab.train import counter_hash

    return counter_hash(*parts)
