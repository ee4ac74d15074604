"Statistics under ties, bad input and hostile sizes; what they are worth is counted on the page."
import time

import numpy as np
import pytest
from hypothesis import assume, example, given, settings, strategies as st
from scipy import stats

from mixlab.stats import (Estimate, beside_baselines, bootstrap, correlation, critical_difference, detectable_effect, fit_law, friedman, interval_of_mean, noise_floor,
                          paired_difference, pareto, power, runs_needed, sensitivity, show_critical_difference, show_intervals)

few = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=25) # full of ties

@settings(max_examples=40, deadline=None)
@given(few, st.sampled_from([("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)]))
def test_correlations_equal_scipys_with_ties(pairs, kind):
    x, y = np.array(pairs, float).T
    assume(np.ptp(x) and np.ptp(y))
    e = correlation(x, y, kind[0], resamples=99)
    assert e.value == pytest.approx(kind[1](x, y).statistic, abs=1e-12) and 0 < e.p <= 1
    assert np.isnan(e.low) or -1 - 1e-12 <= e.low <= e.high <= 1 + 1e-12
    back = correlation(-x, y, kind[0], resamples=99)
    assert back.value == pytest.approx(-e.value, abs=1e-12)

@pytest.mark.parametrize("kind", ["pearson", "spearman", "kendall"])
def test_a_seed_gives_one_answer_and_ranks_ignore_monotone_changes(kind):
    x, y = np.random.default_rng(1).normal(size=(2, 20))
    a, b = correlation(x, y, kind, resamples=499), correlation(x, y, kind, resamples=499)
    assert (a.value, a.low, a.high, a.p) == (b.value, b.low, b.high, b.p)
    c = correlation(np.exp(x), y, kind, resamples=499)
    assert (c.low == pytest.approx(a.low) and c.p == a.p) == (kind != "pearson")

def test_ten_thousand_shuffles_of_512_ranks_are_quick():
    x, y = np.random.default_rng(0).normal(size=(2, 512))
    begin = time.process_time()
    correlation(x, y, resamples=9999)
    assert time.process_time() - begin < 10, "interval and shuffles of 512 pairs take about 2 CPU seconds"

@pytest.mark.parametrize("call, message", [
    (lambda: correlation([1, 2], [1, 2]), "x has 2 values"), (lambda: correlation([1, 1, 1], [1, 2, 3]), "x is constant"),
    (lambda: correlation([1, 2, 3], [2, 2, 2]), "y is constant"), (lambda: correlation([1, np.nan, 3], [1, 2, 3]), r"x\[1\] is nan"),
    (lambda: correlation([1, 2, 3], [1, np.inf, 3]), r"y\[1\] is inf"), (lambda: correlation([1, 2, 3], [1, 2, 3, 4]), r"\(3,\) and y \(4,\)"),
    (lambda: correlation(np.eye(3), np.eye(3)), r"expected \(n,\)"), (lambda: correlation([1, 2, 3], [1, 2, 3], "rho"), "expected one of pearson"),
    (lambda: bootstrap(np.mean, [1.]), r"data\[0\] has 1 values"), (lambda: bootstrap(np.mean, ([1., 2], [1., 2, 3])), "has 3 rows"),
    (lambda: noise_floor([1., 2], ["a", "b"]), "none of them repeated"), (lambda: noise_floor([1., 2], ["a"]), "2 values for 1 groups"),
    (lambda: interval_of_mean([1.]), "expected at least 2"), (lambda: interval_of_mean([[1., np.nan], [1, 2]]), r"values\[0, 1\] is nan"),
    (lambda: paired_difference([1., 2], [1., 2, 3]), "shape")])
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_no_interval_is_said_and_not_drawn_as_certainty():
    e = correlation([1, 2, 3, 4], [1, 2, 3, 4])
    assert np.isnan(e.low) and 1 not in e and "no interval" in repr(e)
    assert len(show_intervals({"perfect": e}).lines) >= 1

def test_bootstrap_of_arrays_is_each_number_on_its_own():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    both = bootstrap(lambda r: r.mean(0), rows)
    for j in range(3):
        one = bootstrap(lambda r: r[:, j].mean(), rows)
        assert both.low[j] == pytest.approx(one.low) and both.high[j] == pytest.approx(one.high)
    scipys = stats.bootstrap((rows[:, 0],), np.mean, n_resamples=999, rng=np.random.default_rng(0)).confidence_interval
    assert one.n == 40 and both.low[0] == pytest.approx(scipys.low) and both.high[0] == pytest.approx(scipys.high)

def test_noise_of_many_columns_is_each_column_on_its_own():
    rng = np.random.default_rng(0)
    groups = np.array(["a", "a", "a", "b", "b", "b", "alone"])
    V = rng.normal(size=(7, 5)) + rng.normal(size=3)[[0, 0, 0, 1, 1, 1, 2]][:, None] * 100
    many = noise_floor(V, groups)
    assert many.n == 4 and np.allclose(many.value, [noise_floor(V[:, t], groups).value for t in range(5)]) and (many.value < 5).all()


# ---- power, ranks, fronts, laws: numbers that other libraries gave -----------------------------------------------------
delta = 0.00416969357480898 # C(0.5) - C(0.6) of page 41's formulas; noise 0.015

@pytest.mark.parametrize("design, n", [(dict(distribution="z"), 204), ({}, 205), (dict(distribution="z", correlation=.5), 102), (dict(distribution="z", correlation=.8), 41),
                                       (dict(correlation=.5), 104), (dict(distribution="z", tests=10), 345), (dict(distribution="z", tests=55), 448)])
def test_runs_needed_are_the_golden_numbers(design, n):
    assert runs_needed(delta, .015, **design) == n
    assert power(n - 1, delta, .015, **design) < .8 <= power(n, delta, .015, **design)
    assert detectable_effect(n, .015, **design) <= delta < detectable_effect(n - 1, .015, **design)

# statsmodels 0.15.0: TTestIndPower and TTestPower (a paired design with correlation 0.5 has differences as noisy as one run)
STATSMODELS_POWER = {(.5, 8, 1): (.15404750233609266, .23207700463899142), (.5, 64, 1): (.8014595579222542, .9760555768876558),
                     (1., 5, 1): (.28629549338059757, .4013899173717948), (.5, 64, 10): (.4909081365846184, .8570380301274856)}

def test_power_equals_statsmodels():
    assert power(208, delta, .015) == pytest.approx(.807386, abs=1e-6)
    for (effect, n, tests), (own, paired) in STATSMODELS_POWER.items():
        assert power(n, effect, 1., tests=tests) == pytest.approx(own, abs=1e-10)
        assert power(n, effect, 1., tests=tests, correlation=.5) == pytest.approx(paired, abs=1e-10)

def test_power_equals_the_installed_statsmodels():
    smp = pytest.importorskip("statsmodels.stats.power")
    for n in (3, 20, 208): assert power(n, .3, 1.) == pytest.approx(smp.TTestIndPower().power(.3, n, .05), abs=1e-10)

@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5000), st.floats(0, 1e3), st.floats(1e-6, 1e3), st.integers(1, 100), st.sampled_from([None, -1, 0, .5, .99]))
@example(101, 1., 1., 12, None) # SciPy's noncentral t gives NaN for 1e-20 here, and statsmodels with it
def test_power_is_a_chance_at_every_size(n, effect, noise, tests, correlation):
    p = power(n, effect, noise, tests=tests, correlation=correlation)
    assert .05 / tests - 1e-9 <= p <= 1 + 1e-12 and power(n + 1, effect, noise, tests=tests, correlation=correlation) >= p - 1e-9

X = np.array([[3.21, 3.15, 3.30, 3.18], [2.90, 2.88, 2.97, 2.91], [4.10, 4.02, 4.15, 4.02], [1.75, 1.71, 1.80, 1.78], [2.20, 2.25, 2.31, 2.22], [3.60, 3.49, 3.71, 3.58]])
POSTHOCS_NEMENYI = [.60780871, .1135811, .99950038, .00296944, .67838769, .08746639] # scikit-posthocs 0.17.1: posthoc_nemenyi_friedman(X), above the diagonal

def test_nemenyi_equals_scikit_posthocs():
    r = friedman(X, "abcd")
    assert np.allclose(r.pairs[np.triu_indices(4, 1)], POSTHOCS_NEMENYI, atol=1e-8) and np.allclose(r.pairs, r.pairs.T) and r.p == stats.friedmanchisquare(*X.T).pvalue
    assert np.allclose(friedman(-X, larger=True).pairs, r.pairs) and np.allclose(friedman(np.exp(X)).ranks, r.ranks)
    assert critical_difference(11, 12) == pytest.approx(4.358078, abs=1e-6) and critical_difference(11, 208) == pytest.approx(1.046776, abs=1e-6)

def test_nemenyi_equals_the_installed_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    V = np.random.default_rng(0).normal(size=(12, 11))
    assert np.allclose(friedman(V).pairs, posthocs.posthoc_nemenyi_friedman(V), atol=1e-8)

def test_groups_join_exactly_what_is_closer_than_the_critical_difference():
    for seed in range(30):
        r = friedman(np.arange(7) * .4 + np.random.default_rng(seed).normal(size=(10, 7)))
        joined = {frozenset((i, j)) for g in r.groups for i in g for j in g if i != j}
        assert joined == {frozenset((i, j)) for i in range(7) for j in range(i) if abs(r.ranks[i] - r.ranks[j]) <= r.critical_difference}
    assert len(show_critical_difference(r).texts) >= 7

FRONT = [3, 19, 20, 22, 25, 38], [25] # moocore 0.3.2: is_nondominated(..., keep_weakly=True), all larger; larger, smaller, larger

def test_pareto_equals_moocore_and_the_definition():
    F = np.random.default_rng(0).integers(0, 6, size=(40, 3)).astype(float) # many ties
    assert np.flatnonzero(pareto(F)).tolist() == FRONT[0] and np.flatnonzero(pareto(F, (True, False, True))).tolist() == FRONT[1]
    for d in range(1, 5):
        F = np.random.default_rng(d).integers(0, 4, size=(60, d))
        assert pareto(F).tolist() == [not any((g >= f).all() and (g > f).any() for g in F) for f in F]

def test_pareto_equals_the_installed_moocore():
    moocore = pytest.importorskip("moocore")
    F = np.random.default_rng(1).normal(size=(500, 4))
    assert (pareto(F) == moocore.is_nondominated(F, maximise=True, keep_weakly=True)).all()

def test_a_law_equals_statsmodels():
    N, y = np.array([.4, .7, 1., 2., 4., 7.]), np.array([.512, .548, .561, .577, .570, .559])
    law = fit_law(N, y, lambda N: [1, np.log(N), N**-.5]) # statsmodels 0.15.0: OLS(...).fit(), conf_int(), get_prediction()
    assert np.allclose(law.coefficients.value, [.7465262, -.06056802, -.18380339], atol=1e-7) and law.residual == pytest.approx(.0018138844496487898)
    assert np.allclose(law.coefficients.low, [.71530153, -.07259863, -.21257167], atol=1e-7) and np.allclose(law.coefficients.high, [.77775087, -.04853741, -.15503511], atol=1e-7)
    with pytest.warns(UserWarning, match="1.9 times beyond"): e = law([1., 13])
    assert np.allclose(e.value, [.56272281, .5401944], atol=1e-7) and np.allclose(e.low, [.55922169, .53118263], atol=1e-7) and np.allclose(e.high, [.56622393, .54920617], atol=1e-7)

def test_a_law_is_silent_inside_its_sizes():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_law([1, 2, 4, 8], [1, 2, 3, 4.1], lambda N: [1, np.log(N)])([1, 3, 8])

def test_sensitivity_of_the_ishigami_function():
    "Closed form (Ishigami and Homma 1990): a = 7, b = 0.1."
    u = stats.uniform(-np.pi, 2 * np.pi)
    s = sensitivity(lambda x, y, z: np.sin(x) + 7 * np.sin(y)**2 + .1 * z**4 * np.sin(x), dict(x=u, y=(-np.pi, np.pi), z=u), n=4096)
    for kind, truth in (("first", [.3139, .4424, 0]), ("total", [.5576, .4424, .2437])):
        assert np.allclose([s[kind][k].value for k in "xyz"], truth, atol=.02) and all(t in s[kind][k] or abs(s[kind][k].value - t) < .005 for k, t in zip("xyz", truth))

def test_a_baseline_is_correlated_as_it_would_be_alone():
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    found = beside_baselines(x, y, {"same": x, "minus": -x, "other": y + x}, resamples=499)
    alone = correlation(y + x, y, resamples=499)
    assert (found["other"].value, found["other"].low, found["other"].p) == (alone.value, alone.low, alone.p)
    assert found["x - same"].value == found["x - minus"].value == 0 and found["x - other"].value == pytest.approx(abs(found["x"].value) - alone.value)

@pytest.mark.parametrize("call, message", [
    (lambda: beside_baselines([1, 2, 3], [1, 3, 2], {"flat": [1, 1, 1]}), "baseline 'flat': x is constant"), (lambda: beside_baselines([1, 2, 3], [1, 3, 2], {"short": [1, 2]}), "baseline 'short': x has 2 values"),
    (lambda: power(1, .1, 1.), "n is 1"), (lambda: power(5, .1, 0.), "noise is 0.0"), (lambda: power(5, np.nan, 1.), "effect is nan"), (lambda: power(5, .1, 1., correlation=1), "correlation is 1"),
    (lambda: power(5, .1, 1., tests=0), "tests is 0"), (lambda: power(5, .1, 1., level=5), "level is 5"), (lambda: power(5, .1, 1., distribution="f"), "expected 't' or 'z'"), (lambda: power(5, .1, np.nan), "noise is nan"),
    (lambda: runs_needed(0., 1.), "more than a billion"), (lambda: runs_needed(.1, 1., 1.), "chance is 1.0"), (lambda: detectable_effect(9, 1., .01), "false alarms alone"), (lambda: detectable_effect(1, 1.), "n is 1"),
    (lambda: friedman([[1, 2], [2, 1]]), "for two: paired_difference"), (lambda: friedman(np.ones((4, 3))), "nothing to rank"), (lambda: friedman([[1, 2, np.nan]] * 3), r"scores\[0, 2\] is nan"),
    (lambda: friedman(X, ["a"]), "1 names for 4 treatments"), (lambda: friedman(X[:1]), "expected at least 2"), (lambda: critical_difference(1, 9), "at least two"),
    (lambda: pareto([1, 2]), "expected \\(candidates, objectives\\)"), (lambda: pareto([[1, np.inf]]), r"F\[0, 1\] is inf"), (lambda: pareto([[1, 2]], (True,)), "1 directions for 2"),
    (lambda: fit_law([1, 2, 2, 1], [1, 2, 3, 4], lambda N: [1, N]), "2 different sizes for 2"), (lambda: fit_law([0, 1, 2], [1, 2, 3], lambda N: [1]), r"N\[0\] is 0"),
    (lambda: fit_law([1, 2, 3], [1, 2], lambda N: [1]), "shape"), (lambda: fit_law([1, 2, 3, 4], [1, 2, 3, 4], lambda N: [1, N, 2 * N]), "cannot be told apart"),
    (lambda: fit_law([1, 2, 3], [1, 2, 4], lambda N: [1])([-1]), r"N\[0\] is -1"),
    (lambda: sensitivity(lambda a: a, dict(a=(1, 1))), "range of 'a'"), (lambda: sensitivity(lambda a: a, dict(a=(0, 1)), n=100), "power of 2"), (lambda: sensitivity(lambda a: 0 * a, dict(a=(0, 1))), "does not vary"),
    (lambda: sensitivity(lambda a: a[:2], dict(a=(0, 1))), "as many finite numbers"), (lambda: sensitivity(lambda a: a / 0, dict(a=(0, 1))), "as many finite numbers")])
def test_designs_and_tables_that_are_none_are_refused(call, message):
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ValueError, match=message): call()
