"Parameter averaging: properties, and what is refused."
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mixlab import average
from mixlab.average import (BaseUnits, QuadraticSurrogate, agree, agreement, barrier, continued, cost, ensemble_losses, merge, merge_losses,
                            midpoint_gap, probabilities, scores, show_agreement, show_cost, show_proxies, singles_and_pairs, study)
from mixlab.corpus import from_documents
from mixlab.mixture import Mixture
from mixlab.runs import RunStore, sweep
from mixlab.train import Trained, losses, restore, train, windows

quick = settings(max_examples=40, deadline=None)
weights = st.integers(2, 6).flatmap(lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n).filter(any), min_size=1, max_size=4)).map(
    lambda rows: np.array([np.array(r) / sum(r) for r in rows]))
dtypes = st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16))


def stack_of(n, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(n, 3, 5, generator=g, dtype=torch.float64).to(dtype), "b": torch.randn(n, 7, generator=g, dtype=torch.float64).to(dtype)}

def rounding_bound(x, A):
    "What n products and sums in float32 or better may be off, for each row of A, and one rounding to the type of `x`."
    wide = torch.promote_types(x.dtype, torch.float32)
    terms = torch.tensordot(torch.from_numpy(np.abs(A)), x.double().abs(), dims=1)
    bound = terms * torch.finfo(wide).eps * (A.shape[1] + 1)
    if x.dtype != wide:
        bound += terms * torch.finfo(x.dtype).eps + torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    return bound

@quick
@given(weights, dtypes)
def test_merges_are_what_exact_arithmetic_gives_rounded_once(A, dtype):
    stack = stack_of(A.shape[1], dtype)
    for k, v in merge(stack, A).items():
        exact = torch.tensordot(torch.from_numpy(A), v_ := stack[k].double(), dims=1)
        assert v.dtype == dtype and v.shape == (len(A), *v_.shape[1:])
        assert ((v.double() - exact).abs() <= rounding_bound(stack[k], A)).all()

@quick
@given(st.integers(1, 6), dtypes)
def test_identity_gives_members_bit_for_bit(n, dtype):
    stack = stack_of(n, dtype)
    assert all(torch.equal(v, stack[k]) for k, v in merge(stack, np.eye(n)).items())
    same = {k: v[:1].expand(n, *v.shape[1:]) for k, v in stack.items()}
    even = np.full((1, n), 1 / n)
    for k, v in merge(same, even).items():
        assert ((v.double() - same[k][:1].double()).abs() <= rounding_bound(same[k], even)).all()

@quick
@given(weights, st.randoms())
def test_order_of_members_does_not_matter(A, random):
    order = list(range(A.shape[1])); random.shuffle(order)
    stack = stack_of(A.shape[1])
    shuffled = merge({k: v[order] for k, v in stack.items()}, A[:, order])
    for k, v in merge(stack, A).items():
        assert ((v.double() - shuffled[k].double()).abs() <= 2 * rounding_bound(stack[k], A)).all()

@quick
@given(weights, weights)
def test_an_average_of_averages_is_one_average(A, B):
    A, n = A[:min(len(A), B.shape[1])], B.shape[1]
    if len(A) < n: A = np.concatenate((A, np.tile(A[-1:], (n - len(A), 1))))
    stack = stack_of(A.shape[1])
    twice, once = merge(merge(stack, A), B), merge(stack, B @ A)
    for k, v in twice.items():
        first = torch.tensordot(torch.from_numpy(np.abs(B)), rounding_bound(stack[k], A), dims=1)
        bound = first + 3 * rounding_bound(stack[k], B @ A) # the second rounding is of averages, which are no larger than |B @ A| @ |stack|
        assert ((v.double() - once[k].double()).abs() <= bound).all()

@pytest.mark.parametrize("A, said", [([[.5, .4]], r"A\[0\] sums to 0.9"), ([[.5, .5], [1.5, -.5]], r"A\[1\]: member 1 has weight -0.5"), ([[np.nan, 1]], r"A\[0\]: member 0 has weight nan"), ([[1., 0, 0]], r"shape \(1, 3\); expected \(2,\)")])
def test_weights_off_the_simplex_are_refused(A, said):
    with pytest.raises(ValueError, match=said): merge(stack_of(2), A)

def test_whole_numbers_are_not_averaged():
    with pytest.raises(ValueError, match="int64"): merge({"steps": torch.ones(2, 3, dtype=torch.int64)}, [.5, .5])


# ---- units -----------------------------------------------------------------------------------------------------------
def domains(sizes, heldout=()): return SimpleNamespace(names=tuple(sizes), sizes=np.array(list(sizes.values())), heldout=tuple(heldout), vocab=256, token_bytes=np.ones(256, int), hash="0" * 64,
                                                       tokens=lambda d, split="train": np.arange(sizes.get(d, 100)))

@quick
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_macro_is_micro_if_and_only_if_all_have_equally_many_units(counts):
    sizes = {f"d{i}": 1000 for i in range(len(counts))}
    units = BaseUnits(domains(sizes), 100, dict(zip(sizes, counts)))
    micro, macro = (units.rows([tuple(sizes)], kind)[0] for kind in ("micro", "macro"))
    assert np.isclose(micro.sum(), 1) and np.isclose(macro.sum(), 1)
    assert np.allclose(micro, macro) == (len(set(counts)) == 1)
    assert np.allclose([macro[u].sum() for u in units.units.values()], 1 / len(counts))

@quick
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**4), min_size=1), st.integers(100, 10**4))
def test_units_cover_their_partition_once(sizes, t):
    units = BaseUnits(domains(sizes), t)
    for f, n in sizes.items():
        spans = [units.spans[units.names[u]] for u in units.units[f]]
        assert spans[0][1] == 0 and spans[-1][2] == n and all(a[2] == b[1] for a, b in zip(spans, spans[1:])) and all(b - a > 0 for _, a, b in spans)
        assert len(spans) == max(1, round(n / t)) and np.ptp([b - a for _, a, b in spans]) <= 1
    assert np.array_equal(np.concatenate([units.tokens(units.names[u]) for u in units.units[f]]), np.arange(n))

def test_the_plan_is_part_of_a_runs_identity():
    one, two = (BaseUnits(domains({"a": 1000}), t) for t in (100, 101))
    assert one.hash != two.hash and one.hash == BaseUnits(domains({"a": 1000}), 100).hash

@pytest.mark.parametrize("call, said", [
    (lambda c: BaseUnits(c, 0), "tokens is 0"), (lambda c: BaseUnits(c, 10, {"z": 1}), "no partition 'z'"), (lambda c: BaseUnits(c, 10, {"a": 0}), r"counts\['a'\] is 0, expected .* from 1 to 100"),
    (lambda c: BaseUnits(c, 10, {"a": 101}), r"counts\['a'\] is 101, expected .* from 1 to 100"), (lambda c: BaseUnits(c, 10).rows([("a", "nope")]), r"mixtures\[0\]: no partition 'nope'"),
    (lambda c: BaseUnits(c, 10).rows([("a",)], "mean"), "'micro', 'macro'")])
