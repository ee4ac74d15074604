"Online methods: what a page cannot show without losing its thread. Properties of the rules, exact resume after every kind of stop, tokens counted, bad input."
import copy, signal, subprocess, sys, warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mixlab.online as online
from mixlab.corpus import from_folder
from mixlab.online import (Aioli, DoGE, DoReMi, Fixed, Interrupted, ODM, SkillIt, deal, exponentiated, probing_mixtures, skills_graph,
                           train_online)
from mixlab.train import batches, train

SMALL = dict(width=16, heads=1, hidden=32, depth=1, context=32, progress=False)
GRAPH = np.array([[.4, .1], [.2, .3], [.1, .1]])
TARGET = {"a": .75, "out": .25}
RULES = {"fixed": Fixed(), "doremi": DoReMi(eta=.1), "doge": DoGE(), "odm": ODM(), "aioli": Aioli(), "skillit": SkillIt(GRAPH)}
ROUNDS = dict(target=TARGET, every=8, probe=2, score=96, **SMALL)
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    words = {"a": "alpha beta gamma delta", "b": "eins zwei drei vier fünf", "c": "0 1 2 3 4 5 + - =", "out": "alpha zwei 3 delta"}
    for name, w in words.items():
        (root / name).mkdir()
        for i in range(40): (root / name / f"{i}.txt").write_text(" ".join(rng.choice(w.split(), 60)) + "\n")
    return from_folder(root, heldout=("out",), cache=tmp_path_factory.mktemp("cache"))

class Cut:
    "A corpus of which some splits hold only so many tokens: {(domain, split): tokens}."
    def __init__(self, corpus, most):
        vars(self).update({a: getattr(corpus, a) for a in ("names", "heldout", "targets", "vocab", "eod", "token_bytes")})
        self.corpus, self.most, self.hash = corpus, most, corpus.hash
    def tokens(self, domain, split="train"): return self.corpus.tokens(domain, split)[:self.most.get((domain, split))]

def same(a, b):
    state = lambda r: {k: v for k, v in vars(r.update).items()}
    return (all(torch.equal(v, b.params[k]) for k, v in a.params.items()) and np.array_equal(a.trajectory, b.trajectory) and a.curve == b.curve
            and a.tokens == b.tokens and all(np.array_equal(v, state(b)[k]) for k, v in state(a).items()))


# ---- rules -----------------------------------------------------------------------------------------------------------
signals = st.integers(2, 8).flatmap(lambda K: st.tuples(st.lists(st.floats(.01, 1), min_size=K, max_size=K), st.lists(st.floats(-50, 50), min_size=K, max_size=K), st.randoms()))
def rules(K): return [Fixed(), DoReMi(), DoGE(), ODM(), Aioli(), SkillIt(np.eye(K))]
def ask(rule, w, x): return rule(w, np.diag(x) if isinstance(rule, Aioli) else abs(x) if isinstance(rule, ODM) else x)

@settings(max_examples=60, deadline=None)
@given(signals)
def test_rules_stay_on_the_simplex_and_know_no_order(drawn):
    w, x, random = np.array(drawn[0]) / sum(drawn[0]), np.array(drawn[1]), drawn[2]
    order = list(range(len(w)))
    random.shuffle(order)
    for rule, again in zip(rules(len(w)), rules(len(w))):
        for _ in range(3): new = ask(rule, w, x); moved = ask(again, w[order], x[order])
        assert (new >= 0).all() and np.isclose(new.sum(), 1), rule
        assert np.allclose(new[order], moved), rule

@settings(max_examples=60, deadline=None)
@given(signals)
def test_more_of_a_signal_is_more_of_a_domain(drawn):
    w, x = np.array(drawn[0]) / sum(drawn[0]), np.array(drawn[1])
    more = x + np.eye(len(x))[0]
    for rule, again in zip((DoReMi(), DoGE(), SkillIt(np.eye(len(w)))), (DoReMi(), DoGE(), SkillIt(np.eye(len(w))))):
        assert again(w, more)[0] >= rule(w, x)[0] - 1e-12

def test_exponentiated_is_the_best_trade_between_gain_and_distance():
    rng = np.random.default_rng(0)
    w, x = rng.dirichlet(np.ones(5)), rng.normal(size=5)
    value = lambda p: p @ x - (p * np.log(p / w)).sum()
    assert all(value(exponentiated(w, x)) >= value(p) for p in rng.dirichlet(np.ones(5), 2000))
    assert np.isclose(value(exponentiated(w, x)), np.log(w @ np.exp(x)))            # the optimum's closed form

def test_doremi_settles_where_smoothing_and_gain_balance():
    "α = (1 − c) α e^λ / (α e^λ + 1 − α) + c/2, a quadratic in α."
    c, g, w = .1, np.exp(.3), np.array([.5, .5])
    for _ in range(500): w = DoReMi(eta=1, c=c)(w, np.array([.3, 0]))
    roots = np.roots([g - 1, 1 - (1 - c) * g - c / 2 * (g - 1), -c / 2])
    assert np.isclose(w[0], roots[(roots > 0) & (roots < 1)][0])

def test_odm_counts_a_rare_reward_by_its_probability():
    rule = ODM(keep=0)
    for _ in range(200): rule(np.array([.8, .2]), np.array([1., 1.]))
    assert np.allclose(rule.reward, [1.25, 5]) and rule.t == 200

def test_aioli_measures_a_linear_law_exactly(corpus, monkeypatch):
    "With losses that fall by A p in each step, the signal is A times the steps of a trial, rows weighted as the target."
    A, fallen, seen = np.array([[3., 1., 0.], [.5, 2., -1.]]), np.zeros(2), []
    real = online._sampled
    def sampled(live, weights): fallen[:] += A @ weights; return real(live, weights)
    monkeypatch.setattr(online, "_sampled", sampled)
    monkeypatch.setattr(online, "_score", lambda live: 100 - fallen)
    def rule(weights, signal): seen.append(signal); return weights
    rule.needs = "probe"
    train_online(corpus, rule, steps=16, **ROUNDS)
    assert len(seen) == 2 and all(np.allclose(s, 2 * A * np.array([[.75], [.25]])) for s in seen)

def test_probing_mixtures_are_mixtures():
    for K in (1, 2, 7): assert np.allclose(probing_mixtures(K).sum(1), 1) and (probing_mixtures(K) >= 0).all()
    assert np.linalg.cond(probing_mixtures(7)) < 10

