"Online methods: what a page cannot show without losing its thread. Properties of the rules, exact resume after every kind of stop, tokens counted, bad input."
import copy, signal, subprocess, sys

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