def test_bad_plans_are_named(call, said):
    with pytest.raises(ValueError, match=said): call(domains({"a": 100, "b": 50}))


# ---- small models, really trained --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    rng, words = np.random.default_rng(0), {"a": "alpha beta gamma", "b": "eins zwei drei", "c": "0 1 2 3 + =", "away": "alpha zwei 3"}
    corpus = from_documents({n: [" ".join(rng.choice(w.split(), 60)) + "\n" for _ in range(60)] for n, w in words.items()}, heldout=("away",), splits=(.2, .05),
                            cache=tmp_path_factory.mktemp("cache"), progress=False)
    store, units = RunStore(tmp_path_factory.mktemp("store")), BaseUnits(corpus, 1280, {"a": 2, "b": 1, "c": 1})
    start = sweep(corpus, [[1 / 3] * 3], store=store, steps=20, keep="optimizer", workers=0, progress=False)["run", "key"][0]
    how = dict(store=store, workers=0, progress=False)
    pool = restore([store.get(k) for k in continued(units, np.eye(4), start, keep="params", **how)["run", "key"]])
    return SimpleNamespace(corpus=corpus, units=units, store=store, start=start, how=how, pool=pool)

def test_a_branch_goes_on_from_the_seed_model_at_the_highest_rate(trained):
    t = trained
    by_hand = train(t.units, np.eye(4)[0], start=restore([t.store.get(t.start)]), steps=10, schedule="constant", warmup=0., progress=False)
    assert all(torch.equal(v[0], t.pool.params[k][0]) for k, v in by_hand.params.items())
    assert t.pool.config["lr"] == 6e-3 and t.pool.config["steps"] == 10

def test_runs_are_as_long_as_their_units_and_never_trained_twice(trained):
    t, mixtures = trained, [("a", "b"), ("b",), ("b", "c"), ("a", "b", "c")]
    first = continued(t.units, t.units.rows(mixtures), t.start, **t.how)
    steps = [t.store.get(k)["identity"]["configuration"]["steps"] for k in first["run", "key"]]
    assert steps == [30, 10, 20, 40]
    before = t.store.history().runs.sum()
    again = continued(t.units, t.units.rows(mixtures[::-1]), t.start, **t.how)
    assert t.store.history().runs.sum() == before and again["run", "key"].tolist() == first["run", "key"].tolist()[::-1]
    with pytest.raises(ValueError, match="one column for each of a/0, a/1, b/0, c/0"): continued(t.units, np.eye(3), t.start, **t.how)

@pytest.mark.parametrize("block", [1, 3, None])
def test_scores_do_not_depend_on_how_many_are_formed_at_once(trained, block):
    t, A = trained, np.random.default_rng(0).dirichlet(np.ones(4), 7)
    got = merge_losses(t.pool, A, t.corpus, tokens=512, block=block, progress=False)
    assert np.allclose(got, losses(merge(t.pool, A), t.corpus, tokens=512), atol=1e-6)
    assert np.array_equal(merge_losses(t.pool, np.eye(4), t.corpus, tokens=512, progress=False), losses(t.pool, t.corpus, tokens=512))

def test_ensembles_of_one_member_are_that_member_and_of_two_no_worse_than_their_mean(trained):
    t, A = trained, singles_and_pairs(4)
    e = ensemble_losses(probabilities(t.pool, t.corpus, tokens=512), A)
    assert np.allclose(e[:4], losses(t.pool, t.corpus, tokens=512), atol=1e-5)
    for row, (i, j) in zip(e[4:], combinations(range(4), 2)): assert (row <= (e[i] + e[j]) / 2 + 1e-6).all()

def test_the_gap_is_the_middle_of_the_line(trained):
    two = trained.pool[[0, 2]]
    line = barrier(two, trained.corpus, points=3, tokens=512)
    assert np.allclose(midpoint_gap(two, trained.corpus, tokens=512), (line[0] + line[2]) / 2 - line[1], atol=1e-6)
    assert np.allclose(midpoint_gap(trained.pool[[1, 1]], trained.corpus, tokens=512), 0, atol=1e-6)

def test_the_study_says_what_its_parts_say(trained):
    t, mixtures = trained, [("a", "b"), ("a", "c"), ("b", "c")]
    seq = continued(t.units, t.units.rows(mixtures), t.start, **t.how)["loss"].to_numpy()
    whole = restore([t.store.get(k) for k in continued(t.units, t.units.rows([(f,) for f in t.units.partitions]), t.start, keep="params", **t.how)["run", "key"]])
    with pytest.raises(ValueError, match="parts"): study(t.units, t.pool, mixtures, seq, progress=False)
    with pytest.raises(ValueError, match="3 mixtures"): study(t.units, t.pool, mixtures, seq[:2], parts=whole, progress=False)
    table = study(t.units, t.pool, mixtures, seq, parts=whole, progress=False).set_index(["mixture", "target"])
    assert table["where"]["a + b"].to_dict() == {"a": "inside", "b": "inside", "c": "other", "away": "outside"}
    alone, at = np.exp(losses(whole, t.units)), t.units.targets.index
    row = table.loc["a + c", "away"]
    assert np.isclose(row["mean IND"], alone[[0, 2], at("away")].mean()) and np.isnan(row["IND ID"]) and row["share"] == 0
    assert np.isclose(table.loc["a + c", "c"]["IND ID"], alone[2, at("c")]) and np.isclose(table.loc["a + c", "a"]["share"], 2 / 3)
    macro = merge(t.pool, [[.25, .25, 0, .5]])
    assert np.isclose(row["macro-MERGED"], np.exp(losses(macro, t.units)[0, at("away")])) and np.isclose(row["SEQ"], np.exp(seq[1, at("away")]))
    two_models = merge(whole, [[.5, 0, .5]])
    assert np.isclose(row["MERGED"], np.exp(losses(two_models, t.units)[0, at("away")]))
    flat = table.reset_index()
    assert set(agree(flat, "outside").index) == {"mean IND", "MERGED", "macro-MERGED", "micro-MERGED", "mean MERGED", "ensemble"}    # share is 0 everywhere, IND ID undefined
    with pytest.raises(ValueError, match="on is 'elsewhere'"): scores(flat, "elsewhere")