def test_skills_graph_knows_each_domain_helps_itself_most(corpus):
    graph, paid = skills_graph(corpus, steps=40, **SMALL)
    assert graph.shape == (3, 3) and (graph.argmax(0) == np.arange(3)).all()
    assert paid == 3 * (40 * 2 * 32 + 3 * 1024 / 3)


# ---- text ------------------------------------------------------------------------------------------------------------
def test_deal_is_the_order_of_batches_over_many_epochs(corpus):
    small = Cut(corpus, {("b", "train"): 200})                                        # 6 windows
    rows = torch.cat([t[0] for t, _ in batches(small, np.array([[0., 1, 0]]), [5], 2, 32, 0, 20)])
    assert torch.equal(rows, deal(small, ["b"] * 40, np.arange(40), 5, 32))
    assert not torch.equal(rows, deal(small, ["b"] * 40, np.arange(40), 6, 32))

def test_deal_names_the_domain_that_is_too_short(corpus):
    with pytest.raises(ValueError, match="'b' has 20 tokens in split 'valid'"): deal(Cut(corpus, {("b", "valid"): 20}), ["a", "b"], np.arange(2), 0, 32, "valid")

def test_a_fixed_mixture_is_plain_training(corpus):
    w = np.array([.2, .3, .5])
    run, plain = train_online(corpus, Fixed(), mixture=w, steps=30, seed=3, **SMALL), train(corpus, w, steps=30, seed=3, **SMALL)
    assert all(torch.equal(v, run.params[k]) for k, v in plain.params.items()) and np.array_equal(run.curve, plain.curve[0])
    assert np.allclose(run.dealt / run.dealt.sum(), plain.sampled[0])


# ---- stopping --------------------------------------------------------------------------------------------------------
@every_rule
def test_a_run_is_the_same_however_often_it_stops(corpus, rule):
    before = copy.deepcopy(rule)
    whole = train_online(corpus, rule, steps=20, **ROUNDS)
    part = None
    for stop in (0, 1, 3, 8, 13, 20): part = train_online(corpus, rule, steps=20, stop=stop, resume=part, **ROUNDS)
    assert same(whole, part)
    assert all(np.array_equal(v, vars(rule)[k]) for k, v in vars(before).items()), "the caller's rule must not move"

@every_rule
def test_a_run_goes_on_from_its_file(corpus, rule, tmp_path):
    whole = train_online(corpus, rule, steps=20, **ROUNDS)
    for stop in (5, 11, None): run = train_online(corpus, rule, steps=20, stop=stop, checkpoint=tmp_path / "run", **ROUNDS)
    assert same(whole, run)
    again = train_online(corpus, rule, steps=20, checkpoint=tmp_path / "run", **ROUNDS)
    assert same(whole, again) and again.step == 20 and [f.name for f in tmp_path.iterdir()] == ["run"]

KILLED = """
import os, signal, sys
import numpy as np
import mixlab.online as online
from mixlab.corpus import Corpus
class Mortal(online.ODM):
    def __call__(self, weights, loss):
        if self.t == 12 and "--die" in sys.argv: os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(weights, loss)
online._finish.__defaults__ = (0,)                                                    # a checkpoint after every step
run = online.train_online(Corpus(sys.argv[1]), Mortal(), steps=20, checkpoint=sys.argv[2], **eval(sys.argv[3]))
print(run.step)
"""

def test_killed_outright_it_loses_nothing(corpus, tmp_path):
    call = [sys.executable, "-c", KILLED, str(corpus.path), str(tmp_path / "run"), repr(SMALL)]
    assert subprocess.run([*call, "--die"]).returncode == -signal.SIGKILL
    assert len([*tmp_path.iterdir()]) == 1
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip() == "20"
    whole, left = train_online(corpus, ODM(), steps=20, **SMALL), online.unpack((tmp_path / "run").read_bytes())[1]
    assert all(np.array_equal(v.numpy(), left[f"params/{k}"]) for k, v in whole.params.items()) and np.array_equal(whole.trajectory, left["path"])

def test_ctrl_c_leaves_the_run_in_the_exception(corpus):
    def rule(weights, signal_):
        if len(calls) == 7: signal.raise_signal(signal.SIGINT)
        calls.append(1)
        return weights
    rule.needs, calls, handler = "sampled", [], signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="8 of 20 steps") as e: train_online(corpus, rule, steps=20, **SMALL)
    rest = train_online(corpus, rule, steps=20, resume=e.value.run, **SMALL)
    assert same(rest, train_online(corpus, rule, steps=20, **SMALL)) and signal.getsignal(signal.SIGINT) is handler

def test_another_runs_file_and_a_damaged_one_are_refused(corpus, tmp_path):
    file = tmp_path / "run"
    train_online(corpus, ODM(), steps=5, checkpoint=file, **SMALL)
    with pytest.raises(ValueError, match="'run' is of another run"): train_online(corpus, ODM(keep=.5), steps=5, checkpoint=file, **SMALL)
    with pytest.raises(ValueError, match="another run"): train_online(corpus, ODM(), steps=5, seed=1, checkpoint=file, **SMALL)
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="'run' is damaged"): train_online(corpus, ODM(), steps=5, checkpoint=file, **SMALL)

def test_resume_with_other_settings_is_refused(corpus):
    half = train_online(corpus, ODM(), steps=20, stop=5, **SMALL)
    for rule, how in ((ODM(), dict(steps=30)), (ODM(keep=.5), {}), (ODM(), dict(seed=1)), (ODM(), dict(mixture=[.2, .2, .6]))):
        with pytest.raises(ValueError, match="other settings"): train_online(corpus, rule, **{"steps": 20, **how}, resume=half, **SMALL)


# ---- tokens ----------------------------------------------------------------------------------------------------------
@every_rule
def test_tokens_are_those_that_passed_through_a_model(corpus, rule, monkeypatch):
    passed, real = {True: 0, False: 0}, online.token_losses
    def counted(params, x, model, y): passed[torch.is_grad_enabled()] += y.numel(); return real(params, x, model, y)
    monkeypatch.setattr(online, "token_losses", counted)
    run = train_online(corpus, rule, steps=20, **ROUNDS)
    assert (run.tokens["trained"], run.tokens["scored"]) == (passed[True], passed[False])

