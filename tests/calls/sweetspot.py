"Rows of mixlab.sweetspot."
import numpy as np
import pandas as pd

from calls import Call
from mixlab.sweetspot import dumb_bowls, score

RATIOS = pd.Series(np.linspace(0, 1, 12), index=[f"run{i}" for i in range(12)])
SCORES = -((RATIOS - 0.6) ** 2) + 0.01 * np.sin(np.arange(12) * 5)


def study():
    "A table of two domains at six ratios, as midtrain makes it."
    r = np.linspace(0, 1, 6)
    parts = []
    for domain, change, eta in (("general", (1 - r) ** 2, r + 0.1), ("special", r**2, 1.1 - r)):
        columns = dict(seed=0, lr=1e-3, ratio=r, domain=domain, change=change, status="ok", eta_adamw=eta, norm_adamw=2.0)
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def nothing(answer):
    return None


ROWS = [
    Call("general_sharpness", lambda: dict(r=[0.2, 0.6], lam=0.3, s0=1.0, power=2.5)),
    Call("special_sharpness", lambda: dict(r=[0.2, 0.6], lam=0.3, s0=1.0, power=2.0)),
    Call("combined_sharpness", lambda: dict(r=[0.2, 0.6], lam=0.3, s0=1.0, T=4.0, alpha=0.5, powers=(2.5, 2.0))),
    Call("retention", lambda: dict(r=[0.2, 0.6], G0=0.72, G_min=0.35, gamma_g=4.0, middle_g=0.4, late=0.015)),
    Call(
        "specialisation",
        lambda: dict(r=[0.2, 0.6], S_max=0.65, S_min=0.25, gamma_s=4.5, middle_s=0.55, early=0.12, rate=6.0),
    ),
    Call("score", lambda: dict(r=[0.2, 0.6], w_g=0.5, general={"G0": 0.7}, special={"rate": 5.0})),
    Call("best_ratio", lambda: dict(f=score, grid=41, steps=18)),
    Call("correspondence", lambda: dict(points=21, noise=0.01, seed=42, lam=0.3, s0=1.0, w_g=0.5)),
    Call("dumb_bowls", lambda: dict(r=[0.2, 0.6])),
    Call("alignment", lambda: dict(claim=0.6, tolerance=0.1, lam=0.3, s0=1.0, w_g=0.5)),
    Call("front", lambda: dict(r=[0.2, 0.4, 0.6], noise=0.01, seed=0)),
    Call("scale_law", lambda: dict(N=[1.0, 7.0], a=0.6, b=0.02, c=-0.1)),
    Call("robustness", lambda: dict(w_g=[0.3, 0.5, 0.7], spread=0.05, seed=0)),
    Call("weight_prior", lambda: dict(n=10, mean=0.5, sd=0.1, seed=0)),
    Call("summary", lambda: dict(r=[0.5, 0.6, 0.7])),
    Call("weight_sensitivity", lambda: dict(w_g=[0.3, 0.5], general={"G0": 0.7})),
    Call("implied_weight", lambda: dict(r=[0.4, 0.6], h=1e-5)),
    Call(
        "peak",
        lambda: dict(r=RATIOS, scores=SCORES, degree=4, level=0.95, draws=200, seed=0),
        tables=("scores",),
        result=lambda e: (e.value, e.low, e.high),
    ),
    Call(
        "peak_width",
        lambda: dict(seeds=3, noise=0.01, ratios=11, curve=score, degree=4, level=0.95, draws=200, seed=0),
        result=lambda e: (e.value, e.low, e.high),
    ),
    Call(
        "protocol",
        lambda: dict(effect=0.02, noise=0.015, ratios=11, chance=0.8, level=0.95, correlation=0.5, width=0.2, curve=score),
    ),
    Call("published", lambda: {}, result=nothing),
    Call("measured_correspondence", lambda: dict(table=study(), kind="adamw", w_g=0.5, baselines=dumb_bowls), tables=("table",)),
]