# ---- surrogate, agreement, cost ----------------------------------------------------------------------------------------
@quick
@given(st.integers(2, 7), st.integers(0, 10**6))
def test_surrogate_is_exact_on_quadratics(n, seed):
    g = np.random.default_rng(seed)
    Q, w = g.normal(size=(n, n)), g.dirichlet(np.ones(n), 20)
    f = lambda A: np.einsum("mi,ij,mj->m", A, Q, A)
    s = QuadraticSurrogate(log=False).fit(singles_and_pairs(n), f(singles_and_pairs(n)))
    assert np.allclose(s.predict(w), f(w))
    assert np.allclose(QuadraticSurrogate().fit(singles_and_pairs(n), np.exp(f(singles_and_pairs(n)))).predict(w), np.exp(f(w)))
    best = s.best()
    assert np.isclose(best.sum(), 1) and (best >= 0).all() and f(best[None])[0] <= f(singles_and_pairs(n)).min() + 1e-6

def test_surrogate_names_what_it_was_not_told():
    A = singles_and_pairs(4)
    with pytest.raises(ValueError, match="combines members 1 and 3"): QuadraticSurrogate().fit(np.delete(A, 8, 0), np.ones(9))
    with pytest.raises(ValueError, match="determines"): QuadraticSurrogate().fit(A[4:], np.ones(6))
    with pytest.raises(ValueError, match=r"y\[9\] is nan"): QuadraticSurrogate().fit(A, np.r_[np.ones(9), np.nan])
    with pytest.raises(ValueError, match="above 0 .* got -1"): QuadraticSurrogate().fit(A, np.r_[np.ones(9), -1])

@quick
@given(st.integers(0, 10**6))
def test_agreement_is_scipys_correlation(seed):
    from scipy.stats import pearsonr, spearmanr
    g = np.random.default_rng(seed)
    members = np.array([[c in p for c in range(6)] for p in combinations(range(6), 2)])
    x, y = g.normal(size=15).round(1), g.normal(size=15).round(1)             # rounded: ties
    a = agreement(x + 9, y + 9, members, resamples=50)
    assert np.isclose(a["pearson"], pearsonr(x, y)[0]) and np.isclose(a["spearman"], spearmanr(x, y)[0])
    assert a["low"] <= a["high"] and a["rank"] == 1 + (y < y[x.argmin()]).sum() and np.isclose(a["regret"], np.log((9 + y[x.argmin()]) / (9 + y.min())))

def test_a_resample_counts_a_mixture_as_often_as_its_members_allow():
    from mixlab.average import _pearson, _ranks
    x, y, w = np.array([3., 1, 4, 1, 5]), np.array([2., 7, 1, 8, 2]), np.array([[2., 0, 1, 3, 1]])
    rx, ry = (np.repeat(v, w[0].astype(int)) for v in (x, y))
    from scipy.stats import rankdata
    assert np.isclose(_pearson(x, y, w)[0], np.corrcoef(rx, ry)[0, 1])
    assert np.isclose(_pearson(_ranks(x, w), _ranks(y, w), w)[0], np.corrcoef(rankdata(rx), rankdata(ry))[0, 1])

@pytest.mark.parametrize("x, y, said", [([1, 2], [1, 2], "at least 3"), ([1, 1, 1], [1, 2, 3], "x is constant"), ([1, 2, np.nan], [1, 2, 3], r"x\[2\] is nan"), ([1, 2, 3], [1, 2], "x has 3 rows, y has 2")])
def test_agreement_refuses(x, y, said):
    with pytest.raises(ValueError, match=said): agreement(x, y, np.eye(len(x)))

@quick
@given(st.lists(st.integers(1, 20), min_size=2, max_size=9), st.data())
def test_cost_counts_every_mixture(sizes, data):
    k = data.draw(st.integers(1, len(sizes)))
    table, every = cost(sizes, k, hours=2, scored=0), list(combinations(sizes, k))
    assert table.loc["naive", "billion tokens trained"] == sum(map(sum, every)) and table.loc["naive", "models scored"] == len(every)
    assert table.loc["modular", "GPU-hours"] == 2 * sum(sizes)

def test_cost_of_section_5_5():
    science = [128 / 22] * 22
    assert round(cost(science, scored=0)["GPU-hours"]["naive"]) == 13_440 and round(cost(science)["billion tokens trained"]["naive"]) == 2_688
    assert [round(cost([1] * 128, k, scored=0)["GPU-hours"]["naive"]) for k in (2, 3)] == [81_280, 5_120_640]
    with pytest.raises(ValueError, match="k is 3, expected a whole number from 1 to 2"): cost([1, 1], 3)
    with pytest.raises(ValueError, match="partition 1 has 0 units"): cost([1, 0])


# ---- which number: by hand, or by another library ----------------------------------------------------------------------
def test_cost_by_hand():
    table = cost({"a": 1, "b": 2, "c": 3}, 2, tokens=2, hours=5, scored=.3)     # 3 pairs; each partition stands in two of them
    assert table["billion tokens trained"].tolist() == [24, 12, 12] and table["models scored"].tolist() == [3, 3, 6]
    assert np.allclose(table["GPU-hours"], [5 * (24 + .3), 5 * (12 + .3), 5 * (12 + .6)])
    assert np.isnan(table["pays after"]["naive"]) and table["pays after"][["modular", "ensemble"]].tolist() == [1.5, 1.5]  # 12 of 8 a pair
    assert cost([1] * 4)["pays after"]["modular"] == 2 and cost([1, 1]).loc["modular", "GPU-hours"] == 5 * (2 + .01 / 3)
    assert cost([.5] * 6, 2)["models scored"]["ensemble"] == 3

def test_show_cost_draws_the_formulas():
    lines = show_cost(4, [2, 3], hours=3, tokens=2).lines
    assert [line.get_ydata().tolist() for line in lines] == [[2 * 6, 2 * 3 * 6, 3 * 4 * 6], [3 * 6, 3 * 4 * 6], [6, 12, 18, 24]]
    assert [line.get_xdata().tolist() for line in lines] == [[2, 3, 4], [3, 4], [1, 2, 3, 4]]
    default = show_cost(3, 2).lines
    assert default[0].get_ydata().tolist() == [2 * 5, 2 * 3 * 5] and len(default) == 2
    assert show_cost().lines[0].get_ydata()[-1] == 32 * 33 * 5

def trained_by_hand(W, names=("a", "b", "c"), status=None):
    "A stack whose numbers are known: member i holds i + 1 everywhere in `x`."
    W = np.array(W, float)
    x = torch.arange(1., len(W) + 1)[:, None].repeat(1, 2)
    return Trained({"x": x, "y": -x[:, :, None]}, names, W, W[:, ::-1].copy(), np.ones((len(W), 4)), status or ["ok"] * len(W), {"scale": "tiny", "vocab": 256}, np.arange(len(W)), 7)

