"Rows of mixlab.online."
import functools

import numpy as np

import calls
from calls import Call
from mixlab.online import ODM, Aioli, DoGE, DoReMi, Fixed, SkillIt, skills_graph, train_online

SETTINGS = {k: v for k, v in calls.TINY.items() if k != "progress"}
MIXTURE = {"alpha": 0.2, "bravo": 0.3, "cargo": 0.5}
SIGNAL = {"alpha": 0.1, "bravo": -0.2, "cargo": 0.4}


@functools.cache
def run():
    return train_online(calls.corpus(), ODM(), steps=3, progress=False, **SETTINGS)


def short_run(**arguments):
    "The settings of the model are `configuration`'s, whose row is page 12's."
    return train_online(**arguments, **({} if arguments.get("budget") else {"steps": 3}), **SETTINGS)


def short_graph(**arguments):
    return skills_graph(**arguments, **SETTINGS)


def numbers_of(found):
    return [found.trajectory, found.curve, found.weights]


def made(rule):
    "A rule's parameters after its construction."
    def call(**parameters):
        return vars(rule(**parameters))
    return call


def asked(rule, argument):
    "What a new rule answers."
    def call(weights, **signal):
        return rule()(weights, signal[argument])
    return call


def skill_it():
    return SkillIt(np.array([[0.4, 0.1], [0.2, 0.3], [0.1, 0.1]]))


A = np.array([[3.0, 1.0, 0.0], [0.5, 2.0, -1.0]])
LOSS = {"alpha": 2.0, "bravo": 3.0, "cargo": 1.0}

ROWS = [
    Call("NEEDS", why="a table of names"),
    Call("OnlineRun", why="what `train_online` returns"),
    Call("Interrupted", why="an exception that `train_online` raises"),
    Call("exponentiated", lambda: dict(weights=dict(MIXTURE), exponent=dict(SIGNAL)), mixtures=("weights",)),
    Call("Fixed", lambda: dict(), call=made(Fixed)),
    Call("Fixed.__call__", lambda: dict(weights=[0.2, 0.3, 0.5], signal=None), call=asked(Fixed, "signal"), fixed=("signal",)),  # not read
    Call("DoReMi", lambda: dict(eta=1.0, c=1e-3), call=made(DoReMi)),
    Call("DoReMi.__call__", lambda: dict(weights=dict(MIXTURE), excess=dict(SIGNAL)), mixtures=("weights",), call=asked(DoReMi, "excess")),
    Call("DoGE", lambda: dict(mu=0.05), call=made(DoGE)),
    Call("DoGE.__call__", lambda: dict(weights=dict(MIXTURE), alignment=dict(SIGNAL)), mixtures=("weights",), call=asked(DoGE, "alignment")),
    Call("ODM", lambda: dict(keep=0.9, t=0, reward=None), call=made(ODM)),
    Call("ODM.__call__", lambda: dict(weights=dict(MIXTURE), loss=dict(LOSS)), mixtures=("weights",), call=asked(ODM, "loss")),
    Call("Aioli", lambda: dict(eta=1.0, ema=0.1, A=None), call=made(Aioli)),
    Call("Aioli.__call__", lambda: dict(weights=[0.2, 0.3, 0.5], A=A), call=asked(Aioli, "A")),
    Call("SkillIt", lambda: dict(graph=np.eye(3), eta=0.2, window=3, paid=0, history=None), call=made(SkillIt)),
    Call(
        "SkillIt.__call__", lambda: dict(weights=[0.2, 0.3, 0.5], losses=[2.0, 3.0]), call=asked(skill_it, "losses")
    ),
    Call(
        "deal",
        lambda: dict(corpus=calls.corpus(), domains=["alpha", "bravo"], cards=[0, 3], seed=0, context=16, split="train"),
    ),
    Call("probing_mixtures", lambda: dict(K=3, sharp=0.75)),
    Call(
        "train_online",
        lambda: dict(
            corpus=calls.corpus(), update=DoGE(), scale="tiny", seed=0, target={"alpha": 0.75, "delta": 0.25},
            mixture=dict(MIXTURE), budget=None, reference=None, every=4, probe=1, score=32, each=1, trouble="stop",
            stop=1, resume=None, checkpoint=None, progress=False,
        ),
        mixtures=("mixture",),
        targets=("target",),
        call=short_run,
        result=numbers_of,
        fixed=("scale", "budget"),  # another scale is a long run, and so is one that a large budget pays for
    ),
    Call(
        "skills_graph",
        lambda: dict(corpus=calls.corpus(), target={"alpha": 0.5, "delta": 0.5}, steps=2, scale="tiny", seed=0, score=16, progress=False),
        targets=("target",),
        call=short_graph,
        fixed=("scale", "steps"),  # page 12's; many steps are a long run
    ),
    Call("show_path", lambda: dict(run=run(), ax=None), result=lambda ax: len(ax.collections)),
    Call("show_at", lambda: dict(run=run(), share=0.5, ax=None), result=lambda ax: len(ax.patches)),
]