@pytest.mark.parametrize("budget", [8_000, 15_000])
@every_rule
def test_a_budget_is_kept(corpus, rule, budget):
    rule = copy.deepcopy(rule)
    if isinstance(rule, SkillIt): rule.paid = 3_000
    run = train_online(corpus, rule, budget=budget, **ROUNDS | {"every": 20})
    assert .97 * budget < run.cost < 1.03 * budget and run.step == run.config["steps"]

def test_a_reference_that_is_given_is_paid_for(corpus):
    reference = train(corpus, np.full(3, 1 / 3), steps=50, **SMALL)
    run = train_online(corpus, DoReMi(eta=.1), budget=8_000, reference=reference, **SMALL)
    assert run.tokens["before"] == 50 * 2 * 32 and .98 * 8_000 < run.cost <= 8_000
    with pytest.raises(ValueError, match="pays for no step"): train_online(corpus, DoReMi(), budget=3_000, reference=reference, **SMALL)
    with pytest.raises(ValueError, match="shape"): train_online(corpus, DoReMi(), steps=5, reference=reference, **SMALL | {"width": 32})


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule, how, named", [
    ("uniform", {}, "'uniform'"),
    (ODM(), dict(trouble="ignore"), "trouble is 'ignore'"),
    (DoGE(), dict(target="nowhere"), "no target 'nowhere'"),
    (DoGE(), dict(target={"a": -1}), "'a' has -1"),
    (Aioli(), dict(every=20), "raise `every`"),
    (SkillIt(np.ones((3, 2))), dict(target="a"), "graph has shape"),
    (Fixed(), dict(mixture=[.5, .5, .5]), "sums to 1.5"),
    (Fixed(), dict(mixture=[.5, -.5, 1]), "'b' has share -0.5"),
    (ODM(), dict(budget=10), "pays for no step")])
def test_the_door_names_what_is_wrong(corpus, rule, how, named):
    with pytest.raises(ValueError, match=named): train_online(corpus, rule, **{"steps": 3, **how, **SMALL})

def test_a_rule_that_needs_the_unknown_is_refused(corpus):
    def rule(weights, signal): return weights
    rule.needs = "horoscope"
    with pytest.raises(ValueError, match="'horoscope'"): train_online(corpus, rule, steps=3, **SMALL)

def test_less_than_a_batch_is_named(corpus):
    poor = Cut(corpus, {("b", "train"): 40})
    with pytest.raises(ValueError, match=r"batch of 64: 'b' \(40\)"): train_online(poor, ODM(), steps=3, **SMALL)
    with pytest.warns(UserWarning, match="'b'.*repeated"): assert train_online(poor, ODM(), steps=3, trouble="continue", **SMALL).step == 3
    assert train_online(poor, DoReMi(), steps=3, **SMALL).step == 3                   # it reads a row of each domain, and a row is there

def test_a_target_without_validation_text_is_named(corpus):
    poor = Cut(corpus, {("out", "valid"): 20})
    with pytest.raises(ValueError, match="'out' has 20 validation tokens"): train_online(poor, DoGE(), target=TARGET, steps=3, **SMALL)
    with pytest.warns(UserWarning, match="'out'.*left out"): run = train_online(poor, DoGE(), target=TARGET, steps=3, trouble="continue", **SMALL)
    assert run.plan["target"] == {"a": 1.}
    with pytest.raises(ValueError, match="'out'"): train_online(poor, DoGE(), target="out", steps=3, trouble="continue", **SMALL)


# ---- trouble ---------------------------------------------------------------------------------------------------------
def leaning(k, by):
    def rule(weights, signal): return exponentiated(weights, by * np.eye(3)[k])
    rule.needs = "sampled"
    return rule

def test_a_collapse_stops_and_can_be_continued(corpus):
    with pytest.warns(UserWarning, match="collapsed to 'c'"): run = train_online(corpus, leaning(2, 1.), steps=20, **SMALL)
    assert "collapsed to 'c'" in run.status and run.step < 20
    on = train_online(corpus, leaning(2, 1.), steps=20, resume=run, trouble="continue", **SMALL)
    assert on.step == 20 and on.status == "ok" and len(on.notes) == 1
    with pytest.warns(UserWarning): straight = train_online(corpus, leaning(2, 1.), steps=20, trouble="continue", **SMALL)
    assert same(on, straight)

@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.])
def test_a_rule_that_returns_no_mixture_is_not_followed(corpus, bad):
    def rule(weights, signal): return weights + np.array([0, bad, 0])
    with pytest.warns(UserWarning, match="'b'"): stopped = train_online(corpus, leave(rule), steps=9, **SMALL)
    with pytest.warns(UserWarning, match="'b'"): on = train_online(corpus, leave(rule), steps=9, trouble="continue", **SMALL)
    assert stopped.step == 1 and "'b'" in stopped.status
    assert on.step == 9 and np.allclose(on.trajectory, 1 / 3) and len(on.notes) == 1
    assert all(torch.equal(v, on.params[k]) for k, v in train(corpus, np.full(3, 1 / 3), steps=9, **SMALL).params.items())

def leave(rule): rule.needs = "sampled"; return rule

@pytest.mark.parametrize("shape", [(2,), (3, 1), ()])
def test_a_rule_that_returns_the_wrong_shape_is_told(corpus, shape):
    with pytest.warns(UserWarning, match="no mixture"): run = train_online(corpus, leave(lambda w, s: np.ones(shape) / 3), steps=3, **SMALL)
    assert run.status != "ok"

@every_rule
def test_nothing_is_learned_from_what_is_no_number(corpus, rule, monkeypatch):
    "The sixth step's loss is NaN: stopped there, parameters are those of five steps; continued, the step is left out."
    real, calls = online._learn, []
    def learn(live, loss):
        calls.append(1)
        if len(calls) == 6:
            for p in live.params.values(): p.grad.fill_(np.nan)
            loss = float("nan")
        return real(live, loss)
    five = train_online(corpus, rule, steps=20, stop=5, **ROUNDS)
    monkeypatch.setattr(online, "_learn", learn)
    with pytest.warns(UserWarning, match="step 5: the loss"): stopped = train_online(corpus, rule, steps=20, **ROUNDS)
    assert "not a number" in stopped.status and all(torch.equal(v, stopped.params[k]) for k, v in five.params.items())
    calls.clear()
    with pytest.warns(UserWarning): on = train_online(corpus, rule, steps=20, trouble="continue", **ROUNDS)
    assert on.step == 20 and on.status == "ok" and all(v.isfinite().all() for v in on.params.values())