def test_a_merge_averages_parameters_mixtures_and_what_was_sampled():
    stack = trained_by_hand(np.eye(3), status=["ok", "diverged", "ok"])
    m = merge(stack, [[.5, 0, .5], [.25, .75, 0]])
    assert m.params["x"].tolist() == [[2, 2], [1.75, 1.75]] and m.params["y"][:, 0, 0].tolist() == [-2, -1.75]
    assert m.W.tolist() == [[.5, 0, .5], [.25, .75, 0]] and m.sampled.tolist() == [[.5, 0, .5], [0, .75, .25]]
    assert m.status == ["ok", "diverged"] and m.step == 7 and m.names == stack.names and len(m) == 2 and m.config is stack.config
    assert m.curve.shape == (2, 0) and m.seeds.tolist() == [0, 0]

def test_members_with_a_domain_of_their_own_are_weighed_by_name():
    stack = trained_by_hand(np.eye(3)[[2, 0, 1]])                                # members c, a, b
    by_name = pd.DataFrame([[.7, .2, .1]], columns=["b", "a", "c"])
    want = merge(stack, [[.1, .2, .7]]).params["x"]
    for A in (by_name, {"a": .2, "b": .7, "c": .1}, [{"a": .2, "c": .1, "b": .7}], by_name.iloc[0], Mixture({"c": .1, "b": .7, "a": .2})):
        assert torch.equal(merge(stack, A).params["x"], want)
    for A, said in (({"a": .5, "b": .5}, "'c'"), ({"a": .5, "b": .3, "z": .2}, "'z'")):
        with pytest.raises(ValueError, match=said): merge(stack, A)
    for nameless in (stack.params, trained_by_hand([[.5, .5, 0]] * 3), trained_by_hand([[1, 0, 0], [.3, .7, 0], [0, 0, 1]]), trained_by_hand(np.eye(3)[[0, 0, 1]])):
        with pytest.raises(ValueError, match="members have none"): merge(nameless, by_name)

def test_rounded_weights_are_divided_by_their_sum_and_others_left_alone():
    x = {"x": torch.ones(3, 2, dtype=torch.float64)}
    assert torch.allclose(merge(x, [.333] * 3)["x"], torch.ones(1, 2, dtype=torch.float64), atol=1e-15, rtol=0)
    with pytest.raises(ValueError, match=r"A\[0\] sums to 0.98"): merge(x, [.49, .49, 0])

def test_a_member_that_is_not_finite_is_named_unless_it_has_no_weight():
    x = {"x": torch.tensor([[1., 2.], [np.nan, 0.], [3., 4.]])}
    with pytest.raises(ValueError, match="member 1 holds a non-finite number in 'x'"): merge(x, [.5, .5, 0])
    assert merge(x, [.5, 0, .5])["x"].tolist() == [[2, 3]]

@pytest.mark.parametrize("stack, said", [({}, "expected a Trained"), ({"x": torch.ones(2, 1), "y": torch.ones(3, 1)}, "'y' has 3 members, 'x' has 2"), ({"x": np.ones(2)}, "'x' is a ndarray"), (3, "stack is a int")])
def test_stacks_that_are_none(stack, said):
    with pytest.raises(ValueError, match=said): merge(stack, [.5, .5])

def test_the_line_and_the_gap_ask_for_the_right_averages(monkeypatch):
    seen = []
    def scored(stack, A, corpus, **how):
        seen.append((A, how))
        return A @ np.array([[1., 10], [3, 20], [8, 60]]) + .5 * (A.max(1) < 1)[:, None]     # every average is half a nat worse
    monkeypatch.setattr(average, "merge_losses", scored)
    assert np.allclose(barrier([0] * 3, None, 2, 0, points=5, tokens=9)[:, 0], [8, 6.75, 5, 3.25, 1])
    assert np.allclose(seen[0][0], [[0, 0, 1], [.25, 0, .75], [.5, 0, .5], [.75, 0, .25], [1, 0, 0]]) and seen[0][1] == {"progress": False, "tokens": 9}
    barrier([0] * 3, None)
    assert len(seen[1][0]) == 7 and np.allclose(seen[1][0][[0, 6]], [[1, 0, 0], [0, 1, 0]])
    assert np.allclose(midpoint_gap([0] * 3, None, split="test"), [-.5, -.5]) and seen[2][1] == {"progress": False, "split": "test"}
    assert np.allclose(seen[2][0], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3] * 3])
    for wrong in (dict(i=3), dict(j=-1), dict(i=1), dict(points=1)):
        with pytest.raises(ValueError): barrier([0] * 3, None, **wrong)
    with pytest.raises(ValueError, match="at least two"): barrier([0], None)

def test_units_by_hand():
    c = domains({"a": 149, "b": 151, "c": 30}, heldout=("out",))
    units = BaseUnits(c, 100)
    assert units.spans == {"a/0": ("a", 0, 149), "b/0": ("b", 0, 75), "b/1": ("b", 75, 151), "c/0": ("c", 0, 30)}
    assert units.names == ("a/0", "b/0", "b/1", "c/0") and units.partitions == ("a", "b", "c") and units.targets == ("a", "b", "c", "out")
    assert units.units == {"a": [0], "b": [1, 2], "c": [3]} and units.t == 100 and units.vocab == 256 and units.heldout == ("out",)
    assert units.tokens("b/1").tolist() == list(range(75, 151)) and units.tokens("b").tolist() == list(range(151))
    some = BaseUnits(c, np.int64(100), {"c": 1, "a": 2})
    assert some.names == ("a/0", "a/1", "c/0") and some.targets == ("a", "c", "out") and some.hash != units.hash
    assert np.allclose(units.rows([("b", "c"), ("a",)]), [[0, 1 / 3, 1 / 3, 1 / 3], [1, 0, 0, 0]])
    assert np.allclose(units.rows([("b", "c")], "macro"), [[0, .25, .25, .5]])
    assert np.array_equal(units.rows([{"c", "b"}]), units.rows([["b", "c"]]))

def test_other_splits_are_the_partitions_own():
    c = domains({"a": 9})
    c.tokens = lambda d, split="train": {"train": np.arange(9), "valid": np.arange(4) + 50, "test": np.arange(3) + 70}[split]
    units = BaseUnits(c, 3)
    assert units.tokens("a/1").tolist() == [3, 4, 5] and units.tokens("a/1", "valid").tolist() == [50, 51, 52, 53] == units.tokens("a", "valid").tolist()
    assert units.tokens("a", "test").tolist() == [70, 71, 72]
    with pytest.raises(ValueError, match="split is 'all'"): units.tokens("a", "all")
    with pytest.raises(ValueError, match="name is 'b/0'"): units.tokens("b/0")

@pytest.mark.parametrize("mixtures, said", [
    ("ab", "expected a list"), ([], "expected a list"), (["ab"], r"mixtures\[0\] is 'ab'"), ([()], r"mixtures\[0\]"), ([("a", "a")], "twice"),
    ([{"a": .3, "b": .7}], "averaging weights"), ([Mixture({"a": .3, "b": .7})], "averaging weights"), (pd.DataFrame({"a": [1.]}), "expected a list")])
