"Rows of mixlab.stats."
import numpy as np
import pandas as pd

from calls import Call
from mixlab.stats import Estimate, fit_law, friedman

RUNS = [f"run{i}" for i in range(12)]
DRAW = np.random.default_rng(0).normal(size=(4, 12))
X = pd.Series(DRAW[0], index=RUNS)
Y = pd.Series(DRAW[0] + DRAW[1], index=RUNS)
ANCHORS = pd.Series(list("aaabbbcccddd"), index=RUNS)
SCORES = pd.DataFrame(DRAW, columns=RUNS).T.set_axis(["one", "two", "three", "four"], axis=1)
SIZES = pd.Series([0.4, 0.7, 1.0, 2.0, 4.0, 7.0], index=RUNS[:6])
MEASURED = pd.Series([0.512, 0.548, 0.561, 0.577, 0.570, 0.559], index=RUNS[:6])


def three_terms(N):
    return [1, np.log(N), N**-0.5]


def nothing(answer):
    return None


def numbers_of(law):
    return [law.coefficients, law.residual, law.condition]


ROWS = [
    Call("Estimate", why="a record, made by the functions of this page"),
    Call("Law", why="made by fit_law"),
    Call(
        "Law.__call__",
        lambda: dict(N=np.array([1.0, 3.0])),
        call=lambda N: fit_law(SIZES, MEASURED, three_terms)(N),
    ),
    Call("Ranking", why="made by friedman"),
    Call(
        "correlation",
        lambda: dict(x=X, y=Y, kind="spearman", level=0.9, resamples=99, seed=0),
        tables=("y",),
    ),
    Call(
        "bootstrap",
        lambda: dict(statistic=np.mean, data=DRAW[0], level=0.9, method="BCa", resamples=99, seed=0),
    ),
    Call(
        "beside_baselines",
        lambda: dict(x=X, y=Y, baselines={"other": DRAW[2]}, kind="spearman", level=0.9, resamples=99, seed=0),
        tables=("y",),
    ),
    Call("show_intervals", lambda: dict(estimates={"a": Estimate(1.0, 0.5, 1.5, 9)}, ax=None, null=0.0), result=nothing),
    Call("interval_of_mean", lambda: dict(values=DRAW[0], level=0.9)),
    Call("noise_floor", lambda: dict(values=X, groups=ANCHORS, level=0.9), tables=("values", "groups")),
    Call(
        "paired_difference",
        lambda: dict(a=X, b=Y, level=0.9, resamples=99, seed=0),
        tables=("b",),
    ),
    Call(
        "power",
        lambda: dict(n=8, effect=0.5, noise=1.0, level=0.9, tests=2, correlation=0.5, distribution="t"),
    ),
    Call(
        "runs_needed",
        lambda: dict(effect=0.5, noise=1.0, chance=0.8, level=0.9, tests=2, correlation=0.5, distribution="t"),
    ),
    Call(
        "detectable_effect",
        lambda: dict(n=8, noise=1.0, chance=0.8, level=0.9, tests=2, correlation=0.5, distribution="t"),
    ),
    Call("critical_difference", lambda: dict(k=5, n=12, level=0.9)),
    Call("friedman", lambda: dict(scores=SCORES, names=None, larger=True, level=0.9), result=lambda r: dict(zip(r.names, r.ranks))),
    Call("show_critical_difference", lambda: dict(ranking=friedman(SCORES), ax=None), result=nothing),
    Call("pareto", lambda: dict(F=DRAW.T, larger=True)),
    Call("fit_law", lambda: dict(N=SIZES, y=MEASURED, terms=three_terms, level=0.9), tables=("y",), result=numbers_of),
    Call(
        "sensitivity",
        lambda: dict(f=lambda a, b: a + 2 * b, ranges={"a": (0.0, 1.0), "b": (0.0, 1.0)}, n=16, level=0.9, seed=0),
    ),
]
