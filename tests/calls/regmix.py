"Rows of mixlab.regmix."
import functools
import tempfile

import numpy as np
import pandas as pd

from calls import NAMES, Call
from mixlab import regmix
from mixlab.regmix import (
    GP, EffectiveDataLaw, LightGBM, MixingLaw, Residual, average, recommend, ridge, fit_laws,
)

ONE = {"alpha": 0.5, "bravo": 0.3, "cargo": 0.2}
SIZES = {"alpha": 50.0, "bravo": 20.0, "cargo": 30.0}
draw = np.random.default_rng(0)
W = pd.DataFrame(draw.dirichlet(np.ones(3), 24), columns=list(NAMES), index=[f"run{i}" for i in range(24)])
WORTH = {"alpha": [8, 2, 0.1], "delta": [0.3, 4, 1]}
LOSSES = pd.DataFrame({t: 2 + (W.to_numpy() ** 0.6 @ w) ** -0.3 + 0.005 * draw.normal(size=24) for t, w in WORTH.items()}, index=W.index)
Y = LOSSES["alpha"]
CLOUD = pd.DataFrame(draw.dirichlet(np.ones(3), 30), columns=list(NAMES))
WEIGHTS = {"alpha": 3.0, "delta": 1.0}


@functools.cache
def laws():
    return fit_laws(W, LOSSES)


@functools.cache
def advice():
    return recommend(W, LOSSES, n_boot=3, progress=False, natural=ONE, available=SIZES, tokens=20.0)


@functools.cache
def folder():
    "RegMix's ten files in small, each with twelve made-up runs."
    place = tempfile.mkdtemp(prefix="mixlab-regmix-")
    for i, files in enumerate(regmix._released.values()):
        rng = np.random.default_rng(i)
        index = pd.RangeIndex(1, 13, name="index")
        mixtures = pd.DataFrame(rng.dirichlet(np.ones(17), 12).round(3), index=index, columns=list(regmix._pile))
        losses = pd.DataFrame(rng.uniform(3, 6, (12, 13)), index=index, columns=list(regmix._targets))
        mixtures.to_csv(f"{place}/{files[0]}")
        losses.to_csv(f"{place}/{files[1]}")
    return place


def fitted(make):
    "How to call an estimator: made with the options, fitted, and asked for the mixtures of CLOUD."

    def call(X, y, **options):
        return make(**options).fit(X, y).predict(CLOUD)

    return call


def asked(method):
    "How to call a method of a fitted law."

    def call(X):
        return getattr(EffectiveDataLaw().fit(W, Y), method)(X)

    return call


def mixture_and_tables(rec):
    return [rec.mixture, rec.table, rec.gain]


def predicted(laws):
    "What laws say of CLOUD, whichever order their columns have."
    answer = {}
    for target, law in laws.items():
        answer[target] = law.predict(CLOUD[list(law.feature_names_in_)])
    return answer


def nothing(answer):
    return None


few = dict(n_boot=1, level=0.9, wide=0.25, seed=0, progress=False)

ROWS = [
    Call("load_released", lambda: dict(folder=folder(), renormalise=True, check=False)),
    Call("load_1b", lambda: {}),
    Call("ridge", lambda: dict(alphas=[0.1, 1.0], cv=3), call=lambda **options: ridge(**options), result=nothing),
    Call("own_share", lambda: dict(column="alpha"), result=nothing),
    Call(
        "LightGBM",
        lambda: dict(X=W, y=Y, n_estimators=20, learning_rate=0.1, num_leaves=4, min_child_samples=5),
        call=fitted(LightGBM),
    ),
    Call("MixingLaw", lambda: dict(X=W, y=Y, penalty=0.01, max_nfev=300), call=fitted(MixingLaw)),
    Call(
        "EffectiveDataLaw",
        lambda: dict(X=W, y=Y, own="alpha", noise=0.15, prior=None, warm_start=False, max_nfev=300),
        call=fitted(EffectiveDataLaw),
    ),
    Call("EffectiveDataLaw.predict", lambda: dict(X=CLOUD), call=asked("predict")),
    Call("EffectiveDataLaw.gradient", lambda: dict(X=CLOUD), call=asked("gradient")),
    Call("GP", lambda: dict(X=W, y=Y, eps=0.01, ard=False, max_iter=5), call=fitted(GP)),
    Call("Residual", lambda: dict(X=W, y=Y, base=MixingLaw(), correction=MixingLaw()), call=fitted(Residual)),
    Call("average", lambda: dict(own="alpha"), result=nothing),
    Call(
        "fit_laws", lambda: dict(W=W, losses=LOSSES, rounds=1), tables=("W", "losses"), result=predicted, tolerance=1e-4
    ),
    Call(
        "simulate",
        lambda: dict(models=laws(), candidates=SIZES, n=200, top=5, weights=WEIGHTS, caps={"alpha": 0.8, "bravo": 0.9, "cargo": 1.0},
                     seed=0, progress=False),
        amounts=("candidates", "caps"),
        targets=("weights",),
    ),
    Call("simulate", lambda: dict(models=laws()["alpha"], candidates=CLOUD, top=5, progress=False), mixtures=("candidates",)),
    Call(
        "optimise",
        lambda: dict(models=laws(), start=ONE, caps={"alpha": 0.4, "bravo": 0.9, "cargo": 1.0}, weights=WEIGHTS, seed=0),
        mixtures=("start",),
        amounts=("caps",),
        targets=("weights",),
        tolerance=1e-6,
    ),
    Call(
        "recommend",
        lambda: dict(W=W, losses=LOSSES, target=WEIGHTS, natural=ONE, available=SIZES, tokens=20.0, max_epochs=1.5, **few),
        mixtures=("natural",),
        amounts=("available",),
        targets=("target",),
        tables=("W", "losses"),
        result=lambda rec: rec.mixture,  # the draws of another order are other draws
        tolerance=1e-4,
        fixed=("n_boot",),  # see the last row of recommend
    ),
    Call(
        "recommend",
        lambda: dict(W=W.reset_index(drop=True), losses=Y.to_numpy(), names=list(NAMES), search="optimise", model=None, corpus=None, **few),
        mixtures=("W",),
        result=lambda rec: rec.mixture,
        tolerance=1e-4,
        fixed=("n_boot",),
    ),
    Call(  # without bootstraps there are no intervals; a thousand of them take their time
        "recommend",
        lambda: dict(W=W, losses=Y, n_boot=0, progress=False),
        result=lambda rec: rec.mixture,
        tolerance=1e-4,
        fixed=("W", "losses", "progress"),
    ),
    Call("Recommendation", why="made by recommend"),
    Call("show_recommendation", lambda: dict(rec=advice(), ax=None), result=nothing),
]