def test_a_loss_above_that_of_guessing_is_divergence(corpus):
    with pytest.warns(UserWarning, match="above that of guessing"): run = train_online(corpus, Fixed(), steps=200, **SMALL | {"lr": 10.})
    assert "guessing" in run.status and run.step % 50 == 0


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

def quick(rule, **how): return train_online(MARKED, rule, **TINY | dict(steps=6, every=6, probe=1, score=48) | how)

def softmax(x): return np.exp(x) / np.exp(x).sum()

def test_exponentiated_by_hand():
    assert np.allclose(exponentiated([.2, .3, .5], np.log([5., 2., 1.])), np.array([1., .6, .5]) / 2.1)
    assert np.allclose(exponentiated([0., .5, .5], [9., 0., np.log(3)]), [0., .25, .75]) and np.allclose(exponentiated([.5, .5], [1e308, -1e308]), [1, 0])
    assert np.allclose(exponentiated({"y": .8, "x": .2}, {"x": np.log(2), "y": 0.}), [1 / 3, 2 / 3])       # by name, in the order of the exponent
    for bad, named in (((np.ones(2), [0., 0.]), "weights"), (([.5, .5], [0., np.nan]), "exponent"), (([.5, .5], [0., 0., 0.]), "exponent"), (({"x": 1.}, {"z": 1.}), "weights")):
        with pytest.raises(ValueError, match=named): exponentiated(*bad)

W3 = np.array([.2, .3, .5])

def test_doremi_by_hand():
    excess = np.array([.7, 0., .2])
    inner = W3 * np.exp(.5 * excess) / (W3 * np.exp(.5 * excess)).sum()
    assert np.allclose(DoReMi(eta=.5, c=.3)(W3, excess), .7 * inner + .1)
    assert (DoReMi().eta, DoReMi().c) == (1., 1e-3) and np.allclose(DoReMi(c=1)(W3, excess), 1 / 3)

def test_doge_by_hand():
    pull = np.array([.1, -.2, .05])
    assert np.allclose(DoGE(mu=.2)(W3, pull), W3 * np.exp(pull / .2) / (W3 * np.exp(pull / .2)).sum()) and DoGE().mu == .05

def test_odm_by_hand():
    rule = ODM(keep=.8)
    first = rule(W3, np.array([2., np.nan, 3.]))
    R = .2 * np.array([2 / .2, 0, 3 / .5])
    assert np.allclose(rule.reward, R) and rule.t == 1
    def eps(t): return min(1 / 3, np.sqrt(np.log(3) / (3 * t)))
    assert np.allclose(first, (1 - 3 * eps(1)) * softmax(eps(1) * R) + eps(1))       # ε_0 counts as ε_1
    rule = ODM(keep=.8, t=9, reward=R)
    second = rule(np.array([.5, .2, .3]), np.array([np.nan, 4., 1.]))
    R = np.array([R[0], .8 * R[1] + .2 * 4 / .2, .8 * R[2] + .2 * 1 / .3])
    assert np.allclose(rule.reward, R) and np.allclose(second, (1 - 3 * eps(10)) * softmax(eps(9) * R) + eps(10)) and ODM().keep == .9
    assert second.min() >= eps(10) and not np.allclose(second, 1 / 3)

def test_aioli_by_hand():
    rule = Aioli(eta=2., ema=.1)
    rule(W3, np.array([[1., 0., 0.], [0., 0., 0.]]))
    p = rule(W3, np.array([[0., 3., -1.], [1., 0., 0.]]))                             # + 1: 1 4 0, 2 1 1; over 9
    A = .9 * np.array([[1., 4., 0.], [2., 1., 1.]]) / 9 + .1 * np.array([[1., 0., 0.], [0., 0., 0.]])
    assert np.allclose(rule.A, A) and np.allclose(p, W3 * np.exp(2 * A.sum(0)) / (W3 * np.exp(2 * A.sum(0))).sum())
    assert (Aioli().eta, Aioli().ema) == (1., .1)
    kept = Aioli()
    kept(W3, np.array([[1., 2., 3.], [4., 5., 5.]]))                                  # nothing below 0, nothing shifted
    assert np.allclose(kept.A, np.array([[1., 2., 3.], [4., 5., 5.]]) / 20)
    still = Aioli()
    assert np.allclose(still(W3, np.zeros((2, 3))), W3)                               # nothing learned, nothing moved

def test_skill_it_by_hand():
    rule = SkillIt(GRAPH, eta=.5, window=2)
    for loss in ([9., 9.], [1., 2.], [3., 5.]): p = rule(W3, np.array(loss))
    assert np.allclose(p, softmax(.5 * GRAPH @ [4., 7.])) and np.allclose(rule.history, [[1, 2], [3, 5]])
    assert (SkillIt(GRAPH).eta, SkillIt(GRAPH).window, SkillIt(GRAPH).paid) == (.2, 3, 0)
    once = SkillIt(GRAPH)
    for loss in ([1., 0.], [2., 0.], [4., 0.], [8., 0.]): p = once(W3, np.array(loss))
    assert np.allclose(p, softmax(.2 * GRAPH[:, 0] * 14))

def test_a_fixed_mixture_stays():
    assert Fixed()(W3, None).tolist() == W3.tolist()

@pytest.mark.parametrize("rule, bad", [(DoReMi, dict(c=5)), (DoReMi, dict(c=-.1)), (DoReMi, dict(eta=np.nan)), (DoReMi, dict(eta=-1)), (DoGE, dict(mu=0)), (DoGE, dict(mu=-1)), (ODM, dict(keep=1.5)),
                                       (ODM, dict(keep=True)), (ODM, dict(t=-1)), (ODM, dict(reward="x")), (Aioli, dict(ema=2)), (Aioli, dict(eta=np.inf)), (SkillIt, dict(graph=[[np.nan]])),
                                       (SkillIt, dict(graph=GRAPH, window=0)), (SkillIt, dict(graph=GRAPH, eta=-1)), (SkillIt, dict(graph=GRAPH, paid=-1))])
def test_a_rule_names_its_parameter(rule, bad):
    with pytest.raises(ValueError, match=[*bad][-1]): rule(**bad)

