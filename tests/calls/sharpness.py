"Rows of mixlab.sharpness."
import functools

import numpy as np
import pandas as pd
import torch

import calls
from calls import Call
from mixlab.proxy import Proxy, init
from mixlab.sharpness import critical_lr, measure, midtrain

MODEL = Proxy(vocab=8, width=4, depth=1, heads=1, hidden=4)
GENERAL = {"alpha": 0.5, "bravo": 0.3, "cargo": 0.2}
SPECIAL = {"alpha": 0.1, "bravo": 0.1, "cargo": 0.8}
QUICK = dict(width=16, heads=1, hidden=16, depth=1, context=16, batch=2)


def one_model():
    return init(MODEL, [0], torch.float64)


def two_directions():
    return {k: torch.cat([v, -2 * v + 0.1]) for k, v in one_model().items()}


def text(*shape):
    return torch.randint(0, 8, shape, generator=torch.Generator().manual_seed(0))


def parabola(eta):
    return eta * eta - eta


def double(v):
    return {k: 2 * t for k, t in v.items()}


@functools.cache
def pretrained():
    from mixlab.train import train

    return train(calls.corpus(), [0.5, 0.3, 0.2], steps=3, keep_optimizer=True, progress=False, **QUICK)


def study():
    r = np.linspace(0, 1, 5)
    parts = []
    for domain, change in (("general", 0.5 - r), ("special", r - 0.7)):
        rows = {"seed": 0, "lr": 0.1, "ratio": r, "domain": domain, "change": change, "status": "ok"}
        parts.append(pd.DataFrame(rows | {"eta_sgd": 1 + change, "slope_sgd": change}))
    return pd.concat(parts, ignore_index=True)


def numbers(answer):
    return {k: v.flatten(1).numpy() for k, v in answer.items()}


def nothing(answer):
    return None


def without_clocks(table):
    return table.drop(columns=["measuring", "training"])


def batches_of(**arguments):
    from mixlab.sharpness import text_batches

    return [b.numpy() for b in text_batches(**arguments)]


def losses_along(**arguments):
    from mixlab.sharpness import along

    return along(**arguments)(np.array([0.0, 0.1]))


def products(**arguments):
    from mixlab.sharpness import hessian_product

    return numbers(hessian_product(**arguments)(one_model()))


ROWS = [
    Call("UPDATES", why="names of the kinds of updates"),
    Call("Critical", why="a record, made by critical_lr"),
    Call("critical_lr", lambda: dict(f=parabola, start=0.3, rtol=0.01, doublings=20), result=vars),
    Call("critical_lr_stack", lambda: dict(f=parabola, start=0.3, span=4, points=4), result=vars),
    Call(
        "text_batches",
        lambda: dict(corpus=calls.corpus(), W=pd.DataFrame([GENERAL, SPECIAL]), rows=2, context=16, split="valid", seed=1, repeats=2),
        mixtures=("W",),
        call=batches_of,
        fixed=("corpus",),  # a Corpus has its own rows
    ),
    Call("gradients", lambda: dict(params=one_model(), tokens=text(2, 3, 5), model=MODEL, dtype=torch.float64), result=numbers),
    Call("mix", lambda: dict(g=two_directions(), W=[[0.5, 0.5], [1.0, -1.0]]), result=numbers),
    Call("dot", lambda: dict(a=two_directions(), b=two_directions())),
    Call("update", lambda: dict(start=pretrained(), g={k: v.double() for k, v in pretrained().params.items()}, kind="adamw"), result=numbers),
    Call(
        "along",
        lambda: dict(params=one_model(), u=two_directions(), tokens=text(3, 5), model=MODEL, dtype=torch.float64, stack=1),
        call=losses_along,
    ),
    Call(
        "show_along",
        lambda: dict(etas=[0.1, 1.0], losses={"a": [1.0, 2.0]}, base={"a": 1.5}, found={"a": critical_lr(parabola, 0.3)}, ax=None, chosen=0.5),
        result=nothing,
    ),
    Call(
        "hessian_product",
        lambda: dict(params=one_model(), tokens=text(2, 5), model=MODEL, weights=[[0.5, 0.5]]),
        call=products,
    ),
    Call("top_eigenvalue", lambda: dict(product=double, like=two_directions(), steps=3, seed=0)),
    Call("trace", lambda: dict(product=double, like=two_directions(), probes=3, seed=0)),
    Call("gram_window", lambda: dict(M=[[1.0, -1.0], [-1.0, 5.0]])),
    Call(
        "relative",
        lambda: dict(params=one_model(), u=two_directions(), texts={"a": text(2, 5)}, model=MODEL, start=0.1, rtol=0.1),
    ),
    Call(
        "measure",
        lambda: dict(
            corpus=calls.corpus(), start=pretrained(), general=GENERAL, special=SPECIAL, ratios=[0.0, 1.0], updates=("sgd",), repeats=1, rows=2, seed=0
        ),
        mixtures=("general", "special"),
        fixed=("corpus", "rows", "repeats"),  # a thousand of them take their time; refusals are in test_sharpness.py
    ),
    Call(
        "midtrain",
        lambda: dict(
            corpus=calls.corpus(), general=GENERAL, special=SPECIAL, ratios=[0.0, 1.0], seeds=(1,), lrs=(1e-3,), pretrained=0.9,
            pretraining=2, steps=2, updates=("sgd",), repeats=1, rows=2, tokens=64, scale="tiny", store=None, progress=False, **QUICK,
        ),
        mixtures=("general", "special"),
        result=without_clocks,
        # settings of `train`, which has rows for them; and counts that take their time: refusals are in test_sharpness.py
        fixed=("corpus", *QUICK, "pretraining", "steps", "rows", "repeats"),
        missing=("lrs",),  # a rate that diverges is recorded as diverged
    ),
    Call("sweet_spots", lambda: dict(table=study())),
    Call("show_midtrain", lambda: dict(table=study(), column="change", ax=None), result=nothing),
]
