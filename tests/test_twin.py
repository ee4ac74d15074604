"TANDEM: truth with its thresholds, mutants that must fail it, and every way in which a run can be stopped or spoiled."
import json
import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mixlab.twin as twin
from mixlab.corpus import from_folder
from mixlab.runs import Damaged
from mixlab.train import configuration, learning_rate, losses, train
from mixlab.twin import (Decks, Interrupted, Mover, Quadratic, Restricted, Softmax, Tandem, Text, Trouble, Twins, agreement, episode, hyper_gradient,
                         load, probe, project, repeated, save, search, show_moment, show_trajectory, solo, tandem)

SMALL = dict(width=32, hidden=32, depth=1, context=32, batch=2, steps=60, progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for name, w in {"a": "alpha beta gamma delta", "b": "eins zwei drei vier", "c": "0 1 2 3 4 5 + - =", "out": "alpha zwei 3 delta"}.items():
        (root / name).mkdir()
        for i in range(40): (root / name / f"{i}.txt").write_text(" ".join(rng.choice(w.split(), 60)) + "\n")
    return from_folder(root, heldout=("out",), cache=tmp_path_factory.mktemp("cache"), splits=(.2, .1))

@pytest.fixture(scope="module")
def whole(corpus): return tandem(corpus, "a", **SMALL)

def same(a, b):
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(x, b.tensors[k]) for k, x in a.tensors.items()) and a.state == b.state and \
           all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("at", "trajectory", "losses", "distance", "curve"))


