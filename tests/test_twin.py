"TANDEM: truth with its thresholds, mutants that must fail it, and every way in which a run can be stopped or spoiled."
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mixlab.twin as twin
from mixlab.corpus import from_folder
from mixlab.runs import Damaged
from mixlab.train import losses, train
from mixlab.twin import (Interrupted, Mover, Quadratic, Restricted, Softmax, Text, Trouble, Twins, agreement, hyper_gradient, load, project, repeated,
                         save, search, tandem)

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

def test_costs_what_its_passes_cost(corpus):
    how = SMALL | dict(width=64, hidden=256, depth=2, context=64, batch=4, steps=20)
    def seconds(f):
        begin = time.process_time(); out = f()
        return time.process_time() - begin, out
    ratios = []
    for _ in range(5):
        (plain, _), (t, run) = seconds(lambda: train(corpus, [.2, .3, .5], **how)), seconds(lambda: tandem(corpus, "a", rest=0., **how))
        ratios.append(t / plain / (run.passes / run.step))
    assert min(ratios) < 1.15, ratios


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