def test_sets_of_partitions_that_are_none(mixtures, said):
    with pytest.raises(ValueError, match=said): BaseUnits(domains({"a": 100, "b": 50}), 10).rows(mixtures)

def test_a_domain_that_is_named_like_a_unit_is_refused():
    with pytest.raises(ValueError, match="'a/0', which is also the name of a unit"): BaseUnits(domains({"a": 100, "a/0": 50}), 100)

def test_branches_ask_for_the_right_runs(monkeypatch):
    seen = []
    def sweep(units, W, scale, **how):
        seen.append((W, scale, how))
        return pd.DataFrame({("loss", "a"): how["steps"] + np.arange(len(W)) / 10})
    monkeypatch.setattr(average, "sweep", sweep)
    units = BaseUnits(domains({"a": 600, "b": 1200, "c": 600}), 640)
    table = continued(units, units.rows([("a",), ("b", "c"), ("c",)]), "key", "tiny", 5, "there", "params", 0, False, batch=5, context=16)
    assert [how["steps"] for _, _, how in seen] == [8, 24] and table["loss", "a"].tolist() == [8, 24, 8.1]          # 640 tokens of 5 x 16
    for W, scale, how in seen:
        assert (how["schedule"], how["warmup"], how["start"], how["seed"], how["store"], how["keep"], how["workers"], how["progress"], scale, how["batch"]) == ("constant", 0, "key", 5, "there", "params", 0, False, "tiny", 5)
    assert np.allclose(seen[1][0], [[0, 1 / 3, 1 / 3, 1 / 3]]) and seen[0][0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    seen.clear()
    continued(units, pd.DataFrame([[0, 1., 0, 0]], columns=["c/0", "a/0", "b/1", "b/0"]), "key", steps=3, schedule="linear", warmup=.1)
    W, scale, how = seen[0]
    assert W.tolist() == [[1, 0, 0, 0]] and how["steps"] == 3 and how["schedule"] == "linear" and how["warmup"] == .1
    assert how["keep"] == "none" and how["seed"] == 0 and how["workers"] is None and how["progress"] is True and scale == "tiny"
    seen.clear()
    continued(BaseUnits(domains({"a": 600}), 60, {"a": 1}), [[1.]], "key")
    assert seen[0][2]["steps"] == 1                                               # 60 tokens are fewer than one batch of 2 x 64

def reads(corpus, seen):
    "A corpus that writes down which texts are read."
    return SimpleNamespace(**{a: getattr(corpus, a) for a in ("names", "targets", "vocab", "token_bytes", "heldout", "sizes", "hash")}, tokens=lambda d, split="train": seen.append((d, split)) or corpus.tokens(d, split))

def test_every_evaluation_reads_the_split_that_it_is_given(trained):
    t, seen = trained, []
    c, two = reads(t.corpus, seen), trained.pool[[0, 2]]
    def read(call):
        seen.clear()
        got = call()
        return got, {split for _, split in seen}, {d for d, _ in seen}
    for f in (lambda **how: merge_losses(two, [[.5, .5]], c, tokens=256, progress=False, **how), lambda **how: barrier(two, c, tokens=256, **how), lambda **how: midpoint_gap(two, c, tokens=256, **how),
              lambda **how: ensemble_losses(probabilities(two, c, tokens=256, **how), [[.5, .5]])):
        found = {split: read(lambda: f(split=split)) for split in ("train", "valid", "test")} if c.heldout == () else {split: read(lambda: f(split=split, targets=["a", "b"])) for split in ("train", "valid", "test")}
        assert all(splits == {split} and texts == {"a", "b"} for split, (_, splits, texts) in found.items())
        assert not np.allclose(found["valid"][0], found["test"][0]) and not np.allclose(found["valid"][0], found["train"][0])
        default = read(f)
        assert default[1] == {"valid"} and default[2] == set(t.corpus.targets)
        assert np.array_equal(read(lambda: f(targets="b"))[0][..., 0], default[0][..., 1]) and np.array_equal(read(lambda: f(targets=["away", "a"]))[0], default[0][..., [3, 0]])

def test_how_much_is_scored_changes_the_loss_and_the_block_does_not(trained):
    t, A = trained, np.array([[.5, .5, 0, 0], [0, 0, 1, 0]])
    few, more = (merge_losses(t.pool, A, t.corpus, tokens=n, progress=False) for n in (128, 1024))
    assert not np.allclose(few, more) and np.array_equal(few, losses(merge(t.pool, A), t.corpus, "valid", 128))
    given = probabilities(t.pool, t.corpus, tokens=128)
    assert given["a"][0].shape == (4, 128) and np.allclose(ensemble_losses(given, A, block=1), ensemble_losses(given, A))
    text = windows(t.corpus, "a", "valid", 64, 128)
    assert given["a"][1] == t.corpus.token_bytes[text[:, 1:]].sum()
    assert np.allclose(-np.log(given["a"][0][2].numpy()).sum() / given["a"][1], losses(t.pool, t.corpus, tokens=128)[2, 0], atol=1e-6)

def test_an_ensemble_by_hand():
    given = {"d": (torch.tensor([[.1, .5], [.3, .5]]), 2), "e": (torch.tensor([[.4], [.8]]), 4)}
    assert np.allclose(ensemble_losses(given, [[.5, .5], [1, 0]]), [[-(np.log(.2) + np.log(.5)) / 2, -np.log(.6) / 4], [-(np.log(.1) + np.log(.5)) / 2, -np.log(.4) / 4]], atol=1e-6)
    for wrong, said in (({}, "expected what"), ({"d": 3}, "pair"), ({"d": (torch.tensor([[.1, np.nan]]), 1)}, "nan"), ({"d": (torch.tensor([[1.5]]), 1)}, "from 0 to 1"), ({"d": (torch.ones(1, 1), 0)}, "bytes"), (given | {"e": (torch.ones(3, 1), 1)}, "as many")):
        with pytest.raises(ValueError, match=said): ensemble_losses(wrong, [.5, .5])


def test_singles_and_pairs_of_three(): assert singles_and_pairs(3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [.5, .5, 0], [.5, 0, .5], [0, .5, .5]]

def test_surrogate_has_the_coefficients_of_the_page():
    y = np.array([2., 3, 5, 1, 4, 3])                                             # L of a, b, c, ab, ac, bc
    s = QuadraticSurrogate(log=False).fit(singles_and_pairs(3), y)
    assert np.allclose(s.coef_, [2, 3, 5, 4 * (1 - 2.5), 4 * (4 - 3.5), 4 * (3 - 4.)])
    assert np.allclose(s.predict([[.2, .3, .5]]), 2 * .2 + 3 * .3 + 5 * .5 - 6 * .06 + 2 * .1 - 4 * .15)
    logs = QuadraticSurrogate().fit(singles_and_pairs(3), np.exp(y))
    assert np.allclose(logs.coef_, s.coef_) and np.allclose(logs.predict([[.2, .3, .5]]), np.exp(s.predict([[.2, .3, .5]])))
    assert logs.n_features_in_ == 3 and logs.log is True

def test_surrogate_columns_and_rows_have_names():
    A = pd.DataFrame(singles_and_pairs(3), columns=["a", "b", "c"], index=list("uvwxyz"))
    y = pd.DataFrame({"t": [2., 3, 5, 1, 4, 3], "s": [1., 9, 9, 5, 5, 5]}, index=A.index)
    s, turned = QuadraticSurrogate(log=False).fit(A, y), QuadraticSurrogate(log=False).fit(A[["c", "a", "b"]], y.iloc[::-1])
    w = pd.DataFrame([[.5, .2, .3]], columns=["c", "a", "b"])
    assert np.allclose(s.predict(w), turned.predict(w)) and np.allclose(s.predict(w)[0, 0], QuadraticSurrogate(log=False).fit(A.to_numpy(), y["t"].to_numpy()).predict([[.2, .3, .5]]))
    assert s.feature_names_in_.tolist() == ["a", "b", "c"] and s.target_names_ == ("t", "s") and turned.feature_names_in_.tolist() == ["c", "a", "b"]
    with pytest.raises(ValueError, match="different indexes"): QuadraticSurrogate().fit(A, y.rename({"u": "q"}))
    with pytest.raises(ValueError, match="'d'"): s.predict({"a": .5, "b": .25, "d": .25})
    s.fit(A.to_numpy(), y.to_numpy())
    assert not hasattr(s, "feature_names_in_") and s.target_names_ == ("target_0", "target_1")
    with pytest.raises(ValueError, match="members have none"): s.predict(w)
    with pytest.raises(ValueError, match="not fitted"): QuadraticSurrogate().predict(w)
    with pytest.raises(ValueError, match="not fitted"): QuadraticSurrogate().best()

def away_from(centre):
    A = singles_and_pairs(len(centre))
    return ((A - centre) ** 2).sum(1) + 1

@pytest.mark.parametrize("unit", [1e-6, 1., 1e6])
def test_the_best_weights_are_where_they_were_put(unit):
    one, two = np.array([.2, .3, .5]), np.array([.6, .4, 0.])
    y = pd.DataFrame({"one": away_from(one), "two": away_from(two)}) * unit       # whatever the unit
    s = QuadraticSurrogate(log=False).fit(singles_and_pairs(3), y)
    for target, want in ((0, one), (1, two), ([0, 1], (one + two) / 2), ([1], two), ("two", two), (["one", "two"], (one + two) / 2), ({"two": 1, "one": 3}, .75 * one + .25 * two),
                         (None, (one + two) / 2), (range(2), (one + two) / 2), (np.array([.25, .75]), .25 * one + .75 * two)):
        assert np.allclose(s.best(target), want, atol=1e-4), target
    assert np.allclose(s.best(), one, atol=1e-4)
    logs = QuadraticSurrogate().fit(singles_and_pairs(3), np.exp(y / unit))
    assert np.allclose(logs.best("two"), two, atol=1e-4)
    for wrong in (2, -1, True, "three", {"one": -1.}, {"one": 0.}, {"one": np.nan}, [0, 5]):
        with pytest.raises(ValueError, match="target"): s.best(wrong)

def test_the_lowest_of_two_valleys_is_found():
    "A ridge in the middle: one member alone is best, and even weights lie on the other side."
    y = np.array([3., 1, 2, 9, 9, 9])
    assert np.allclose(QuadraticSurrogate(log=False).fit(singles_and_pairs(3), y).best(), [0, 1, 0], atol=1e-6)


# ---- the study, with models whose scores are made up ---------------------------------------------------------------------
LOSS = np.array([[1., 2, 3, 4], [2, 1, 3, 4], [3, 2, 1, 5], [4, 2, 2, 1]])             # of units a/0 a/1 b/0 c/0 on a, b, c, out
WHOLE = np.array([[1., 2, 2, 3], [2, 1, 2, 4], [2, 2, 1, 6]])                          # of partitions a, b, c

@pytest.fixture
def made_up(monkeypatch):
    "Scores are linear in the weights, so that every column can be computed by hand."
    units, how = BaseUnits(domains({"a": 200, "b": 100, "c": 100}, heldout=("out",)), 100), []
    pool, parts = trained_by_hand(np.eye(4), units.names), trained_by_hand(units.rows([("a",), ("b",), ("c",)]), units.names)
    def own(stack): return np.array([[LOSS[0], LOSS[1], LOSS[2], LOSS[3]], WHOLE][len(stack) == 3])[stack.seeds]
    monkeypatch.setattr(average, "merge_losses", lambda stack, A, corpus, **k: how.append(k) or np.log(A @ np.exp(own(stack))) + .5)
    monkeypatch.setattr(average, "losses", lambda stack, corpus, **k: how.append(k) or own(stack))
    monkeypatch.setattr(average, "probabilities", lambda stack, corpus, **k: how.append(k) or stack)
    monkeypatch.setattr(average, "ensemble_losses", lambda stack, A: A @ own(stack))
    return units, pool, parts, how

def test_every_column_of_the_study_by_hand(made_up):
    units, pool, parts, how = made_up
    mixtures, seq = [("a", "b"), ("b", "c")], np.arange(8.).reshape(2, 4) / 10
    flat = QuadraticSurrogate().fit(singles_and_pairs(4), np.tile([2., 3, 4, 5], (10, 1)))
    t = study(units, pool, mixtures, seq, again=seq + 1, parts=parts, surrogate=flat, tokens=77, progress=False)
    assert all(k["tokens"] == 77 and k.get("split", "valid") == "valid" for k in how) and len(how) == 6
    assert t["mixture"].tolist() == ["a + b"] * 4 + ["b + c"] * 4 and t["target"].tolist() == ["a", "b", "c", "out"] * 2 and (t["k"] == 2).all()
    assert t["where"].tolist() == ["inside", "inside", "other", "outside", "other", "inside", "inside", "outside"]
    e, w, up = np.exp(LOSS), np.exp(WHOLE), np.exp(.5)                              # an average is half a nat above the mean perplexity
    micro, macro = np.array([[1, 1, 1, 0], [0, 0, 1, 1]]) / [[3], [2]], np.array([[.25, .25, .5, 0], [0, 0, .5, .5]])
    even = np.array([[.5, .5, 0], [0, .5, .5]])
    want = {"SEQ": np.exp(seq), "SEQ again": np.exp(seq + 1), "mean IND": even @ w, "MERGED": up * even @ w, "micro-MERGED": up * micro @ e, "macro-MERGED": up * macro @ e,
            "mean MERGED": up * even @ np.stack(((e[0] + e[1]) / 2, e[2], e[3])), "ensemble": np.exp(micro @ LOSS), "surrogate": np.exp([[2., 3, 4, 5]] * 2),
            "share": np.array([[2 / 3, 1 / 3, 0, 0], [0, .5, .5, 0]])}
    for c, value in want.items(): assert np.allclose(t[c], np.ravel(value)), c
    n = np.nan
    assert np.allclose(t["IND ID"], [w[0, 0], w[1, 1], n, n, n, w[1, 1], w[2, 2], n], equal_nan=True)
    assert set(t.columns) == {*want, "IND ID", "mixture", "k", "target", "where"}

def test_models_come_in_any_order_and_losses_by_name(made_up):
    units, pool, parts, _ = made_up
    mixtures, seq = [("a", "b"), ("b", "c")], pd.DataFrame(np.arange(8.).reshape(2, 4) / 10, columns=units.targets)
    want = study(units, pool, mixtures, seq.to_numpy(), parts=parts, progress=False)
    turned = seq[["out", "c", "a", "b"]]
    for table in (turned, turned.iloc[::-1], turned.set_axis(["a + b", "b + c"]), turned.set_axis(["a + b", "b + c"]).iloc[::-1],
                  pd.concat({"mixture": pd.DataFrame(units.rows(mixtures), columns=units.names), "loss": turned}, axis=1)):
        got = study(units, pool[[2, 0, 3, 1]], mixtures, table, parts=parts[[1, 2, 0]], progress=False)
        pd.testing.assert_frame_equal(got, want)
    other = pd.concat({"mixture": pd.DataFrame(units.rows(mixtures[::-1]), columns=units.names), "loss": seq}, axis=1)
    for wrong, said in ((dict(seq=other), "other mixtures"), (dict(seq=seq.set_axis([5, 6])), "rows are named"), (dict(seq=seq.rename(columns={"a": "z"})), "'a'"), (dict(seq=seq * np.nan), r"seq\[0, 0\] is nan"),
                        (dict(again=seq.to_numpy()[:1]), "2 mixtures"), (dict(pool=pool[[0, 0, 2, 3]]), "pool has 2 members trained on a/0"), (dict(pool=pool[[0, 1, 2]]), "0 members trained on c/0"), (dict(parts=pool), "0 members trained on a/0, a/1"),
                        (dict(parts=None), "give a model"), (dict(surrogate=QuadraticSurrogate().fit(singles_and_pairs(3), np.ones((6, 4)))), "3 members, the pool has 4"),
                        (dict(surrogate=QuadraticSurrogate().fit(singles_and_pairs(4), np.ones((10, 3)))), "predicts")):
        with pytest.raises(ValueError, match=said): study(**dict(units=units, pool=pool, mixtures=mixtures, seq=seq, parts=parts, progress=False) | wrong)

def test_a_surrogate_with_names_is_asked_by_name(made_up):
    units, pool, parts, _ = made_up
    A = pd.DataFrame(singles_and_pairs(4), columns=["c/0", "b/0", "a/1", "a/0"])
    s = QuadraticSurrogate().fit(A, np.exp(A.to_numpy() @ LOSS[::-1]))
    t = study(units, pool, [("c",)], np.ones((1, 4)), parts=parts, surrogate=s, progress=False)
    assert np.allclose(np.log(np.log(t["surrogate"])), LOSS[3])

def test_one_unit_each_needs_no_parts(monkeypatch):
    units = BaseUnits(domains({"a": 100, "b": 100}, heldout=("out",)), 100)
    pool = trained_by_hand(np.eye(2), units.names)
    L = np.array([[1., 2, 3], [3, 1, 5]])
    monkeypatch.setattr(average, "merge_losses", lambda stack, A, corpus, **k: A @ L)
    monkeypatch.setattr(average, "losses", lambda stack, corpus, **k: L)
    monkeypatch.setattr(average, "probabilities", lambda stack, corpus, **k: stack)
    monkeypatch.setattr(average, "ensemble_losses", lambda stack, A: A @ L - .1)
    t = study(units, pool, [("a", "b"), ("a",)], np.ones((2, 3)), progress=False)
    assert np.allclose(t["MERGED"], np.exp([2, 1.5, 4, 1, 2, 3])) and np.allclose(t["IND ID"], [np.exp(1), np.exp(1), np.nan, np.exp(1), np.nan, np.nan], equal_nan=True)
    assert not {"macro-MERGED", "micro-MERGED", "SEQ again", "surrogate"} & set(t.columns) and t["k"].tolist() == [2, 2, 2, 1, 1, 1]


# ---- agreement -----------------------------------------------------------------------------------------------------------
def data_of_pairs(C=5, seed=0):
    members = np.array([[c in p for c in range(C)] for p in combinations(range(C), 2)], int)
    x, y = np.random.default_rng(seed).normal(size=(2, len(members)))
    return x + y + 9, y + 9, members

def test_intervals_are_those_of_mixtures_written_out_as_often_as_they_count():
    from scipy.stats import pearsonr, spearmanr
    x, y, members = data_of_pairs()
    drawn, r, rho = np.random.default_rng(3).multinomial(5, [.2] * 5, 60), [], []
    for counts in drawn:
        times = np.array([counts[np.flatnonzero(m)].prod() for m in members])
        if (times > 0).sum() >= 3:
            r.append(pearsonr(np.repeat(x, times), np.repeat(y, times))[0])
            rho.append(spearmanr(np.repeat(x, times), np.repeat(y, times))[0])
    a = agreement(x, y, members, level=.8, resamples=60, seed=3)
    assert 30 < len(r) < 60, "some resamples are left out"
    assert np.allclose([a["low"], a["high"]], np.quantile(r, [.1, .9])) and np.allclose([a["low_s"], a["high_s"]], np.quantile(rho, [.1, .9]))
    assert a["n"] == 10

def test_a_component_that_stands_twice_counts_twice():
    from mixlab.average import _resampled
    drawn = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, 20)
    members = np.array([[2, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]])
    want = np.stack((drawn[:, 0] ** 2, drawn[:, 0] * drawn[:, 1], drawn[:, 2], drawn[:, 0]), 1)
    assert np.array_equal(_resampled(members, 20, 0), want[(want > 0).sum(1) >= 3])

