"Parameter averaging: properties, and what is refused."
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mixlab.average import (BaseUnits, QuadraticSurrogate, agree, agreement, barrier, continued, cost, ensemble_losses, merge, merge_losses,
                            midpoint_gap, probabilities, scores, singles_and_pairs, study)
from mixlab.corpus import from_documents
from mixlab.runs import RunStore, sweep
from mixlab.train import losses, restore, train

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
