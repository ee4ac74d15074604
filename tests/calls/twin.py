"Rows of mixlab.twin."
import functools
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import calls
from calls import Call
from mixlab import twin
from mixlab.train import configuration, train
from mixlab.twin import Decks, Mover, Quadratic, Restricted, Softmax, Text, Twins, agreement, load, repeated, save, tandem

SETTINGS = {k: v for k, v in calls.TINY.items() if k != "progress"} | {"steps": 6}
QUICK = dict(K=2, E=1, rest=0.0, progress=False)


@functools.cache
def run():
    "A run of six steps and two mixture steps."
    return tandem(calls.corpus(), "alpha", **QUICK, **SETTINGS)


@functools.cache
def start():
    return train(calls.corpus(), np.full(3, 1 / 3), progress=False, **SETTINGS)


@functools.cache
def file():
    path = Path(tempfile.mkdtemp(prefix="mixlab-calls-")) / "run"
    save(run(), path)
    return path


def short_tandem(**arguments):
    "The settings of the model are `configuration`'s, whose row is page 12's."
    return tandem(**arguments, **SETTINGS)


def small():
    return Quadratic(P=2, K=3, d=4)


def twins():
    problem = small()
    return Twins(problem.params, problem.optimizer)


def gradient_descent(params):
    return torch.optim.SGD(params.values(), lr=0.1)


def towards_first(alpha, delta):
    return alpha


def numbers_of(found):
    return [found.trajectory, found.losses, found.mixture]


def settings():
    return configuration(calls.corpus(), **SETTINGS)


def text(corpus, target, config, split, rows, device, seed, start):
    "The rows that its first steps read and their losses."
    problem = Text(corpus, target, config, split, rows, device, seed, start)
    made = Twins(problem.params, problem.optimizer)
    with torch.no_grad():
        return [problem.train(made.u, np.full(3, 1 / 3)), problem.target(made.w), problem.domains(made.pair)]


def decks(corpus, names, split, seed, context):
    return Decks(corpus, names, split, seed, context).deal([0, 1, 0])


def deal(domains):
    return Decks(calls.corpus(), ("alpha", "bravo"), "train", 0, 16).deal(domains)


def decks_load(dealt):
    stacks = Decks(calls.corpus(), ("alpha", "bravo"), "train", 0, 16)
    stacks.load(dealt)
    return stacks.deal([0, 1])


def solve(alpha):
    return small().solve(alpha)


def solve_softmax(alpha):
    return Softmax(P=1, K=2, batch=4).solve(alpha)


def again(n):
    return small().again(n).best


def quadratic(**options):
    return Quadratic(**options).best


def softmax(**options):
    return Softmax(**options).best


def move(alpha, delta):
    return Mover("exponentiated")(alpha, delta)


def restricted(corpus, train, valid):
    return Restricted(corpus, train, valid).sizes


def tokens(domain, split):
    return Restricted(calls.corpus(), {"alpha": 9}).tokens(domain, split)


def saved(run, path):
    save(run, path)


def two_axes():
    return list(plt.subplots(1, 2)[1])


ALPHA = np.full((2, 3), 1 / 3)

ROWS = [
    Call("RATES", why="a table of numbers"),
    Call("Trouble", why="an exception that `tandem` raises"),
    Call("Interrupted", why="an exception that `tandem` raises"),
    Call("Tandem", why="what `tandem` returns"),
    Call("Quadratic", lambda: dict(P=2, K=3, d=4, kind="inside", seed=0, noise=0.1, same=True, lr=0.3), call=quadratic),
    Call("Quadratic.again", lambda: dict(n=2), call=again),
    Call("Quadratic.solve", lambda: dict(alpha=ALPHA), call=solve),
    Call("Softmax", lambda: dict(P=1, K=2, kind="inside", seed=0, batch=4, same=True, lr=0.7), call=softmax),
    Call("Softmax.solve", lambda: dict(alpha=np.full((1, 2), 0.5)), call=solve_softmax),
    Call("Twins", lambda: dict(params=small().params, optimizer=gradient_descent)),
    Call("probe", lambda: dict(problem=small(), twins=twins(), alpha=ALPHA, K=1, gamma=10.0)),
    Call("solo", lambda: dict(problem=small(), twins=twins(), alpha=ALPHA, E=1)),
    Call("hyper_gradient", lambda: dict(losses=np.array([[1.0, 2.0], [1.5, 1.0]]), gamma=4.0)),
    Call("project", lambda: dict(x=np.array([0.5, 0.9, -0.1]), floor=0.05)),
    Call("Mover", lambda: dict(rule="projected", rate=0.1, floor=0.01, memory=0.9, square=0.0, moves=0)),
    Call("Mover.__call__", lambda: dict(alpha=np.array([0.2, 0.3, 0.5]), delta=np.array([1.0, 0.0, -1.0])), call=move),
    Call(
        "episode",
        lambda: dict(problem=small(), twins=twins(), alpha=ALPHA, K=1, E=1, gamma=10.0, mover=towards_first, sync=True),
        result=lambda answer: answer[0],
    ),
    Call("search", lambda: dict(problem=small(), episodes=1, K=1, E=1, gamma=10.0, rule="projected", rate=0.1, sync=True)),
    Call(
        "Decks",
        lambda: dict(corpus=calls.corpus(), names=["alpha", "bravo"], split="train", seed=0, context=16),
        call=decks,
    ),
    Call("Decks.deal", lambda: dict(domains=[0, 1, 0]), call=deal),
    Call("Decks.load", lambda: dict(dealt=[1, 2]), call=decks_load),
    Call(
        "Text",
        lambda: dict(
            corpus=calls.corpus(), target={"alpha": 0.75, "delta": 0.25}, config=settings(), split="valid", rows=2,
            device="cpu", seed=1, start=None,
        ),
        targets=("target",),
        call=text,
    ),
    Call(
        "tandem",
        lambda: dict(
            corpus=calls.corpus(), target={"alpha": 0.75, "delta": 0.25}, scale="tiny", seed=0, start=None,
            mixture={"alpha": 0.2, "bravo": 0.3, "cargo": 0.5}, K=2, E=1, gamma=1.0, rule="projected", rate=0.02,
            floor=0.005, sync=True, split="valid", rows=2, rest=0.0, tail=0.5, trouble="stop", stop=3, resume=None,
            checkpoint=None, every=20, device="cpu", progress=False,
        ),
        mixtures=("mixture",),
        targets=("target",),
        call=short_tandem,
        result=numbers_of,
        fixed=("scale",),  # page 12's; another scale is a long run
    ),
    Call("save", lambda: dict(run=run(), path=file().with_name("again")), call=saved),
    Call("load", lambda: dict(path=file()), result=numbers_of),
    Call("Restricted", lambda: dict(corpus=calls.corpus(), train={"alpha": 99}, valid={"bravo": 99}), call=restricted),
    Call("Restricted.tokens", lambda: dict(domain="alpha", split="train"), call=tokens),
    Call("show_trajectory", lambda: dict(run=run(), ax=None), result=lambda ax: len(ax.lines)),
    Call("show_moment", lambda: dict(run=run(), move=0, ax=two_axes()), result=lambda axes: len(axes)),
    Call("repeated", lambda: dict(corpus=calls.corpus(), run=run(), K=1, repeats=2, rows=2)),
    Call("agreement", lambda: dict(deltas=np.array([[1.0, 2.0, 0.0], [1.0, 3.0, -1.0]]))),
]