# ---- truth -----------------------------------------------------------------------------------------------------------
def miss(problem, episodes=80, **how):
    trajectory = search(problem, episodes, **how)
    return np.abs(trajectory[-episodes // 2:].mean(0) - problem.best).sum(-1).mean()

@pytest.mark.parametrize("problem, how, most", [
    (Quadratic, dict(K=20), .03), (Quadratic, dict(K=20, rule="exponentiated"), .03), (lambda: Quadratic(kind="boundary"), dict(K=20), .02),
    (Quadratic, dict(K=100, episodes=60), .005), (lambda: Softmax(P=4), dict(K=20, episodes=60), .03), (lambda: Softmax(P=4, kind="boundary"), dict(K=20, episodes=60), .03)])
def test_finds_the_known_optimum(problem, how, most): assert miss(problem(), gamma=100., **how) <= most

NOISY = dict(K=5, E=5, gamma=100., episodes=150)

def test_finds_it_through_noise(): assert miss(Quadratic(noise=.5), **NOISY) < .08

@pytest.mark.parametrize("mutant", ["sign", "penalty", "synchronisation", "batches"])
def test_a_wrong_implementation_fails(monkeypatch, mutant):
    if mutant == "sign": monkeypatch.setattr(twin, "hyper_gradient", lambda l, g: -hyper_gradient(l, g))
    if mutant == "penalty": monkeypatch.setattr(twin, "hyper_gradient", lambda l, g: g * l[1])
    if mutant == "synchronisation": monkeypatch.setattr(Twins, "synchronise", lambda self: None)
    assert miss(Quadratic(noise=.5, same=mutant != "batches"), **NOISY) > .2

@pytest.mark.parametrize("small, large", [(dict(gamma=1.), dict(gamma=100.)), (dict(K=2), dict(K=20))])
def test_error_falls_with_gamma_and_K(small, large):
    base = dict(K=20, gamma=100.)
    assert miss(Quadratic(), **base | large) < .3 * miss(Quadratic(), **base | small)

@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_projection(x, share):
    floor = .99 * share / len(x)
    p = project(x, floor)
    assert abs(p.sum() - 1) < 1e-9 and p.min() >= floor - 1e-12 and np.allclose(project(p, floor), p)
    assert (np.diff(p[np.argsort(x, kind="stable")]) > -1e-12).all()      # the order stays

@pytest.mark.parametrize("rule", ["projected", "exponentiated"])
def test_a_mixture_step_goes_against_the_hyper_gradient(rule):
    alpha = Mover(rule, floor=.01)(np.full(4, .25), np.array([-1., 0, 0, 3.]))
    assert alpha[0] > .25 > alpha[3] and abs(alpha.sum() - 1) < 1e-12


# ---- twins -----------------------------------------------------------------------------------------------------------
def test_synchronised_twins_are_equal_and_apart():
    twins = Twins({"w": torch.ones(1, 3)}, lambda p: torch.optim.AdamW(p.values(), lr=.1))
    for p, opt in ((twins.u["w"], twins.opt_u), (twins.w["w"], twins.opt_w)):
        for k in range(2 if p is twins.u["w"] else 1): p.grad = torch.arange(3.)[None] + k; opt.step()
    assert twins.distance > 0
    twins.synchronise()
    u, w = (opt.state[t["w"]] for opt, t in ((twins.opt_u, twins.u), (twins.opt_w, twins.w)))
    assert twins.distance == 0 and all(torch.equal(u[k], w[k]) for k in u) and float(w["step"]) == 2
    twins.u["w"].grad = torch.ones(1, 3); twins.opt_u.step()
    assert twins.distance > 0 and not torch.equal(u["exp_avg"], w["exp_avg"]) and float(w["step"]) == 2

def test_one_batch_for_both_twins_and_the_additional_text_for_one(corpus, monkeypatch):
    seen, real = [], twin.token_losses
    monkeypatch.setattr(twin, "token_losses", lambda p, x, m, y: seen.append((len(p["embed"]), x.clone())) or real(p, x, m, y))
    tandem(corpus, "b", K=2, E=1, rest=0., **SMALL | dict(steps=3))
    assert [(n, tuple(x.shape)) for n, x in seen] == [(2, (1, 2, 32)), (1, (1, 2, 32))] * 2 + [(2, (1, 6, 32)), (1, (1, 2, 32))]
    text = {s: corpus.tokens("b", s).tobytes() for s in ("train", "valid")}
    for _, x in (seen[1], seen[3]):
        for row in x[0].numpy().astype(np.uint8): assert row.tobytes() in text["valid"] and row.tobytes() not in text["train"]

def test_a_mixture_that_rests_gives_the_model_of_train(corpus):
    w = np.array([.2, .3, .5])
    run, plain = tandem(corpus, "a", mixture=w, rate=0., floor=0., **SMALL), train(corpus, w, **SMALL)
    assert np.abs(run.curve - plain.curve[0]).max() < 1e-4 and np.array_equal(run.sampled, plain.sampled[0])
    assert np.abs(losses(run.model, corpus) - losses(plain, corpus)).max() < 1e-4 and run.model.status == ["ok"]

def test_moves_towards_the_target_and_away_when_it_is_another(corpus):
    a, b = (tandem(corpus, d, **SMALL | dict(steps=150)).mixture for d in "ab")
    assert a["a"] > b["a"] + .1 and b["b"] > a["b"] + .1

def test_start_is_where_it_begins(corpus):
    base = train(corpus, [1, 0, 0], keep_optimizer=True, **SMALL)
    with pytest.warns(UserWarning, match="six digits"): run = tandem(corpus, "out", start=base, schedule="constant", lr=1e-9, trouble="continue", **SMALL)
    assert all(torch.allclose(run.model.params[k], x, atol=1e-6) for k, x in base.params.items()) and run.model.optimizer["step"] == 120

def test_passes_are_counted(corpus):
    run = tandem(corpus, "a", K=4, E=2, rows=4, rest=0., **SMALL)
    assert abs(run.passes - 10 * (4 * 3 + 2 + 2 * 3 * 4 / 2 / 3)) < 1e-6 and run.tokens == round(run.passes * 2 * 32)

def test_repeated_probes_differ_and_leave_the_run_alone(corpus, whole):
    before = {k: x.clone() for k, x in whole.tensors.items()}
    d = repeated(corpus, whole, 2, 3)
    assert d.shape == (3, 3) and np.ptp(d, 0).min() > 0 and -1 <= agreement(d) <= 1
    assert all(torch.equal(x, before[k]) for k, x in whole.tensors.items())


# ---- stopped, resumed ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", [1, 23, 47])
def test_stop_and_resume(corpus, whole, tmp_path, stop):
    half = tandem(corpus, "a", stop=stop, checkpoint=tmp_path / "run", **SMALL)
    assert stop <= half.step < stop + 10 and same(half, load(tmp_path / "run"))
    for before in (half, tmp_path / "run"): assert same(tandem(corpus, "a", resume=before, **SMALL), whole)

@pytest.mark.parametrize("call", [2, 30, 61])
def test_interrupted_in_the_middle_of_an_episode(corpus, whole, tmp_path, monkeypatch, call):
    real, calls = twin.token_losses, []
    def stopped(*args):
        calls.append(1)
        if len(calls) == call: raise KeyboardInterrupt
        return real(*args)
    monkeypatch.setattr(twin, "token_losses", stopped)
    with pytest.raises(Interrupted) as e: tandem(corpus, "a", checkpoint=tmp_path / "run", **SMALL)
    monkeypatch.setattr(twin, "token_losses", real)
    assert 0 <= e.value.result.step < 60 and isinstance(e.value, KeyboardInterrupt)
    for before in (e.value.result, tmp_path / "run"): assert same(tandem(corpus, "a", resume=before, **SMALL), whole)

def test_resume_without_synchronisation(corpus):
    how = SMALL | dict(sync=False, K=3, E=2)
    assert same(tandem(corpus, "a", resume=tandem(corpus, "a", stop=20, **how), **how), tandem(corpus, "a", **how))

@pytest.mark.parametrize("changed", [dict(K=4), dict(gamma=2.), dict(lr=1e-3), dict(split="train"), dict(seed=1)])
def test_resume_under_other_settings_is_refused(corpus, whole, changed):
    with pytest.raises(ValueError, match=f"resume: {next(iter(changed))} was"): tandem(corpus, "a", resume=whole, **SMALL | changed)

def test_a_damaged_checkpoint_is_refused(corpus, whole, tmp_path):
    save(whole, tmp_path / "run")
    raw = bytearray((tmp_path / "run").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "run").write_bytes(raw)
    with pytest.raises(Damaged): load(tmp_path / "run")


# ---- gone wrong ------------------------------------------------------------------------------------------------------
@pytest.fixture
def poisoned(monkeypatch):
    "From training step 30 on, until the learning rate has been halved, losses are NaN."
    real = Text.train
    monkeypatch.setattr(Text, "train", lambda self, p, alpha: real(self, p, alpha) * (float("nan") if self.step > 30 and self.slower == 1 else 1))

def test_nan_stops_with_what_was_learned(corpus, poisoned, tmp_path):
    with pytest.raises(Trouble, match="lr=.* too large") as e: tandem(corpus, "a", checkpoint=tmp_path / "run", **SMALL)
    assert 0 < e.value.result.step <= 30 and all(x.isfinite().all() for x in e.value.result.tensors.values()) and same(load(tmp_path / "run"), e.value.result)

def test_nan_goes_on_if_asked(corpus, poisoned):
    with pytest.warns(UserWarning, match="too large"): run = tandem(corpus, "a", trouble="continue", **SMALL)
    assert run.step == 60 and len(run.notes) == 1 and run.state["slower"] == .5 and np.isfinite(run.trajectory).all() and len(run.curve) == 60

def test_nan_for_ever_gives_up(corpus, monkeypatch):
    real = Text.train
    monkeypatch.setattr(Text, "train", lambda self, p, alpha: real(self, p, alpha) * float("nan"))
    with warnings.catch_warnings(), pytest.raises(Trouble):
        warnings.simplefilter("ignore")
        tandem(corpus, "a", trouble="continue", **SMALL)

def test_collapse_is_named(corpus):
    how = SMALL | dict(rate=.5, K=5, E=0)
    with pytest.raises(Trouble, match="collapsed to '[abc]'") as e: tandem(corpus, "a", **how)
    assert 0 < e.value.result.step <= 60 and e.value.result.final.weights.max() > .98
    with pytest.warns(UserWarning, match="collapsed"): run = tandem(corpus, "a", trouble="continue", **how)
    assert run.step == 60 and run.notes

def test_gamma_beyond_rounding_is_named(corpus):
    with pytest.raises(Trouble, match="gamma=1e.09 is too large"): tandem(corpus, "a", gamma=1e9, **SMALL)

def test_a_domain_smaller_than_a_batch(corpus):
    few = Restricted(corpus, train={"b": 40})
    with pytest.raises(ValueError, match="domain 'b' has 40 training tokens, fewer than a batch of 64"): tandem(few, "a", **SMALL)
    with pytest.warns(UserWarning, match="'b'"): assert tandem(few, "a", trouble="continue", **SMALL).step == 60
    with pytest.raises(ValueError, match="domain 'b' has 20 training tokens, fewer than a context"): tandem(Restricted(corpus, train={"b": 20}), "a", trouble="continue", **SMALL)

def test_additional_data_missing(corpus):
    none = Restricted(corpus, valid={"b": 9})
    for target in ("b", {"a": .5, "b": .5}):
        with pytest.raises(ValueError, match="target 'b' has 9 tokens in split 'valid'"): tandem(none, target, **SMALL)
    with pytest.warns(UserWarning, match="'b'"): run = tandem(none, {"a": .5, "b": .5}, trouble="continue", **SMALL)
    assert run.settings["target"] == {"a": 1.} and run.notes
    with pytest.raises(ValueError, match="'b'"): tandem(none, "b", trouble="continue", **SMALL)

@pytest.mark.parametrize("bad, named", [
    (dict(target="d"), "'d'"), (dict(target={"a": -1.}), "'a' has -1"), (dict(target={"a": 0.}), "target"), (dict(K=0), "K is 0"), (dict(E=-1), "E is -1"), (dict(gamma=0.), "gamma"),
    (dict(gamma=float("nan")), "gamma"), (dict(rule="newton"), "rule"), (dict(floor=.4), "floor"), (dict(rows=3), "rows"), (dict(tail=0.), "tail"), (dict(rest=1.), "rest"),
    (dict(trouble="ignore"), "trouble"), (dict(rate=-1.), "rate"), (dict(mixture={"a": .5, "b": .5}), "'c'")])
def test_refused_at_the_door(corpus, bad, named):
    with pytest.raises(ValueError, match=named): tandem(corpus, **{"target": "a"} | SMALL | bad)

def test_restricted_leaves_the_rest_alone(corpus):
    few = Restricted(corpus, train={"a": 100})
    assert few.sizes.tolist() == [100, *corpus.sizes[1:]] and few.hash != corpus.hash and len(few.tokens("a", "test")) == len(corpus.tokens("a", "test"))
    with pytest.raises(ValueError, match="'z'"): Restricted(corpus, train={"z": 5})


# ---- values by hand ------------------------------------------------------------------------------------------------------
class Marked:
    "Four domains (one held out) and three splits, each with tokens of its own, so that a row tells where it comes from."
    names, heldout, targets, vocab, eod, hash = ("a", "b", "c"), ("out",), ("a", "b", "c", "out"), 48, None, "0" * 64
    token_bytes = np.tile([1, 2, 1, 3], 12)
    def __init__(self):
        draw = np.random.default_rng(0)
        self.text = {}
        for i, domain in enumerate(self.targets):
            for j, split in enumerate(("train", "valid", "test")):
                self.text[domain, split] = (4 * (3 * i + j) + draw.integers(0, 4, 900 + 100 * i)).astype(np.uint8)
        self.sizes = np.array([len(self.text[d, "train"]) for d in self.names])
    def tokens(self, domain, split="train"): return self.text[domain, split]
    def read(self, rows):
        "(domain, split) of each row of tokens (B, T+1)."
        assert all(len({int(t) // 4 for t in row}) == 1 for row in rows)
        return [(self.targets[int(row[0]) // 12], ("train", "valid", "test")[int(row[0]) // 4 % 3]) for row in rows]

MARKED = Marked()
TINY = dict(width=16, heads=1, hidden=16, depth=1, context=16, batch=2, progress=False)

def quick(target="a", **how):
    return tandem(MARKED, target, **TINY | dict(steps=20, K=3, E=2, rest=0.) | how)

def test_hyper_gradient_is_gamma_times_reference_minus_proxy():
    assert np.allclose(hyper_gradient(np.array([[1., 2.], [1.25, 1.]]), 4.), [1., -4.])
    two = np.array([[[1., 2.], [0., 1.]], [[2., 2.], [1., 4.]]])                     # (2, P = 2, K = 2)
    assert np.allclose(hyper_gradient(two, [10., 100.]), [[10., 0.], [100., 300.]])
    with pytest.raises(ValueError, match="losses"): hyper_gradient(np.zeros((3, 2)), 1.)
    with pytest.raises(ValueError, match="gamma"): hyper_gradient(two, [1., 2., 3.])
    with pytest.raises(ValueError, match="losses"): hyper_gradient([[1., np.nan], [1., 1.]], 1.)

def test_project_by_hand_and_by_an_optimiser():
    from scipy.optimize import minimize
    assert np.allclose(project([.5, .9, -.1]), [.3, .7, 0.]) and np.allclose(project([.2, .8], .3), [.3, .7])
    assert np.allclose(project([5., 0., 0.], .1), [.8, .1, .1]) and np.allclose(project([3., 3.]), [.5, .5])
    assert np.allclose(project([[1e300, 0.], [-1e300, 0.]]), [[1., 0.], [0., 1.]]) and np.allclose(project([9., 1., 4., 2.], .25), .25)
    for x in np.random.default_rng(0).normal(size=(5, 4)):
        sums_to_one = {"type": "eq", "fun": lambda p: p.sum() - 1}
        best = minimize(lambda p: ((p - x) ** 2).sum(), np.full(4, .25), bounds=[(.05, 1)] * 4, constraints=sums_to_one, tol=1e-12)
        assert np.allclose(project(x, .05), best.x, atol=1e-5)

@pytest.mark.parametrize("floor", [.9, .51, -.1, np.nan])
def test_a_floor_that_cannot_be_is_refused(floor):
    with pytest.raises(ValueError, match="floor"): project([.2, .8], floor=floor)

def test_a_mover_by_hand():
    half, up = np.full(2, .5), np.array([1., -1.])
    assert np.allclose(Mover(rate=.1)(half, up), [.4, .6]) and np.allclose(Mover(rate=.1)(half, 100 * up + 7), [.4, .6])
    assert np.allclose(Mover()(half, up), [.48, .52])                                # the default rates
    w = np.exp([-.15, .15]) / 2
    assert np.allclose(Mover("exponentiated")(half, up), w / w.sum())
    assert np.allclose(Mover("exponentiated", rate=.4)(np.array([.2, .8]), up), np.array([.2 * np.exp(-.4), .8 * np.exp(.4)]) / (.2 * np.exp(-.4) + .8 * np.exp(.4)))

def test_a_mover_remembers_the_size_of_what_came():
    half, up = np.full(2, .5), np.array([1., -1.])
    m = Mover(rate=.01, memory=.5)
    m(half, 2 * up)                                                                  # mean square 4, seen once
    assert m.moves == 1 and np.allclose(m.square, 2.)
    new = m(half, up)                                                                # .5 · 2 + .5 · 1 = 1.5, over 1 − .25: 2
    assert m.moves == 2 and np.allclose(m.square, 1.5) and np.allclose(new, half - .01 * up / np.sqrt(2))
    calm = Mover(rate=.01, memory=.99)
    for _ in range(200): calm(half, 1e-6 * up)
    assert np.allclose(calm(half, up), half - .03 * up)                              # a leap is cut at three
    g = np.array([-2., 0., 2.])                                                      # mean square 8/3
    assert np.allclose(Mover(rate=.03)(np.full(3, 1 / 3), g + 1), 1 / 3 - .03 * g / np.sqrt(8 / 3))

def test_a_mover_keeps_the_floor_under_both_rules():
    for rule in ("projected", "exponentiated"):
        assert Mover(rule, rate=5., floor=.1)(np.full(3, 1 / 3), np.array([-1., 0, 1])).min() == pytest.approx(.1)

@pytest.mark.parametrize("bad", [dict(rule="newton"), dict(rate=-1.), dict(rate=np.nan), dict(floor=-.1), dict(floor=2.), dict(memory=1.), dict(memory=-.5),
                                 dict(square=-1.), dict(moves=-1), dict(moves=True)])
def test_a_mover_names_its_parameter(bad):
    with pytest.raises(ValueError, match=next(iter(bad))): Mover(**bad)
    assert Mover(moves=np.int64(3)).moves == 3

def descent(params): return torch.optim.SGD(params.values(), lr=.1)

class Line:
    "ℓ_m(w) = (w − c_m)²/2 with c = (0, 4); L_val(w) = (w − 10)²/2; one dimension, so that every step is sums by hand."
    uniform, step = np.full(2, .5), 0
    def __init__(self): self.params, self.optimizer, self.log = {"w": torch.tensor([[2.]], dtype=torch.float64)}, descent, []
    def train(self, params, alpha):
        self.step += 1
        self.log.append(("train", len(params["w"]), tuple(np.round(alpha, 12))))
        return (.5 * torch.as_tensor(alpha) * (params["w"] - torch.tensor([0., 4.])) ** 2).sum(-1)
    def target(self, params):
        self.log.append(("target", len(params["w"])))
        return .5 * (params["w"][:, 0] - 10) ** 2
    def domains(self, params):
        self.log.append(("domains", len(params["w"])))
        return (.5 * (params["w"] - torch.tensor([0., 4.])) ** 2)[:, None]
    def descend(self, params, opt): opt.step(); opt.zero_grad(set_to_none=True)

def test_a_probe_by_hand():
    line = Line()
    twins = Twins(line.params, line.optimizer)
    probe(line, twins, np.array([.25, .75]), 1, 2.)
    # L_train' at 2: .25·2 − .75·2 = −1; L_val' = −8, over γ = 2: −4
    assert float(twins.u["w"]) == pytest.approx(2.1) and float(twins.w["w"]) == pytest.approx(2.5)
    assert line.log == [("train", 2, (.25, .75)), ("target", 1)]
    probe(line, twins, np.array([.25, .75]), 2, 2.)
    u, w = 2.1, 2.5
    for _ in range(2): u, w = u - .1 * (u - 3), w - .1 * (w - 3 + (w - 10) / 2)      # Σ α c = 3
    assert float(twins.u["w"]) == pytest.approx(u) and float(twins.w["w"]) == pytest.approx(w)

def test_alone_only_the_proxy_moves():
    line = Line()
    twins = Twins(line.params, line.optimizer)
    solo(line, twins, np.array([.25, .75]), 2)
    assert float(twins.u["w"]) == pytest.approx(2 + .1 + .09) and float(twins.w["w"]) == 2 and line.log == [("train", 1, (.25, .75))] * 2
    solo(line, twins, np.array([.25, .75]), 0)
    assert len(line.log) == 2

def test_an_episode_by_hand():
    line, seen = Line(), []
    twins = Twins(line.params, line.optimizer)
    twins.w["w"].data += 5
    def mover(alpha, delta): seen.append(delta); return np.array([.1, .9])
    alpha, found, apart, at = episode(line, twins, np.array([.25, .75]), 1, 2, 2., mover)
    assert np.allclose(found[:, 0], [[2.1 ** 2 / 2, 1.9 ** 2 / 2], [2.5 ** 2 / 2, 1.5 ** 2 / 2]])       # u, then w; w had been set to u
    assert np.allclose(seen[0], 2 * (found[1, 0] - found[0, 0])) and apart == pytest.approx(.4 / 2.1) and at == 1 and alpha.tolist() == [.1, .9]
    assert line.log[-2:] == [("train", 1, (.1, .9))] * 2                             # on the new mixture
    twins = Twins(line.params, line.optimizer)
    twins.w["w"].data += 5
    loose = episode(line, twins, np.array([.25, .75]), 1, 0, 2., mover, sync=False)[1]
    assert not np.allclose(loose, found)

def test_an_episode_takes_the_mean_of_both_halves(monkeypatch):
    seen, line = [], Line()
    halves = torch.tensor([[[1., 1.], [3., 3.]], [[2., 1.], [3., 7.]]], dtype=torch.float64)
    line.domains = lambda params: halves
    episode(line, Twins(line.params, line.optimizer), np.full(2, .5), 1, 0, 1., lambda a, d: seen.append(d) or a)
    assert np.allclose(seen[0], [.5, 2.])

def test_losses_that_are_not_finite_move_nothing():
    line = Line()
    line.domains = lambda params: torch.full((2, 1, 2), np.nan)
    alpha, *_ = episode(line, Twins(line.params, line.optimizer), np.array([.25, .75]), 1, 0, 1., Mover())
    assert alpha.tolist() == [.25, .75]
    with pytest.raises(ValueError, match="not finite after episode 1"): search(line, 2, K=1)

def test_what_a_mover_gives_must_be_a_mixture():
    for wrong in (lambda a, d: a * 2, lambda a, d: a * np.nan, lambda a, d: a[:1] * 2, lambda a, d: "x"):
        line = Line()
        with pytest.raises(ValueError, match="mover"): episode(line, Twins(line.params, line.optimizer), np.full(2, .5), 1, 0, 1., wrong)

def test_a_search_begins_uniform_and_reads_every_option():
    q = Quadratic(P=2, K=3, d=4)
    base = dict(episodes=3, K=3, E=2, gamma=10.)
    first = search(q, **base)
    assert first.shape == (4, 2, 3) and np.allclose(first[0], 1 / 3)
    for other in (dict(K=4), dict(E=3), dict(gamma=1.), dict(rule="exponentiated"), dict(rate=.1), dict(sync=False)):
        assert not np.allclose(search(Quadratic(P=2, K=3, d=4), **base | other), first), other
    assert np.allclose(search(Quadratic(P=2, K=3, d=4), **base | dict(gamma=np.array([10., 10.]))), first)
    with pytest.raises(ValueError, match="gamma"): search(q, **base | dict(gamma=np.ones(3)))


# ---- problems whose answer is known ------------------------------------------------------------------------------------
def test_quadratic_losses_are_their_formulas():
    q = Quadratic(P=2, K=3, d=4, seed=3)
    w = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    e = w[:, :, None].numpy() - q.c.numpy()
    by_hand = .5 * np.einsum("npki,pkij,npkj->npk", e, q.A.numpy(), e)
    assert np.allclose(q.domains({"w": w})[:, 0], by_hand) and np.allclose(q.target({"w": w}), .5 * ((w - q.v) ** 2).sum(-1))
    alpha = np.array([[.2, .3, .5], [.6, .1, .3]])
    gap = (q.train({"w": w}, alpha) - torch.as_tensor((alpha * by_hand).sum(-1))).numpy()
    assert np.allclose(gap[0], gap[1]) and (gap < 0).all()                           # up to a constant of the problem
    eigen = np.linalg.eigvalsh(q.A.numpy())
    assert eigen.min() >= .5 - 1e-9 and eigen.max() <= 2 + 1e-9

@pytest.mark.parametrize("kind, slope", [("inside", 0.), ("boundary", 1.)])
def test_quadratic_is_best_where_it_says(kind, slope):
    q = Quadratic(P=3, K=3, d=5, kind=kind, seed=1)
    w, h, found = q.solve(q.best), 1e-5, []
    gradient = torch.einsum("pk,pkij,pkj->pi", torch.as_tensor(q.best), q.A, w[:, None] - q.c)
    assert gradient.abs().max() < 1e-9 and np.allclose(q.best.sum(1), 1)
    for k in range(3):                                                               # differences of L_val(w*(α)), α_k alone
        up, down = q.best.copy(), q.best.copy()
        up[:, k] += h; down[:, k] -= h
        def at(a):
            a = torch.as_tensor(a)
            H, b = torch.einsum("pk,pkij->pij", a, q.A), torch.einsum("pk,pkij,pkj->pi", a, q.A, q.c)
            return q.target({"w": torch.linalg.solve(H, b)[None]})[0]
        found.append(((at(up) - at(down)) / (2 * h)).numpy())
    assert np.allclose(found[:2], 0, atol=1e-6) and np.allclose(found[2], slope, atol=1e-6)
    assert (q.best[:, -1] == 0).all() == (kind == "boundary") and (q.target({"w": w[None]}) > .4).all()

def test_noise_is_the_same_for_both_twins_or_not():
    w = {"w": torch.ones(2, 2, 4, dtype=torch.float64)}
    for same in (True, False):
        a = Quadratic(P=2, K=3, d=4, noise=.5, same=same).train(w, np.full((2, 3), 1 / 3))
        assert torch.allclose(a[0], a[1]) == same
        i = Softmax(P=2, K=2, batch=4, same=same).train({"w": torch.ones(2, 2, 4, 3, dtype=torch.float64) * torch.arange(3.)}, np.full((2, 2), .5))
        assert torch.allclose(i[0], i[1]) == same
    drawn = Quadratic(P=1, K=2, d=3, noise=.5)
    zero = {"w": torch.eye(3, dtype=torch.float64)[:, None]}                          # three members, the unit vectors
    many = np.array([(drawn.train(zero, np.full((1, 2), .5)) - Quadratic(P=1, K=2, d=3).train(zero, np.full((1, 2), .5))).numpy() for _ in range(400)])
    assert many.std() == pytest.approx(.5, rel=.1) and abs(many.mean()) < .06

def test_problems_in_a_row_are_the_same_problems():
    q = Quadratic(P=2, K=3, d=4)
    two = q.again(3)
    assert np.array_equal(two.best, np.tile(q.best, (3, 1))) and two.uniform.shape == (6, 3) and torch.equal(two.A[2:4], q.A) and torch.equal(two.v[4:], q.v)
    assert two.params["w"].shape == (1, 6, 4) and q.params["w"].shape == (1, 2, 4)
    assert not np.array_equal(Quadratic(seed=1).best, Quadratic(seed=2).best)

def test_softmax_is_best_where_it_says():
    s = Softmax(P=2, K=3, seed=1)
    w = s.solve(s.best)
    leaf = w[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(s.train({"w": leaf}, s.best).sum(), leaf)
    assert slope.abs().max() < 1e-6
    assert torch.allclose(s.target({"w": w[None]})[0], -(s.pv * s.pv.log()).sum(-1).mean(-1), atol=1e-5)   # the entropy: no model does better
    x, y, weight = s.x[0, 0].numpy(), s.y[0, 0].numpy(), w[0].numpy()
    from scipy.special import log_softmax
    assert float(s.domains({"w": w[None]})[0, 0, 0, 0]) == pytest.approx(-log_softmax(x @ weight, 1)[np.arange(128), y].mean())
    losses_ = s.domains({"w": w[None]})[0, 0].numpy()
    assert np.allclose(s.train({"w": w[None]}, s.best)[0], (s.best * losses_).sum(1) + .05 * (w ** 2).sum((1, 2)).numpy())
    assert (Softmax(P=2, K=3, kind="boundary").best[:, -1] == 0).all() and (s.best > 0).all()

@pytest.mark.parametrize("problem, bad", [(Quadratic, dict(P=0)), (Quadratic, dict(K=True)), (Quadratic, dict(d=3)), (Quadratic, dict(d=10**9)), (Quadratic, dict(kind="edge")),
                                          (Quadratic, dict(noise=-1)), (Quadratic, dict(lr=0)), (Quadratic, dict(K=1, kind="boundary")), (Softmax, dict(P=10**9)), (Softmax, dict(batch=0)),
                                          (Softmax, dict(seed=-1)), (Softmax, dict(same=1)), (Softmax, dict(kind=None))])
def test_problems_name_their_parameter(problem, bad):
    with pytest.raises(ValueError, match=next(iter(bad))): problem(**bad)


# ---- which text ------------------------------------------------------------------------------------------------------------
def recorded(monkeypatch):
    "Every batch that passes through a model: (members, rows as (domain, split))."
    seen, real = [], twin.token_losses
    def token_losses(params, x, model, y):
        seen.append((len(params["embed"]), MARKED.read(x[0].numpy())))
        return real(params, x, model, y)
    monkeypatch.setattr(twin, "token_losses", token_losses)
    return seen

@pytest.mark.parametrize("split", ["valid", "test", "train"])
def test_each_batch_reads_its_own_split(monkeypatch, split):
    seen = recorded(monkeypatch)
    quick({"b": .5, "out": .5}, steps=5, rows=4, split=split)
    probes, look, alone = seen[:6], seen[6], seen[7:]
    assert [n for n, _ in seen] == [2, 1] * 3 + [2] + [1] * 2
    for _, rows in probes[0::2] + alone: assert all(where == "train" and domain in "abc" for domain, where in rows)
    for _, rows in probes[1::2]: assert all(where == split and domain in ("b", "out") for domain, where in rows)
    assert {d for _, rows in probes[1::2] for d, _ in rows} == {"b", "out"}
    assert look[1] == [("a", "train")] * 2 + [("b", "train")] * 2 + [("c", "train")] * 2 + [("a", "train")] * 2 + [("b", "train")] * 2 + [("c", "train")] * 2

def test_decks_deal_in_the_order_of_batches():
    from mixlab.train import batches
    one = SimpleNamespace(names=("b",), tokens=lambda d: MARKED.tokens("b", "valid"))
    rows = torch.cat([t[0] for t, _ in batches(one, np.ones((1, 1)), [7], 1, 16, 0, 70)])     # 62 windows: into the second round
    decks = Decks(MARKED, ("a", "b"), "valid", 7, 16)
    dealt = torch.cat([decks.deal([1, 0])[0, :1] for _ in range(70)])
    assert torch.equal(dealt, rows) and decks.dealt.tolist() == [70, 70]
    decks.load([3, 65])
    assert torch.equal(decks.deal([1])[0], rows[65:66]) and decks.dealt.tolist() == [3, 66]
    assert not torch.equal(Decks(MARKED, ("b",), "valid", 8, 16).deal([0])[0], rows[:1])

def test_text_counts_and_averages_by_hand():
    config = configuration(MARKED, steps=20, **{k: v for k, v in TINY.items() if k != "progress"} | {"batch": 4})
    text = Text(MARKED, {"out": 3., "a": 1.}, config, "valid", 4)
    assert np.allclose(text.blend, [[.25, .75]])
    twins, kept, real = Twins(text.params, text.optimizer), [], twin.token_losses
    def losses_(params, x, model, y): kept.append((real(params, x, model, y), y)); return kept[-1][0]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(twin, "token_losses", losses_)
        train_loss, target, looked = text.train(twins.pair, np.full(3, 1 / 3)), text.target(twins.w), text.domains(twins.pair)
    (first, y), (second, _), (third, _) = kept
    assert torch.allclose(train_loss, first.mean((1, 2))) and torch.allclose(target, second.mean((1, 2)))
    assert text.curve == [pytest.approx(float(first[0].sum()) / MARKED.token_bytes[y[0]].sum())] and text.step == 1
    assert text.passes == pytest.approx(2 + 1 + 2 * 12 / 4 / 3)                      # two members, one, and 12 rows of two, a third each
    by_row = third.detach().mean(2).double().view(2, 2, 3, 2).mean(3)
    assert looked.shape == (2, 2, 3) and torch.allclose(looked, by_row)

def test_the_schedule_of_train_sets_the_rate():
    config = configuration(MARKED, steps=20, **{k: v for k, v in TINY.items() if k != "progress"})
    text = Text(MARKED, "a", config, "valid", 2)
    twins = Twins(text.params, text.optimizer)
    for text.step, text.slower, want in ((1, 1., learning_rate(config, 0)), (13, .5, .5 * learning_rate(config, 12)), (25, 1., learning_rate(config, 19))):
        for p in twins.u.values(): p.grad = torch.ones_like(p)
        text.descend(twins.u, twins.opt_u)
        assert twins.opt_u.param_groups[0]["lr"] == pytest.approx(want) and want > 0

def test_the_seed_of_the_data_is_the_runs_or_another():
    config = configuration(MARKED, seed=5, **{k: v for k, v in TINY.items() if k != "progress"})
    def rows(**how): return Text(MARKED, "a", config, "valid", 2, **how).decks[0].deal([0])
    assert torch.equal(rows(), rows(seed=5)) and not torch.equal(rows(), rows(seed=6))
    own = Text(MARKED, "a", config, "train", 2)
    assert len({int(s[0]) for s in own.seeds}) == 3                                   # three decks, three seeds


# ---- a run -----------------------------------------------------------------------------------------------------------------
def test_when_the_mixture_moves():
    r = quick(rest=.5, steps=22)
    assert r.at.tolist() == [0, 14, 19] and r.step == 22                              # 11 alone (5, 5, 1), then 3 + 2, 3 + 2, and one step that no probe fits into
    assert len(r.trajectory) == 3 and r.losses.shape == (2, 2, 2, 3) and r.distance.shape == (2,) and len(r.curve) == 22
    assert r.passes == pytest.approx(22 + 2 * (3 * 2 + 2 * 6 / 2 / 3)) and r.tokens == round(r.passes * 32)

def test_what_a_run_reports():
    r = quick(steps=40, tail=.5)
    n = round(len(r.trajectory) * .5)
    assert np.allclose(r.mixture.weights, r.trajectory[-n:].mean(0)) and np.array_equal(r.final.weights, r.trajectory[-1]) and r.mixture.names == MARKED.names
    assert np.allclose(r.delta, r.settings["gamma"] * (r.losses[:, 1] - r.losses[:, 0]).mean(1)) and r.halves.shape == (8, 2, 3)
    assert np.allclose(r.halves[:, 1], r.losses[:, 1, 1] - r.losses[:, 0, 1])
    assert np.allclose(r.sampled, np.array(r.state["dealt"][0]) / 80) and np.array_equal(r.model.curve[0], r.curve) and r.model.optimizer["step"] == 40
    assert all(torch.equal(v, r.tensors[f"u/{k}/value"]) for k, v in r.model.params.items())
    assert "40 of 40 steps" in repr(r) and "8 mixture steps" in repr(r)
    one = Tandem(("a", "b"), dict(tail=.1), {}, [], {}, np.arange(3), np.array([[.5, .5], [.3, .7], [.2, .8]]), None, None, None, {})
    assert np.allclose(one.mixture.weights, [.2, .8])                                 # a tail of a tenth of three is one

@pytest.fixture(scope="module")
def plain(): return quick()

@pytest.mark.parametrize("how", [dict(K=4), dict(E=3), dict(gamma=2.), dict(rule="exponentiated"), dict(rate=.1), dict(floor=.3), dict(sync=False), dict(split="train"), dict(rows=4),
                                 dict(rest=.4), dict(seed=1), dict(lr=1e-3), dict(mixture={"a": .6, "b": .2, "c": .2}), dict(target={"a": 1., "out": 1.})], ids=str)
def test_every_option_changes_the_result(plain, how):
    r = quick(**how)
    assert r.trajectory.shape != plain.trajectory.shape or not np.array_equal(r.trajectory, plain.trajectory)
    if "floor" in how: assert r.trajectory.min() == pytest.approx(.3)
    if "mixture" in how: assert np.allclose(r.trajectory[0], [.6, .2, .2])

def test_the_tail_changes_what_is_recommended(plain):
    assert not np.allclose(quick(tail=.2).mixture.weights, plain.mixture.weights) and np.array_equal(quick(tail=.2).trajectory, plain.trajectory)

def test_defaults_are_those_of_the_page():
    s = tandem(MARKED, "a", steps=12, **TINY).settings
    assert (s["K"], s["E"], s["gamma"], s["rule"], s["rate"], s["floor"], s["sync"], s["split"], s["rows"], s["rest"], s["tail"]) == (5, 5, 1., "projected", None, .005, True, "valid", 2, .05, .5)
    assert twin.RATES == {"projected": .02, "exponentiated": .15}

def test_names_decide():
    want = quick(mixture={"a": .6, "b": .3, "c": .1}, target={"a": .75, "out": .25})
    import pandas as pd
    from mixlab.mixture import Mixture
    for m, t in ((pd.Series({"c": .1, "a": .6, "b": .3}), {"out": 1, "a": 3}), (Mixture({"b": .3, "c": .1, "a": .6}), pd.Series({"out": .25, "a": .75, "b": 0.}))):
        assert same(quick(mixture=m, target=t), want)
    assert same(quick(target=["out", "a"]), quick(target={"a": 2, "out": 2}))
    for bad in (dict(mixture={"a": .5, "z": .5}), dict(target=["z"]), dict(target={"a": 1, "z": 0})):
        with pytest.raises(ValueError, match="'z'"): quick(**bad)
    with pytest.raises(ValueError, match="target is None"): quick(target=None)

def test_whole_numbers_of_numpy_are_whole_numbers_and_booleans_are_not(plain):
    assert same(quick(K=np.int64(3), E=np.int32(2), rows=np.int64(2), every=np.int64(3)), plain)
    for name in ("K", "E", "rows", "every", "stop"):
        with pytest.raises(ValueError, match=f"{name} is True"): quick(**{name: True})

def test_the_two_warnings_have_their_thresholds():
    def run(gap, alpha, step=5):
        problem = SimpleNamespace(step=step, names=("a", "b", "c"), slower=1.)
        return SimpleNamespace(problem=problem, settings=dict(gamma=1., floor=.005), config=dict(steps=20, vocab=48, lr=.1), alpha=np.array(alpha)), np.array([[[2., 2.]], [[2., 2. + gap]]])
    fine, even = np.array([3.]), [.3, .3, .4]
    def kind(curve, gap, alpha, step=5):
        r, found = run(gap, alpha, step)
        answer = twin._wrong(r, curve, found)
        return answer and answer[1]
    assert kind(fine, 1e-4, even) is None and kind(fine, 1e-6, even) == "six digits" and kind(fine, 3e-6, even) is None and kind(fine, 1e-6, even, 18) is None
    assert kind(fine, 1e-4, [.005, .005, .99]) == "collapsed" and kind(fine, 1e-4, [.006, .006, .988]) is None
    limit = 1.05 * np.log(48) + .5
    assert kind(np.array([limit + .01]), 1e-4, even) == "learns" and kind(np.array([limit - .01]), 1e-4, even) is None
    assert kind(np.array([1., np.nan]), 1e-4, even) == "learns" and kind(fine, np.nan, even) == "learns"

def test_a_domain_left_out_leaves_weights_that_sum_to_one():
    few = Restricted(MARKED, valid={"b": 9})
    blend, missing = twin._blend(few, {"a": 3., "b": 4., "c": 1.}, "valid", 16, "continue")
    assert blend == {"a": .75, "c": .25} and "'b' has 9 tokens" in missing[0]
    assert twin._blend(few, "b", "train", 16, "stop") == ({"b": 1.}, [])
    assert twin._blend(Restricted(MARKED, valid={"b": 17}), "b", "valid", 16, "stop")[0] == {"b": 1.}
    with pytest.raises(ValueError, match="'b' has 16 tokens"): twin._blend(Restricted(MARKED, valid={"b": 16}), "b", "valid", 16, "stop")

def test_halved_rates_are_kept_by_a_checkpoint(monkeypatch, tmp_path):
    real = Text.train
    monkeypatch.setattr(Text, "train", lambda self, p, alpha: real(self, p, alpha) * (float("nan") if self.step > 10 and self.slower == 1 else 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = quick(trouble="continue")
        half = quick(trouble="continue", stop=15, checkpoint=tmp_path / "run")
        assert half.state["slower"] == .5 and same(quick(trouble="continue", resume=tmp_path / "run"), whole)


# ---- nothing is lost -----------------------------------------------------------------------------------------------------------
def test_the_folder_of_a_checkpoint_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    r = quick(checkpoint="~/new/deeper/run")
    assert same(load("~/new/deeper/run"), r) and [f.name for f in (tmp_path / "new/deeper").iterdir()] == ["run"]
    save(r, tmp_path / "other" / "run")
    assert same(load(tmp_path / "other/run"), r)

def test_a_checkpoint_that_cannot_be_is_refused_before_the_work(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(Text, "train", lambda *a: calls.append(1))
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "run"):
        with pytest.raises(OSError, match="checkpoint|[Nn]ot a directory|exists"): quick(checkpoint=path)
    assert not calls

def test_a_disk_that_fills_up_leaves_the_run_in_the_error(tmp_path, monkeypatch, plain):
    quick(stop=5, checkpoint=tmp_path / "run")
    good, real = (tmp_path / "run").read_bytes(), twin.replace_file
    def full(path, data):
        if path.name == "run": raise OSError(28, "no space left")
        real(path, data)
    monkeypatch.setattr(twin, "replace_file", full)
    with pytest.raises(OSError, match="no space") as e: quick(checkpoint=tmp_path / "run", every=2)
    assert e.value.result.step == 10 and (tmp_path / "run").read_bytes() == good
    with pytest.raises(OSError) as e: quick(checkpoint=tmp_path / "run")
    assert same(e.value.result, plain)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError): save(plain, tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == good and [f.name for f in tmp_path.iterdir()] == ["run"]

def test_any_error_on_the_way_carries_the_run(monkeypatch):
    real = Text.train
    def train_(self, p, alpha):
        if self.step == 12: raise ZeroDivisionError("somebody else's")
        return real(self, p, alpha)
    monkeypatch.setattr(Text, "train", train_)
    with pytest.raises(ZeroDivisionError) as e: quick()
    assert e.value.result.step == 10
    monkeypatch.undo()
    assert same(quick(resume=e.value.result), quick())

def test_checkpoints_come_every_so_many_episodes(tmp_path, monkeypatch):
    seen, real = [], twin.save
    monkeypatch.setattr(twin, "save", lambda run, path: seen.append(run.step) or real(run, path))
    quick(checkpoint=tmp_path / "run", every=2)
    assert seen == [10, 20, 20]

def test_what_is_saved_is_synced_and_whole(tmp_path, monkeypatch, plain):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd)) if os.path.exists("/proc/self/fd") else synced.extend(["", str(tmp_path)])
    save(plain, tmp_path / "run")
    assert len(synced) == 2 and synced[1] == str(tmp_path)                            # the file, then its name
    head, record = (tmp_path / "run").read_bytes().split(b"\n", 2)[:2]
    assert json.loads(record)["names"] == ["a", "b", "c"] and len(head) == 64
    (tmp_path / "other").write_bytes(twin.pack({"x": 1}))
    with pytest.raises(Damaged, match="holds no run of tandem"): load(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="path"): load(tmp_path / "nowhere")

@pytest.mark.parametrize("how, named", [(dict(resume=3), "resume"), (dict(start="x"), "start"), (dict(checkpoint=3), "checkpoint"), (dict(every=0), "every"), (dict(device="tpu"), "device"),
                                        (dict(progress="no"), "progress"), (dict(sync=1), "sync"), (dict(split="dev"), "split"), (dict(stop=-1), "stop"), (dict(K=10**9), "K"), (dict(rows=10**9), "rows")])
def test_every_argument_is_named(how, named):
    with pytest.raises(ValueError, match=named): quick(**how)

def test_start_is_one_member():
    stack = train(MARKED, np.full((2, 3), 1 / 3), steps=2, **TINY)
    with pytest.raises(ValueError, match="start"): quick(start=stack)
    assert quick(start=stack[0], steps=5).step == 5
    with pytest.raises(ValueError, match="start has the shape"): quick(start=stack[0], width=32)


# ---- afterwards ----------------------------------------------------------------------------------------------------------------
def test_agreement_by_hand():
    assert agreement([[11., 9.], [9., 11.]]) == pytest.approx(-1) and agreement([[1., 2., 6.], [11., 12., 16.], [2., 4., 12.]]) == pytest.approx(1)
    assert agreement([[1., -1., 0.], [1., 1., -2.], [1., -1., 0.]]) == pytest.approx(1 / 3)     # cosines 0, 1, 0
    with pytest.raises(ValueError, match=r"deltas\[1\]"): agreement([[1., 2.], [3., 3.]])
    with pytest.raises(ValueError, match="deltas"): agreement([[1., 2.]])

def test_repeated_probes_are_what_an_episode_would_see():
    r = quick(steps=40, stop=10)
    d = repeated(MARKED, r, 2, 3, rows=4)
    problem = Text(MARKED, {"a": 1.}, r.config, "valid", 4, seed=1001, start=r.model)
    problem.step, twins = 10, Twins(problem.params, problem.optimizer)
    probe(problem, twins, r.trajectory[-1], 2, 1.)
    with torch.no_grad(): by_hand = hyper_gradient(problem.domains(twins.pair).numpy(), 1.).mean(0)
    assert d.shape == (3, 3) and np.allclose(d[1], by_hand, atol=1e-5)
    assert np.array_equal(repeated(MARKED, r, 2, 1), repeated(MARKED, r, 2, 1, rows=2)) and not np.allclose(repeated(MARKED, r, 3, 1, rows=4), d[:1])
    for bad in (dict(K=0), dict(repeats=0), dict(rows=3)):
        with pytest.raises(ValueError, match=next(iter(bad))): repeated(MARKED, r, **{"K": 1} | bad)

def test_restricted_keeps_the_first_tokens():
    few = Restricted(MARKED, train={"b": np.int64(100)}, valid={"out": 50})
    assert np.array_equal(few.tokens("b"), MARKED.tokens("b")[:100]) and np.array_equal(few.tokens("out", "valid"), MARKED.tokens("out", "valid")[:50])
    assert len(few.tokens("b", "valid")) == 1000 and len(few.tokens("out", "test")) == 1200 and np.allclose(few.natural, np.array([900, 100, 1100]) / 2100)
    assert few.hash != Restricted(MARKED, train={"b": 101}, valid={"out": 50}).hash
    for bad in (dict(train={"b": -1}), dict(train={"b": True}), dict(valid=5), dict(valid={"b": 2.5})):
        with pytest.raises(ValueError, match=next(iter(bad))): Restricted(MARKED, **bad)

def test_figures_show_the_run(plain):
    import matplotlib
    matplotlib.use("agg")
    ax = show_trajectory(plain)
    assert [line.get_label() for line in ax.lines] == ["a", "b", "c"] and np.allclose(ax.lines[1].get_ydata(), plain.trajectory[:, 1])
    left, right = show_moment(plain, 1)
    assert np.allclose([b.get_width() for b in left.patches], plain.trajectory[2]) and f"step {plain.at[2]}" in left.get_title()
    assert np.allclose([b.get_width() for b in right.patches], plain.delta[:2].mean(0))
    for bad in (dict(move=4), dict(move=-5), dict(ax=3)):
        with pytest.raises(ValueError, match=next(iter(bad))): show_moment(plain, **bad)