@pytest.mark.parametrize("rule, signal, named", [(DoReMi(), [1., 2.], "excess"), (DoGE(), [np.nan, 1., 2.], "alignment"), (ODM(), [np.inf, 1., 2.], "loss"), (Aioli(), [[1., 2.]], "A"), (Aioli(), [1., 2., 3.], "A"),
                                                 (SkillIt(GRAPH), [1.], "losses"), (SkillIt(GRAPH), [1., np.inf], "losses")])
def test_a_rule_names_its_signal(rule, signal, named):
    with pytest.raises(ValueError, match=named): rule(W3, signal)
    with pytest.raises(ValueError, match="weights"): rule([.5, .6, .7], signal)

def test_a_drawn_domain_has_a_weight():
    with pytest.raises(ValueError, match="domain 0"): ODM()(np.array([0., .5, .5]), np.ones(3))

def test_probing_mixtures_by_hand():
    assert np.allclose(probing_mixtures(3), [[.75, .125, .125], [.125, .75, .125], [.125, .125, .75]]) and np.allclose(probing_mixtures(2, .9), [[.9, .1], [.1, .9]])
    for bad in (dict(K=0), dict(K=2.5), dict(K=3, sharp=1 / 3), dict(K=3, sharp=1.5)):
        with pytest.raises(ValueError, match=[*bad][-1]): probing_mixtures(**bad)


# ---- signals by hand -----------------------------------------------------------------------------------------------------
def stub(losses_, monkeypatch, **run):
    "A run whose models have these losses: {'own' or 'ref': (K, T)}."
    K, T = losses_["own"].shape
    live = SimpleNamespace(c=dict(context=T), params="own", model=None, bytes=torch.tensor([1, 2]), run=SimpleNamespace(reference="ref", tokens={"scored": 0, "trained": 0}, **run))
    rows = torch.zeros(K, 1, T + 1, dtype=torch.long)
    rows[1] = 1                                                                       # the second domain's tokens have two bytes
    monkeypatch.setattr(online, "_each_domain", lambda live: rows)
    monkeypatch.setattr(online, "token_losses", lambda p, x, m, y: losses_[p][None])
    return live

def test_excess_is_clipped_token_by_token(monkeypatch):
    own = torch.tensor([[1., 3.], [2., 4.]], requires_grad=True)
    live = stub({"own": own, "ref": torch.tensor([[2., 2.], [1.5, 1.]])}, monkeypatch)
    signal_, learn = online._excess(live)
    assert np.allclose(signal_, [.5, 1.75]) and live.run.tokens["scored"] == 4
    assert learn(np.array([.25, .75])) == pytest.approx(.25 * 4 / 2 + .75 * 6 / 4)    # nats per byte
    assert torch.allclose(own.grad, torch.tensor([[.125, .125], [.375, .375]]))

def test_losses_weigh_the_targets(monkeypatch):
    monkeypatch.setattr(online, "_score", lambda live: np.array([2., 4.]))
    assert np.allclose(online._losses(SimpleNamespace(v=np.array([.75, .25]))), [3., 2.])

def test_scores_are_nats_per_byte(monkeypatch):
    rows = torch.tensor([[[0, 1, 1], [1, 0, 1]]])
    monkeypatch.setattr(online, "token_losses", lambda p, x, m, y: torch.tensor([[[1., 2.], [3., 5.]]]))
    live = SimpleNamespace(text=[rows, rows[:, :, :]], params=None, model=None, bytes=torch.tensor([1, 2]), run=SimpleNamespace(tokens={"scored": 5}))
    assert np.allclose(online._score(live), 11 / (2 + 2 + 1 + 2)) and live.run.tokens["scored"] == 5 + 8

def test_gradients_by_plain_autograd():
    "Two rows of each domain, two targets with unequal weights; without a target, the sum over domains."
    from mixlab.proxy import init, token_losses
    from mixlab.train import configuration, learning_rate, proxy
    how = {k: v for k, v in TINY.items() if k != "progress"} | {"steps": 6}
    c = configuration(MARKED, **how)
    m, params = proxy(c), {k: v.requires_grad_() for k, v in init(proxy(c), [0]).items()}
    def gradient(domain, split):
        rows = deal(MARKED, [domain] * 2, [0, 1], 0, 16, split)[None]
        loss = token_losses(params, rows[..., :-1], m, rows[..., 1:]).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, params.values())])
    G = torch.stack([gradient(d, "train") for d in "abc"])
    targets = {"a": .25, "out": .75}
    wanted = sum(v * gradient(d, "valid") for d, v in targets.items())
    def by_hand(g): return learning_rate(c, 0) * (G @ g / (g.norm() * G.norm(dim=1).mean())).numpy()
    for target, g in ((targets, wanted), (None, G.sum(0))):
        seen = []
        run = train_online(MARKED, spying("gradients", seen), target=target, each=2, stop=1, progress=False, **how)
        assert np.allclose(seen[0], by_hand(g), rtol=2e-3, atol=1e-7)
        assert run.dealt.tolist() == [2, 2, 2] and run.shown.tolist() == [2, 2][:len(run.plan["target"])] and run.tokens["trained"] == (3 + len(run.plan["target"])) * 2 * 16

def spying(needs, seen):
    def rule(weights, signal_): seen.append(signal_); return weights
    rule.needs = needs
    return rule

def test_the_model_steps_along_the_weighted_gradients():
    "With DoGE's and DoReMi's signals, one step on a mixture is one step of plain gradients of Σ α ℓ."
    from mixlab.proxy import init, token_losses
    from mixlab.train import configuration, proxy
    how = {k: v for k, v in TINY.items() if k != "progress"} | {"steps": 6}
    c, w = configuration(MARKED, **how), np.array([.7, .2, .1])
    params = {k: v.requires_grad_() for k, v in init(proxy(c), [0]).items()}
    rows = deal(MARKED, list("abc"), [0, 0, 0], 0, 16)[None]
    loss = token_losses(params, rows[..., :-1], proxy(c), rows[..., 1:])[0]
    (loss.mean(1) @ torch.tensor(w, dtype=torch.float32)).backward()
    nbytes = MARKED.token_bytes[rows[0, :, 1:]].sum(1)
    by_hand = float((w * loss.detach().sum(1).numpy() / nbytes).sum())
    for needs in ("gradients", "excess"):
        seen = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(online, "_clip", lambda grads, limit: seen.update(zip(params, [g.clone() for g in grads])))
            def rule(weights, signal_): return w
            rule.needs = needs
            run = train_online(MARKED, rule, stop=1, reference=train(MARKED, W3, stop=0, progress=False, **how), progress=False, **how)
        assert all(torch.allclose(seen[k], v.grad, atol=1e-5) for k, v in params.items()), needs
        assert run.curve == [pytest.approx(by_hand, rel=1e-5)] and run.trajectory[0].tolist() == w.tolist()       # it moves before it learns