def test_level_resamples_and_seed_change_the_interval():
    x, y, members = data_of_pairs()
    half, most = (agreement(x, y, members, level=l, resamples=200) for l in (.5, .95))
    assert most["low"] < half["low"] < half["high"] < most["high"] and most["low_s"] < half["low_s"]
    assert agreement(x, y, members, resamples=200) == most and agreement(x, y, members, resamples=200, seed=1)["low"] != most["low"] != agreement(x, y, members, resamples=201)["low"]
    assert agreement(x, y, members) == agreement(x, y, members, level=.95, resamples=1999, seed=0)
    for wrong, said in ((dict(level=95), "0.95"), (dict(level=np.nan), "level"), (dict(resamples=0), "resamples"), (dict(resamples=2.5), "resamples"), (dict(seed=-1), "seed")):
        with pytest.raises(ValueError, match=said): agreement(x, y, members, **wrong)

def test_the_choice_is_the_proxys_best_and_pays_in_true_scores():
    a = agreement([5., 1, 2, 3], [4., 3, 2, 9], np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]]), resamples=50)
    assert a["rank"] == 2 and np.isclose(a["regret"], np.log(3 / 2)) and a["n"] == 4
    assert agreement([5., 1, 2, 3], [4., 0, 2, 9], np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]]), resamples=50)["regret"] is None

