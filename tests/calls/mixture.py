"Rows of mixlab.mixture."
import numpy as np
import pandas as pd

from calls import Call
from mixlab.mixture import Mixture, SimplexSliders, show_mixtures

ONE = {"alpha": 0.5, "bravo": 0.3, "cargo": 0.2}
SIZES = {"alpha": 50.0, "bravo": 20.0, "cargo": 10.0}
CLOUD = pd.DataFrame(np.random.default_rng(0).dirichlet(np.ones(3), 12), columns=list(ONE), index=[f"run{i}" for i in range(12)])
NAMES = list(ONE)
LOSSES = pd.DataFrame({"alpha": np.arange(12.0), "delta": np.arange(12.0) ** 2}, index=CLOUD.index)


def sorted_runs(answer):
    return [part.sort_index(axis=0).sort_index(axis=1) for part in answer]


def nothing(answer):
    return None


ROWS = [
    Call("as_mixtures", lambda: dict(mixtures=CLOUD, names=NAMES), mixtures=("mixtures",)),
    Call("as_mixture", lambda: dict(mixture=ONE, names=NAMES), mixtures=("mixture",)),
    Call("names_of", lambda: dict(mixtures=ONE), fixed=("mixtures",)),  # any object has an answer
    Call("as_amounts", lambda: dict(amounts=SIZES, names=NAMES), amounts=("amounts",)),
    Call("as_targets", lambda: dict(target={"alpha": 1.0, "delta": 3.0}, names=["alpha", "bravo", "delta"]), targets=("target",)),
    Call("as_blend", lambda: dict(target={"alpha": 1.0, "delta": 3.0}, names=["alpha", "bravo", "delta"]), targets=("target",)),
    Call("as_runs", lambda: dict(mixtures=CLOUD, losses=LOSSES), tables=("mixtures", "losses"), result=sorted_runs, missing=("losses",)),
    Call("Mixture", lambda: dict(weights=ONE, names=NAMES), mixtures=("weights",)),
    Call("Mixture.to_dict", lambda: {}, call=lambda: Mixture(ONE).to_dict()),
    Call("effective_domains", lambda: dict(mixtures=CLOUD)),  # any names will do
    Call("show_mixtures", lambda: dict(mixtures={"one": ONE, "other": ONE}, ax=None), result=nothing),
    Call("uniform", lambda: dict(source=NAMES)),
    Call("natural", lambda: dict(source=SIZES)),
    Call("temperature", lambda: dict(source=SIZES, tau=2.0)),
    Call("epochs", lambda: dict(mixture=ONE, corpus=SIZES, tokens=100.0), mixtures=("mixture",)),
    Call("caps", lambda: dict(corpus=SIZES, tokens=100.0, epochs=4.0)),
    Call("unimax", lambda: dict(corpus=SIZES, tokens=100.0, epochs=4.0)),
    Call("pile", lambda: dict(name="regmix")),
    Call("PILE", why="a table of published numbers"),
    Call("PILE_MIXTURES", why="names of its columns"),
    Call("TOLERANCE", why="a constant"),
    Call("show_ternary", lambda: dict(mixtures=CLOUD, names=NAMES, ax=None), result=nothing),
    Call(
        "dirichlet",
        lambda: dict(
            prior=ONE, n=8, concentration=(0.1, 5.0), temperature=2.0, minimum=2e-4, maximum={"alpha": 1.0, "bravo": 0.9, "cargo": 0.8}, seed=0
        ),
        amounts=("maximum",),
    ),
    Call("representative", lambda: dict(mixtures=CLOUD, n=4)),
    Call("rescale", lambda: dict(weights=[0.5, 0.3, 0.2], j=0, share=0.6, locked=[2])),
    Call(
        "SimplexSliders",
        lambda: dict(start=Mixture(ONE), show=show_mixtures, presets={}),
        call=SimplexSliders,
        result=nothing,
        fixed=("start", "show", "presets"),  # made by `simplex_sliders`, which checks them
    ),
    Call("simplex_sliders", lambda: dict(start=ONE, show=show_mixtures, presets={"other": ONE}), result=nothing),
]