# ---- which text, and when ------------------------------------------------------------------------------------------------
def test_each_signal_reads_its_own_split(monkeypatch):
    real = online.token_losses
    for rule, how in ((Fixed(), {}), (ODM(), {}), (DoReMi(), {}), (DoGE(), dict(target={"b": .5, "out": .5})), (Aioli(), dict(target="out")), (SkillIt(GRAPH), dict(target={"b": 1., "out": 2.}))):
        learned, scored = [], []
        def token_losses(params, x, model, y):
            rows = [MARKED.read(r.numpy()) for r in x]
            (learned if torch.is_grad_enabled() else scored).extend(r for one in rows for r in one)
            return real(params, x, model, y)
        monkeypatch.setattr(online, "token_losses", token_losses)
        quick(rule, **how)
        valid = {d for d, split in learned + scored if split == "valid"}
        if isinstance(rule, DoGE): assert learned == [("a", "train"), ("b", "train"), ("c", "train"), ("b", "valid"), ("out", "valid")] * 6 and not scored
        else:
            assert {split for _, split in learned} == {"train"} and {d for d, _ in learned} <= set("abc")
            assert {split for _, split in scored} == ({"train"} if isinstance(rule, DoReMi) else {"valid"} if scored else set())
        assert valid == {DoGE: {"b", "out"}, Aioli: {"out"}, SkillIt: {"b", "out"}}.get(type(rule), set())

def test_scored_windows_are_those_of_page_12():
    from mixlab.train import windows
    run = quick(Aioli(), target={"out": 1., "b": 3.}, stop=0, score=64)
    live = online._Live(MARKED, run)
    assert [*run.plan["target"]] == ["b", "out"] and live.v.tolist() == [.75, .25]
    assert np.array_equal(live.text[0][0].numpy(), windows(MARKED, "b", "valid", 16, 64)) and np.array_equal(live.text[1][0].numpy(), windows(MARKED, "out", "valid", 16, 64))

def test_sampled_losses_by_domain(monkeypatch):
    "The (K,) means of what was drawn, and the rows that were drawn."
    kept, real = [], online.token_losses
    monkeypatch.setattr(online, "token_losses", lambda p, x, m, y: kept.append((real(p, x, m, y), y)) or kept[-1][0])
    seen = []
    run = quick(spying("sampled", seen), batch=4, rows=2, steps=1, mixture=[.5, .5, 0.])
    loss, y = torch.cat([l[0] for l, _ in kept]), torch.cat([y[0] for _, y in kept])
    where = [d for d, _ in MARKED.read(y.numpy())]
    assert sorted(where) == ["a", "a", "b", "b"] and run.dealt.tolist() == [2, 2, 0] and run.tokens["trained"] == 64
    for k, d in enumerate("ab"): assert seen[0][k] == pytest.approx(np.mean([float(l.detach().mean()) for l, at in zip(loss, where) if at == d]), rel=1e-5)
    assert np.isnan(seen[0][2]) and run.curve[0] == pytest.approx(float(loss.sum()) / MARKED.token_bytes[y.numpy()].sum(), rel=1e-5)

def test_rounds_ask_when_they_are_due():
    seen, calls = [], []
    rule = spying("losses", seen)
    run = quick(rule, every=3, steps=7)
    assert len(seen) == 3 and run.tokens["scored"] == 3 * 3 * 48                      # steps 0, 3, 6; three targets, 48 tokens each
    seen.clear()
    run = quick(spying("probe", seen), every=4, steps=10)
    assert len(seen) == 2 and run.tokens["scored"] == (2 * 4 + 3) * 3 * 48            # before, and after each of three trials; the third round ends within its trials
    seen.clear()
    assert quick(spying("excess", seen), steps=2).tokens["scored"] == 2 * 3 * 16 and len(seen) == 2

def test_each_domain_is_probed_once_a_round_in_an_order_of_the_seed(monkeypatch):
    used, real = [], online._sampled
    monkeypatch.setattr(online, "_sampled", lambda live, weights: used.append(weights.copy()) or real(live, weights))
    def rule(weights, signal_): return np.array([.6, .3, .1])
    rule.needs = "probe"
    run = quick(rule, every=8, probe=2, steps=16)
    probes = probing_mixtures(3)
    for r in (0, 8):
        order = [int((probes == w).all(1).argmax()) for w in used[r:r + 6]]
        assert sorted(order) == [0, 0, 1, 1, 2, 2] and order[0::2] == order[1::2]
    assert all(np.allclose(w, [.6, .3, .1]) for w in used[6:8] + used[14:]) and np.allclose(run.trajectory[:6], 1 / 3) and np.allclose(run.trajectory[6:], [.6, .3, .1])

def test_rules_move_before_or_after_they_learn():
    def rule(weights, signal_): return np.array([.6, .3, .1])
    for needs, first in (("excess", .6), ("gradients", .6), ("losses", .6), ("sampled", 1 / 3), (None, 1 / 3)):
        rule.needs = needs
        assert quick(rule, steps=2).trajectory[:, 0].tolist() == pytest.approx([first, .6]), needs

@pytest.mark.parametrize("how", [dict(target="a"), dict(mixture=[.6, .2, .2]), dict(every=5), dict(probe=2), dict(score=96), dict(seed=1), dict(lr=1e-3)], ids=str)
def test_every_option_changes_the_result(how):
    base, changed = (quick(Aioli(), **dict(target={"a": 1, "out": 2}, every=6, steps=12) | h) for h in ({}, how))
    assert not np.array_equal(base.trajectory, changed.trajectory)

def test_more_options_change_the_result():
    assert not np.array_equal(quick(DoGE(), target="a", each=2).trajectory, quick(DoGE(), target="a").trajectory)
    assert not np.array_equal(quick(DoReMi(), reference=train(MARKED, W3, steps=2, **TINY)).trajectory, quick(DoReMi()).trajectory)
    assert quick(DoReMi(), each=2).dealt.tolist() == [12] * 3