def test_scores_join_their_mixtures_by_name():
    x, y, members = data_of_pairs()
    index = [f"m{i}" for i in range(10)]
    x, y, members = pd.Series(x, index), pd.Series(y, index), pd.DataFrame(members, index, list("abcde"))
    want = agreement(x, y, members, resamples=50)
    assert agreement(x, y.iloc[::-1], members.iloc[::-1, ::-1], resamples=50) == want
    with pytest.raises(ValueError, match="different indexes"): agreement(x, y.rename({"m0": "q"}), members)

@pytest.mark.parametrize("members, said", [(np.eye(3) * .5, "whole numbers"), (-np.eye(3), "at least 0"), (np.zeros((3, 3)), "one above 0"), (np.eye(4), "x has 3 rows, members has 4"), ([[1, 1]] * 3, None)])
def test_members_that_are_none(members, said):
    if said is None: assert np.isfinite(agreement([1., 2, 3], [1., 3, 2], members, resamples=20)["low"])
    else:
        with pytest.raises(ValueError, match=said): agreement([1., 2, 3], [1., 3, 2], members, resamples=20)

def test_no_interval_is_said_and_not_made_up():
    with pytest.raises(ValueError, match="none keeps three mixtures"): agreement([1., 2, 3], [1., 3, 2], np.eye(3), resamples=1, seed=1)

def table_by_hand():
    rows = [("a + b", "a", "inside", 4., 8., .5), ("a + b", "b", "inside", 2., 6., .5), ("a + b", "out", "outside", 3., 1., 0), ("a + c", "a", "inside", 1., 3., .2), ("a + c", "c", "inside", 3., 3., .8),
            ("a + c", "out", "outside", 5., 2., 0), ("b + c", "b", "inside", 9., 2., .6), ("b + c", "c", "inside", 1., 2., .4), ("b + c", "out", "outside", 4., 4., 0), ("a + b + c", "out", "outside", 7., 3., 0),
            ("a + b + c", "a", "inside", 1., 1., .5), ("a + b + c", "b", "inside", 2., 3., .5), ("a + b + c", "c", "inside", 3., 5., .5)]
    t = pd.DataFrame(rows, columns=["mixture", "target", "where", "SEQ", "MERGED", "share"])
    return t.assign(**{"IND ID": np.where(t["where"] == "inside", t["SEQ"], np.nan)})

def test_scores_are_means_over_the_targets_in_question():
    t = table_by_hand()
    inside = scores(t, "inside")
    assert inside["SEQ"].to_dict() == {"a + b": 3, "a + c": 2, "b + c": 5, "a + b + c": 2} and inside["MERGED"].tolist() == [7, 3, 2, 3] and list(inside) == ["SEQ", "IND ID", "MERGED", "share"]
    assert scores(t)["SEQ"].tolist() == [3, 5, 4, 7] and "IND ID" not in scores(t) and scores(t)["MERGED"].tolist() == [1, 2, 4, 3]
    assert scores(t, "b")["SEQ"].to_dict() == {"a + b": 2, "b + c": 9, "a + b + c": 2}
    for wrong, said in ((t.drop(columns="SEQ"), "table"), (3, "table"), (t.assign(SEQ=np.nan), "nan"), (t.assign(MERGED="x"), "MERGED")):
        with pytest.raises(ValueError, match=said): scores(wrong)
    with pytest.raises(ValueError, match="on is 3"): scores(t, 3)

def test_agree_is_agreement_of_each_proxy_and_turns_the_share():
    t = table_by_hand()
    members = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    s, got = scores(t, "inside"), agree(t, "inside", level=.6, resamples=40, seed=2)
    for c, sign in (("IND ID", 1), ("MERGED", 1)): assert got.loc[c].to_dict() == agreement(sign * s[c], s["SEQ"], members, level=.6, resamples=40, seed=2)
    assert "share" not in got.index                                               # the same for all
    t["share"] = [.5, .5, 0, .2, .6, 0, .3, .3, 0, 0, .1, .1, .1]
    s, got = scores(t, "inside"), agree(t, "inside", resamples=40)
    assert got.loc["share"].to_dict() == agreement(-s["share"], s["SEQ"], members, resamples=40)
    assert set(agree(t, resamples=40).index) == {"MERGED"}
    with pytest.raises(ValueError, match="no proxy differs"): agree(t.assign(MERGED=1.))
    with pytest.raises(TypeError): agree(t, colour="red")

def test_figures_show_the_tables_numbers():
    t = table_by_hand()
    s, a = scores(t, "inside"), agree(t, "inside", resamples=40)
    ax = show_proxies(t, "inside", ["MERGED"])
    assert ax.lines[0].get_xdata().tolist() == s["MERGED"].tolist() and ax.lines[0].get_ydata().tolist() == s["SEQ"].tolist()
    assert [x.get_text() for x in show_proxies(t, "inside").get_legend().get_texts()] == ["IND ID  1.00", f"MERGED  {np.corrcoef(s['MERGED'], s['SEQ'])[0, 1]:.2f}"]
    ax = show_agreement({"one": a, "other": a.rename({"MERGED": "SEQ again"})})
    assert [x.get_text() for x in ax.get_yticklabels()] == ["IND ID", "MERGED"]
    assert ax.lines[0].get_xdata().tolist() == a["pearson"].tolist() and np.allclose(ax.lines[0].get_ydata(), [-.125, .875]) and len(ax.patches) == 1
    assert np.allclose([p[0] for p in ax.collections[0].get_segments()[1]], a.loc["MERGED", ["low", "high"]].astype(float))
    for wrong in ("MERGED", ["SEQ"], ["ensemble"], 3):
        with pytest.raises(ValueError, match="proxies"): show_proxies(t, "inside", wrong)
    for wrong in ({}, a, {"x": 3}):
        with pytest.raises(ValueError, match="tables"): show_agreement(wrong)
    with pytest.raises(ValueError, match="ax"): show_agreement({"one": a}, ax=3)