def test_the_reference_reads_as_many_tokens(monkeypatch):
    seen, real = [], online.train
    monkeypatch.setattr(online, "train", lambda corpus, w, **how: seen.append((w, how)) or real(corpus, w, **how))
    run = quick(DoReMi(), steps=4, each=2, mixture=[.5, .3, .2], seed=7)
    assert seen[0][0].tolist() == [.5, .3, .2] and seen[0][1]["steps"] == 4 * 3 * 2 // 2 and seen[0][1]["seed"] == 7 and run.tokens["before"] == 12 * 2 * 16
    assert run.cost == run.tokens["before"] + 4 * 6 * 16 * (1 + 1 / 3)

def test_steps_that_a_budget_pays_for():
    c = dict(context=10, batch=4)
    def steps(needs, budget, K=3, target=(), update=None, reference=None, **plan):
        return online._steps(budget, update, dict(needs=needs, target=dict.fromkeys(target, 1.), each=2, score=30, every=5) | plan, c, K, reference)
    assert steps(None, 410) == 10 and steps("sampled", 399) == 9
    assert steps("excess", 1400) == 10                                                # 3 · 2 · 10 · 7/3 = 140
    reference = SimpleNamespace(step=5, config=dict(batch=4, context=10))
    assert steps("excess", 1000, reference=reference) == 10                           # 200 before, 80 a step
    assert steps("gradients", 1000, target="ab") == 10 and steps("gradients", 1000, target="ab", reference=reference) == 10
    assert steps("losses", 440, target="ab") == 10                                    # 40 + 2 · 30/3 / 5 = 44
    assert steps("probe", 561, target="ab") == 10                                     # 40 + 4 · 2 · 30/3 / 5 = 56
    assert steps("losses", 640, target="ab", update=SimpleNamespace(paid=200)) == 10
    for bad in (0, -5, np.nan, "x"):
        with pytest.raises(ValueError, match="budget"): steps(None, bad)

def test_the_cost_and_the_average_of_a_run():
    run = online.OnlineRun(("a", "b"), {}, {}, None, None, None, "", path=[np.array([1., 0]), np.array([0., 1]), np.array([.5, .5])], tokens=dict(before=10, trained=5, scored=6))
    assert np.allclose(run.average.weights, .5) and run.cost == 17 and run.step == 3 and run.trajectory.shape == (3, 2)
    with pytest.raises(ValueError, match="no step"): quick(Fixed(), stop=0).average

def test_the_graph_by_hand(monkeypatch):
    monkeypatch.setattr(online, "losses", lambda *a, **k: np.log(48) * np.array([[.5, 1.], [.75, .9], [1.5, .2]]))
    graph, paid = skills_graph(MARKED, {"out": 3., "a": 1.}, steps=2, score=30, **TINY)
    assert np.allclose(graph, [[.5, 0.], [.25, .1], [0., .8]]) and paid == 3 * (2 * 2 * 16 + 2 * 30 / 3)
    seen, real = {}, online.train
    monkeypatch.setattr(online, "train", lambda corpus, W, scale, seed, **how: seen.update(W=W, seed=seed, **how) or real(corpus, W, scale, seed, **how))
    monkeypatch.setattr(online, "losses", lambda stack, corpus, **how: seen.update(how) or np.ones((3, 3)))
    skills_graph(MARKED, steps=3, seed=5, score=20, **TINY)
    assert np.array_equal(seen["W"], np.eye(3)) and (seen["steps"], seen["seed"], seen["tokens"], seen["targets"]) == (3, 5, 20, ["a", "b", "c"])

def test_decks_are_of_their_split():
    assert MARKED.read(deal(MARKED, ["a", "out"], [0, 60], 0, 16, "valid").numpy()) == [("a", "valid"), ("out", "valid")]
    assert MARKED.read(deal(MARKED, ["a"], [0], 0, 16).numpy()) == [("a", "train")]
    for bad in (dict(domains=["z"]), dict(cards=[-1]), dict(cards=[1, 2]), dict(seed=-1), dict(context=0), dict(split="dev")):
        with pytest.raises(ValueError, match=next(iter(bad))): deal(MARKED, **dict(domains=["a"], cards=[0], seed=0, context=16) | bad)


# ---- names, doors ---------------------------------------------------------------------------------------------------------
def test_names_decide():
    import pandas as pd
    from mixlab.mixture import Mixture
    want = quick(DoGE(), mixture={"a": .6, "b": .3, "c": .1}, target={"a": .75, "out": .25})
    for m, t in ((pd.Series({"c": .1, "a": .6, "b": .3}), {"out": 1, "a": 3}), (Mixture({"b": .3, "c": .1, "a": .6}), pd.Series({"out": .25, "a": .75, "b": 0.}))):
        assert same(quick(DoGE(), mixture=m, target=t), want)
    assert want.weights[0] > want.weights[2]
    assert same(quick(DoGE(), target=["out", "a"]), quick(DoGE(), target={"a": 2, "out": 2}))
    for bad in (dict(mixture={"a": .5, "z": .5}), dict(target=["z"]), dict(target={"a": 1, "z": 0})):
        for rule in (DoGE(), ODM()):
            with pytest.raises(ValueError, match="'z'"): quick(rule, **bad)

def test_a_graph_with_names_is_aligned():
    import pandas as pd
    table = pd.DataFrame(GRAPH, index=list("abc"), columns=["a", "out"])
    want = quick(SkillIt(GRAPH), target=TARGET)
    for form in (table, table.loc[["c", "a", "b"], ["out", "a"]]): assert np.array_equal(quick(SkillIt(form), target=TARGET).trajectory, want.trajectory)
    with pytest.raises(ValueError, match="column"): quick(SkillIt(table.rename(columns={"out": "z"})), target=TARGET)
    with pytest.raises(ValueError, match="row"): quick(SkillIt(table.iloc[:2]), target=TARGET)

def test_a_rule_may_answer_by_name():
    import pandas as pd
    def rule(weights, signal_): return pd.Series({"c": .1, "a": .6, "b": .3})
    rule.needs = "sampled"
    assert quick(rule).weights.tolist() == pytest.approx([.6, .3, .1])

def test_whole_numbers_of_numpy_are_whole_numbers_and_booleans_are_not():
    assert same(quick(Aioli(), every=np.int64(6), probe=np.int32(1), score=np.int64(48)), quick(Aioli()))
    for name in ("every", "probe", "score", "each", "stop"):
        with pytest.raises(ValueError, match=f"{name} is True"): quick(Aioli(), **{name: True})

@pytest.mark.parametrize("rule, how, named", [(ODM, {}, "update"), (None, {}, "update"), (ODM(), dict(resume=3), "resume"), (ODM(), dict(checkpoint=3), "checkpoint"), (DoReMi(), dict(reference="x"), "reference"),
                                              (ODM(), dict(progress=2), "progress"), (ODM(), dict(budget=np.nan), "budget"), (DoGE(), dict(each=10**9), "each"), (ODM(), dict(stop=-1), "stop"), (ODM(), dict(score=0), "score")])
def test_every_argument_is_named(rule, how, named):
    with pytest.raises(ValueError, match=named): quick(rule, **how)

def test_a_reference_is_one_member():
    two = train(MARKED, np.full((2, 3), 1 / 3), steps=2, **TINY)
    with pytest.raises(ValueError, match="reference: one member"): quick(DoReMi(), reference=two)
    assert quick(DoReMi(), reference=two[1]).tokens["before"] == 2 * 2 * 16


# ---- nothing is lost ------------------------------------------------------------------------------------------------------
def test_the_folder_of_a_checkpoint_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    quick(ODM(), checkpoint="~/new/deeper/run")
    assert [f.name for f in (tmp_path / "new/deeper").iterdir()] == ["run"]
    assert same(quick(ODM(), checkpoint=tmp_path / "new/deeper/run"), quick(ODM()))

def test_a_checkpoint_that_cannot_be_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(online, "_step", lambda live: pytest.fail("a step was taken"))
    monkeypatch.setattr(online, "train", lambda *a, **k: pytest.fail("a reference was trained"))
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "run"):
        with pytest.raises(OSError): quick(DoReMi(), checkpoint=path)
    with pytest.raises(ValueError, match="damaged"): quick(ODM(), checkpoint=tmp_path / "file")

class Odd(Fixed):
    "A rule with a state of many kinds."
    needs = "sampled"
    def __init__(self, state): self.state = state
    def __call__(self, weights, signal_): return weights

def test_any_state_that_a_file_can_keep_comes_back(tmp_path):
    import math
    state = {"nan": float("nan"), "inf": -float("inf"), "pair": (1, [2, "x"]), "array": np.array([[1., np.nan]], np.float32), "scalar": np.float64(3), "none": None, "yes": True}
    quick(Odd(state), checkpoint=tmp_path / "run", stop=3)
    back = quick(Odd(state), checkpoint=tmp_path / "run").update.state
    assert math.isnan(back["nan"]) and back["inf"] == -math.inf and back["pair"] == (1, [2, "x"]) and back["scalar"] == 3 and back["none"] is None and back["yes"] is True
    assert back["array"].dtype == np.float32 and np.array_equal(back["array"], state["array"], equal_nan=True)
    assert quick(Odd(np.array([1., np.nan]))).key != quick(Odd(np.array([1., 2.]))).key

def test_a_state_that_no_file_can_keep_is_found_before_the_work(monkeypatch):
    monkeypatch.setattr(online, "_step", lambda live: pytest.fail("a step was taken"))
    for state in (object(), {1: 2}, np.array([object()])):
        with pytest.raises(ValueError, match="Odd.state"): quick(Odd(state))
    import threading
    with pytest.raises(ValueError, match="update"): quick(Odd(threading.Lock()))

def test_a_disk_that_fills_up_leaves_the_run_in_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(online, "_save", lambda run, path: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(OSError, match="no space") as e: quick(ODM(), checkpoint=tmp_path / "run")
    assert same(e.value.run, quick(ODM()))

def test_a_rule_that_raises_leaves_the_run_in_the_error():
    def rule(weights, signal_):
        calls.append(1)
        if len(calls) == 4: raise ZeroDivisionError("the rule's own")
        return weights
    rule.needs, calls = "sampled", []
    with pytest.raises(ZeroDivisionError) as e: quick(rule)
    assert e.value.run.step == 4 and all(torch.equal(v, e.value.run.params[k]) for k, v in quick(Fixed(), stop=4).params.items())

@pytest.mark.parametrize("answer", [None, "x", {}, {"a": 1.}, [1, 2], [[.2, .3, .5]] * 2, object()], ids=str)
def test_what_is_no_mixture_is_named_with_rule_and_step(answer):
    def strange(weights, signal_): return answer
    strange.needs = "sampled"
    with pytest.warns(UserWarning, match="strange, step 0: the rule gave no mixture"): run = quick(strange)
    assert run.step == 1 and "no mixture" in run.status and np.allclose(run.weights, 1 / 3)

def test_a_signal_that_is_not_finite_is_not_handed_on(monkeypatch):
    monkeypatch.setattr(online, "_losses", lambda live: np.array([1., np.nan, 2.]))
    asked = []
    with pytest.warns(UserWarning, match="signal is not finite"): run = quick(spying("losses", asked))
    assert not asked and run.step == 1 and "not finite" in run.status

def test_a_collapse_has_its_threshold():
    for share, collapsed in ((.995, True), (.98, False)):                             # 1.03 and 1.1 effective domains
        def rule(weights, signal_): return np.array([share, (1 - share) / 2, (1 - share) / 2])
        rule.needs = "sampled"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert (quick(rule).step == 1) == collapsed

def test_figures_show_the_run():
    import matplotlib
    matplotlib.use("agg")
    run = quick(ODM(), mixture=[.6, .3, .1])
    ax = online.show_path(run)
    assert len(ax.collections) == 3
    for share, s in ((0., 0), (.4, 2), (1., 5)):
        ax = online.show_at(run, share)
        assert np.allclose([b.get_width() for b in ax.patches], run.trajectory[s]) and f"step {s} of 6" in ax.get_title() and np.allclose(ax.lines[0].get_xdata(), run.average.weights)
    for bad in (dict(share=2.), dict(share=np.nan), dict(ax=3)):
        with pytest.raises(ValueError, match=next(iter(bad))): online.show_at(run, **bad)
    with pytest.raises(ValueError, match="no step"): online.show_path(quick(ODM(), stop=0))
