"Statistics under ties, bad input and hostile sizes; what they are worth is counted on the page."
import warnings

import numpy as np
import pandas as pd
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

@pytest.mark.parametrize("call, message", [
    (lambda: correlation([1, 2], [1, 2]), "x has 2 entries"), (lambda: correlation([1, 1, 1], [1, 2, 3]), "x is constant"),
    (lambda: correlation([1, 2, 3], [2, 2, 2]), "y is constant"), (lambda: correlation([1, np.nan, 3], [1, 2, 3]), r"x\[1\] is nan"),
    (lambda: correlation([1, 2, 3], [1, np.inf, 3]), r"y\[1\] is inf"), (lambda: correlation([1, 2, 3], [1, 2, 3, 4]), "x has 3 rows, y has 4"),
    (lambda: correlation(np.eye(3), np.eye(3)), r"x has shape \(3, 3\)"), (lambda: correlation([1, 2, 3], [1, 2, 3], "rho"), "expected one of 'pearson'"),
    (lambda: bootstrap(np.mean, [1.]), r"data\[0\] has 1 entries"), (lambda: bootstrap(np.mean, ([1., 2], [1., 2, 3])), r"data\[1\] has 3"),
    (lambda: noise_floor([1., 2], ["a", "b"]), "none of them repeated"), (lambda: noise_floor([1., 2], ["a"]), "groups is 1 labels, expected one label for each of 2"),
    (lambda: interval_of_mean([1.]), "expected at least 2"), (lambda: interval_of_mean([[1., np.nan], [1, 2]]), r"values\[0, 1\] is nan"),
    (lambda: paired_difference([1., 2], [1., 2, 3]), "a has 2 rows, b has 3")])
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
    (lambda: beside_baselines([1, 2, 3], [1, 3, 2], {"flat": [1, 1, 1]}), r"baselines\['flat'\] is constant"), (lambda: beside_baselines([1, 2, 3], [1, 3, 2], {"short": [1, 2]}), r"baselines\['short'\] has 2 entries"),
    (lambda: power(1, .1, 1.), "n is 1"), (lambda: power(5, .1, 0.), "noise is 0.0"), (lambda: power(5, np.nan, 1.), "effect is nan"), (lambda: power(5, .1, 1., correlation=1), "correlation is 1"),
    (lambda: power(5, .1, 1., tests=0), "tests is 0"), (lambda: power(5, .1, 1., level=5), "level is 5"), (lambda: power(5, .1, 1., distribution="f"), "expected one of 't', 'z'"), (lambda: power(5, .1, np.nan), "noise is nan"),
    (lambda: runs_needed(0., 1.), "more than a billion"), (lambda: runs_needed(.1, 1., 1.), "chance is 1.0"), (lambda: detectable_effect(9, 1., .01), "false alarms alone"), (lambda: detectable_effect(1, 1.), "n is 1"),
    (lambda: friedman([[1, 2], [2, 1]]), "for two: paired_difference"), (lambda: friedman(np.ones((4, 3))), "nothing to rank"), (lambda: friedman([[1, 2, np.nan]] * 3), r"scores\[0, 2\] is nan"),
    (lambda: friedman(X, ["a"]), r"names is \['a'\], expected 4 names"), (lambda: friedman(X[:1]), "expected at least 2"), (lambda: critical_difference(1, 9), "k is 1"), (lambda: critical_difference(3, 1), "n is 1"),
    (lambda: pareto([1, 2]), r"F has shape \(2,\)"), (lambda: pareto([[1, np.inf]]), r"F\[0, 1\] is inf"), (lambda: pareto([[1, 2]], (True,)), "larger has 1 directions for 2"),
    (lambda: fit_law([1, 2, 2, 1], [1, 2, 3, 4], lambda N: [1, N]), "2 different sizes for 2"), (lambda: fit_law([0, 1, 2], [1, 2, 3], lambda N: [1]), r"N\[0\] is 0"),
    (lambda: fit_law([1, 2, 3], [1, 2], lambda N: [1]), "N has 3 rows, y has 2"), (lambda: fit_law([1, 2, 3, 4], [1, 2, 3, 4], lambda N: [1, N, 2 * N]), "cannot be told apart"),
    (lambda: fit_law([1, 2, 3], [1, 2, 4], lambda N: [1])([-1]), r"N\[0\] is -1"),
    (lambda: sensitivity(lambda a, b: a, dict(a=(1, 1), b=(0, 1))), r"ranges\['a'\]"), (lambda: sensitivity(lambda a, b: a, dict(a=(0, 1), b=(0, 1)), n=100), "power of 2"), (lambda: sensitivity(lambda a, b: 0 * a, dict(a=(0, 1), b=(0, 1))), "does not vary"),
    (lambda: sensitivity(lambda a, b: a[:2], dict(a=(0, 1), b=(0, 1))), "as many finite numbers"), (lambda: sensitivity(lambda a, b: a / 0, dict(a=(0, 1), b=(0, 1))), "as many finite numbers")])
def test_designs_and_tables_that_are_none_are_refused(call, message):
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ValueError, match=message): call()


# ---- level, names, bounds: what was wrong in 0.1 ------------------------------------------------------------------------
LEVELS = {
    "correlation": lambda level: correlation([1, 2, 3, 5, 4], [1, 2, 3, 4, 5], level=level),
    "bootstrap": lambda level: bootstrap(np.mean, [1.0, 2, 4], level=level),
    "beside_baselines": lambda level: beside_baselines([1, 2, 3, 5, 4], [1, 2, 3, 4, 5], {"b": [2, 1, 3, 4, 5]}, level=level),
    "interval_of_mean": lambda level: interval_of_mean([1.0, 2, 4], level),
    "noise_floor": lambda level: noise_floor([1.0, 2], ["a", "a"], level),
    "paired_difference": lambda level: paired_difference([1.0, 2], [2.0, 5], level),
    "power": lambda level: power(5, 1.0, 1.0, level),
    "runs_needed": lambda level: runs_needed(1.0, 1.0, level=level),
    "detectable_effect": lambda level: detectable_effect(5, 1.0, level=level),
    "critical_difference": lambda level: critical_difference(3, 9, level),
    "friedman": lambda level: friedman(X, level=level),
    "fit_law": lambda level: fit_law([1, 2, 4], [1, 2, 2], lambda N: [1], level),
    "sensitivity": lambda level: sensitivity(lambda a, b: a + b, dict(a=(0, 1), b=(0, 1)), n=8, level=level),
}

@pytest.mark.parametrize("name", LEVELS)
def test_a_level_in_per_cent_is_refused_and_a_level_changes_the_answer(name):
    for wrong in (95, 0, 1, np.nan, True, "0.95", None):
        with pytest.raises(ValueError, match="level is"):
            LEVELS[name](wrong)
    with pytest.raises(ValueError, match="for 95 % give 0.95"):
        LEVELS[name](95)
    assert repr(LEVELS[name](0.5)) != repr(LEVELS[name](0.95))

TWO = {
    "correlation": (lambda a, b: correlation(a, b, resamples=99).value, 1.0),
    "beside_baselines": (lambda a, b: beside_baselines(a, b, {"b": np.arange(8.0) ** 2 % 7}, resamples=99)["x"].value, 1.0),
    "a baseline": (lambda a, b: beside_baselines(a, np.arange(8.0) ** 2 % 7, {"b": b}, resamples=99)["x - b"].value, 0.0),
    "paired_difference": (lambda a, b: paired_difference(a, b).value, 0.0),
    "bootstrap": (lambda a, b: bootstrap(lambda x, y: (x - y).mean() + x[0] * 0, (a, b), resamples=20).value, 0.0),
    "fit_law": (lambda a, b: fit_law(a + 1, b + 1, lambda N: [N]).coefficients.value[0], 1.0),
}

@pytest.mark.parametrize("name", TWO)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_series_are_joined_by_index(name):
    f, expected = TWO[name]
    a = pd.Series(np.arange(8.0), index=list("abcdefgh"))
    shuffled = a.sample(frac=1, random_state=1)
    assert not np.array_equal(a, shuffled)
    assert f(a, shuffled) == pytest.approx(expected)
    assert f(shuffled, a) == pytest.approx(expected) if name != "a baseline" else True
    with pytest.raises(ValueError, match="different indexes"):
        f(a, shuffled.rename({"a": "z"}))
    assert f(a.to_numpy(), shuffled.to_numpy()) != pytest.approx(expected) or name in ("paired_difference", "bootstrap"), "arrays: by position"

def test_groups_of_a_noise_floor_are_joined_by_index():
    values, groups = pd.Series([1.0, 1.2, 5.0, 5.4], index=list("abcd")), pd.Series(list("xxyy"), index=list("abcd"))
    expected = np.sqrt((0.1**2 * 2 + 0.2**2 * 2) / 2)
    assert noise_floor(values, groups.iloc[::-1]).value == pytest.approx(expected) == noise_floor(list(values), list(groups)).value
    assert noise_floor(values, [1, np.int64(1), 2, 2.0]).value == pytest.approx(expected)
    for wrong in (None, 3, "xxyy", [None] * 4, [np.nan] * 4, {"a": 1}, [[1], [1], [2], [2]]):
        with pytest.raises(ValueError, match="groups"):
            noise_floor(values, wrong)

def test_columns_name_the_treatments():
    table = pd.DataFrame(X, columns=list("abcd"))
    assert friedman(table).names == list("abcd") and friedman(X).names == [0, 1, 2, 3]
    assert friedman(table, "wxyz").names == list("wxyz")
    assert str(friedman(table)).startswith("mean ranks b 1.42, d 2.25, a 2.33, c 4.00")

def test_a_p_value_that_no_shuffle_reaches_is_an_upper_bound():
    e = correlation(np.arange(12.0), np.arange(12.0), "pearson", resamples=999)
    assert (e.p, e.p_is_bound) == (2 * (0 + 1) / (999 + 1), True) and "p ≤ 0.002" in repr(e)
    rest = correlation(np.arange(12.0), np.arange(12.0), "pearson")
    assert (rest.p, rest.p_is_bound) == (2 / 100_000, True) and "p ≤ 2e-5" in repr(rest)
    d = paired_difference(np.arange(1.0, 31), np.zeros(30), resamples=999)
    assert (d.p, d.p_is_bound) == (0.002, True)
    exact = correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert (exact.p, exact.p_is_bound) == (2 / 120, False) and "p = 0.017" in repr(exact)

def test_few_extreme_shuffles_call_for_more():
    "The paper of page 41: 2.67e-4 with two million shuffles (counted by another program); 9,999 alone would say 6e-4."
    sharp = [0.863371, 0.738706, 0.621985, 0.516221, 0.420971, 0.336012, 0.262053, 0.201046, 0.157171, 0.136929, 0.138944]
    sharp += [0.158434, 0.191701, 0.238026, 0.297934, 0.371927, 0.46003, 0.561893, 0.676854, 0.803965, 0.863580]
    u = np.random.default_rng(5).normal(size=21)
    v = -np.array(sharp) + 0.35 * u
    full, short = correlation(sharp, v), correlation(sharp, v, resamples=9999)
    t = stats.permutation_test((stats.rankdata(v),), lambda y, axis=-1: np.sum(stats.rankdata(sharp) * y, axis=axis),
                               permutation_type="pairings", vectorized=True, n_resamples=400_000, batch=50_000, rng=np.random.default_rng(9))
    assert 1e-5 < full.p < 2e-3 and full.p == pytest.approx(t.pvalue, rel=0.35) and not full.p_is_bound
    assert (short.low, short.high) == (full.low, full.high) and short.p != full.p

def test_all_orders_are_tried_where_they_are_fewer_than_the_shuffles():
    "n = 8: 40,320 orders; so few reach a correlation of 0.95 that all are counted."
    from itertools import permutations

    y = np.array([0.0, 1, 2, 3, 4, 6, 5, 7])
    every = np.array(list(permutations(range(8)))) @ np.arange(8)
    count = (every >= y @ np.arange(8)).sum()
    assert correlation(np.arange(8), y, resamples=None).p == pytest.approx(2 * count / 40_320)

def test_where_bca_is_undefined_the_estimate_says_so():
    grades = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4.0])
    raw = stats.bootstrap((grades,), np.median, method="percentile", n_resamples=999, rng=np.random.default_rng(0)).confidence_interval
    with pytest.warns(UserWarning, match="BCa is undefined: leaving out any one row changes nothing"):
        e = bootstrap(np.median, grades)
    assert (e.low, e.high) == pytest.approx((raw.low, raw.high)) and e.low == 2 < e.high and "BCa is undefined" in repr(e)
    with pytest.warns(UserWarning, match="1 of 2"):
        both = bootstrap(lambda r: np.r_[np.median(r), r.mean()], grades)
    assert both.low[0] == e.low and both.low[1] == pytest.approx(bootstrap(np.mean, grades).low)

def test_no_interval_without_width():
    e = bootstrap(np.median, [3.0] * 30 + [5.0])
    assert np.isnan([e.low, e.high]).all() and "(no interval: all resamples agree)" in repr(e) and e.value == 3
    for method in ("percentile", "basic"):
        assert np.isnan(bootstrap(np.median, [3.0] * 30 + [5.0], method=method).low)
    nearly = bootstrap(np.median, [3.0] * 9 + [5.0] * 4, method="percentile")
    assert np.isnan(nearly.low) and "nearly all" in nearly.note or nearly.high > nearly.low
    for flat in (interval_of_mean([2.0, 2.0, 2.0]), noise_floor([1.0, 1.0], "aa".split() * 2), paired_difference([3, 3], [2, 2])):
        assert flat.low == flat.high and "all values agree" in repr(flat)
    assert interval_of_mean([[1.0, 2], [1, 3]]).note.startswith("1 of 2")
    assert "no spread" in fit_law([1, 2, 3, 4], [2, 4, 6, 8], lambda N: [N]).coefficients.note

@pytest.mark.parametrize("call, message", [
    (lambda: bootstrap(lambda r: np.nan, [1.0, 2, 3]), "statistic returned nan for 3 rows"),
    (lambda: bootstrap(lambda r: np.log(np.ptp(r)), [1.0, 2, 3]), "statistic returned .*-inf"),
    (lambda: bootstrap(lambda r: np.unique(r), [1.0, 2, 3]), "expected a finite number"),
    (lambda: bootstrap(lambda r: "three", [1.0, 2, 3]), "what statistic returned"),
    (lambda: bootstrap("mean", [1.0, 2, 3]), "statistic is 'mean'"), (lambda: bootstrap(np.mean, [2.0, 2, 2]), "same values in every row"),
    (lambda: bootstrap(np.mean, [1.0, 2], method="t"), "method is 't'"), (lambda: bootstrap(np.mean, [1.0, 2], resamples=0), "resamples is 0"),
    (lambda: bootstrap(np.mean, [1.0, 2], resamples=10**9), "resamples is 1000000000"), (lambda: bootstrap(np.mean, ()), r"data is \(\)"),
    (lambda: correlation([1, 2, 3], [1, 3, 2], seed=-1), "seed is -1"), (lambda: correlation([1, 2, 3], [1, 3, 2], resamples=99.0), "resamples is 99.0"),
    (lambda: correlation(range(6000), range(6000), "kendall"), "at most 5000 for kind 'kendall'"),
    (lambda: beside_baselines([1, 2, 3], [1, 3, 2], {"x": [1, 2, 3]}), "'x' is the series itself"), (lambda: beside_baselines([1, 2, 3], [1, 3, 2], [1]), "baselines is"),
    (lambda: power(2.5, 1.0, 1.0), "n is 2.5"), (lambda: power([2, 3], [1.0, 2, 3], 1.0), "one shape"), (lambda: runs_needed([1, 2], 1.0), "effect is"),
    (lambda: runs_needed(1.0, 1.0, test=3), "test"), (lambda: fit_law([1, 2, 3], [1, 2, 4], lambda N: [np.ones(2)]), r"terms returned shape \(2,\)"),
    (lambda: fit_law([1, 2, 3], [1, 2, 4], lambda N: 1), "terms returned 1"), (lambda: sensitivity(lambda a: a, dict(b=(0, 1), a=(0, 1))), "f cannot be called with b, a"), (lambda: sensitivity(lambda a: a, dict(a=(0, 1))), "at least two names"),
    (lambda: pareto([[1, 2]], larger=1), "larger is 1"), (lambda: show_intervals({"a": 1.0}), r"estimates\['a'\]"), (lambda: show_critical_difference("x"), "ranking is 'x'")])
def test_what_is_no_statistic_is_refused(call, message):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, TypeError), match=message):
            call()


# ---- every option, every interval: values from outside --------------------------------------------------------------------
def test_students_interval_and_the_pooled_noise_by_hand():
    "t(.975; 4) = 2.776445, s = sqrt(2.5); chi-squared with 3 degrees of freedom: .215795 and 9.348404."
    e = interval_of_mean([1.0, 2, 3, 4, 5])
    assert (e.low, e.high) == pytest.approx((1.036757, 4.963243), abs=1e-6) and (e.value, e.n) == (3, 5)
    n = noise_floor([1.0, 3.0, 10, 13, 16, 99], ["a", "a", "b", "b", "b", "c"])
    assert n.value == pytest.approx(np.sqrt((2 + 18) / 3)) and n.n == 3
    assert (n.low, n.high) == pytest.approx((np.sqrt(20 / 9.348404), np.sqrt(20 / 0.215795)), rel=1e-5)

def test_means_and_laws_equal_the_installed_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    from statsmodels.stats.weightstats import DescrStatsW

    rng = np.random.default_rng(0)
    x = rng.normal(size=7)
    e = interval_of_mean(x, level=0.8)
    assert (e.low, e.high) == pytest.approx(DescrStatsW(x).tconfint_mean(alpha=0.2))
    N = rng.uniform(1, 9, size=9)
    y = 2 - 0.3 * np.log(N) + 0.1 * rng.normal(size=9)
    law = fit_law(N, y, lambda N: [1, np.log(N)], level=0.8)
    theirs = sm.OLS(y, np.c_[np.ones(9), np.log(N)]).fit()
    assert np.allclose(np.c_[law.coefficients.low, law.coefficients.high], theirs.conf_int(alpha=0.2))
    assert law.residual == pytest.approx(np.sqrt(theirs.mse_resid)) and np.allclose(law.covariance, theirs.cov_params())
    at = np.linspace(N.min(), N.max(), 4)
    there = theirs.get_prediction(np.c_[np.ones(4), np.log(at)]).summary_frame(alpha=0.2)
    assert np.allclose(np.c_[law(at).low, law(at).high], there[["mean_ci_lower", "mean_ci_upper"]])
    assert law.condition == pytest.approx(np.linalg.cond(np.c_[np.ones(9) / 3, np.log(N) / np.linalg.norm(np.log(N))]))

def test_intervals_of_correlations_are_scipys():
    x, y = np.random.default_rng(1).normal(size=(2, 15)) + np.linspace(0, 2, 15)
    for kind, f in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        theirs = stats.bootstrap((x, y), lambda a, b: f(a, b).statistic, paired=True, vectorized=False, n_resamples=199,
                                 confidence_level=0.9, rng=np.random.default_rng(3)).confidence_interval
        e = correlation(x, y, kind, level=0.9, resamples=199, seed=3)
        assert (e.low, e.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9) and e.level == 0.9 and e.n == 15
    other = correlation(x, y, level=0.9, resamples=199, seed=4)
    assert other.low != correlation(x, y, level=0.9, resamples=199, seed=3).low and other.value == correlation(x, y, resamples=99).value

def test_the_difference_of_two_correlations_is_of_their_strengths():
    rng = np.random.default_rng(2)
    y = rng.normal(size=25)
    x, b = y + 0.2 * rng.normal(size=25), -y + rng.normal(size=25)
    found = beside_baselines(x, y, {"b": b}, "pearson", level=0.8, resamples=199, seed=5)
    strength = lambda v, w: abs(stats.pearsonr(v, w).statistic)
    assert found["x - b"].value == pytest.approx(strength(x, y) - strength(b, y)) and found["b"].value < 0
    theirs = stats.bootstrap((x, b, y), lambda u, v, w: strength(u, w) - strength(v, w), paired=True, vectorized=False, n_resamples=199,
                             confidence_level=0.8, rng=np.random.default_rng(5)).confidence_interval
    assert (found["x - b"].low, found["x - b"].high) == pytest.approx((theirs.low, theirs.high))
    spearman = beside_baselines(x, y, {"b": b}, "spearman", level=0.8, resamples=199, seed=5)
    assert spearman["x"].value == pytest.approx(stats.spearmanr(x, y).statistic) and spearman["x - b"].value != found["x - b"].value

def test_basic_mirrors_percentile_and_a_level_is_a_coverage():
    x = np.random.default_rng(0).exponential(size=30)
    a, b = (bootstrap(np.mean, x, method=m) for m in ("percentile", "basic"))
    assert (b.low, b.high) == pytest.approx((2 * x.mean() - a.high, 2 * x.mean() - a.low))
    x = np.random.default_rng(0).normal(size=60)
    half, most = (bootstrap(np.mean, x, level=level, resamples=1999) for level in (0.5, 0.95))
    assert (half.high - half.low) / (most.high - most.low) == pytest.approx(0.6745 / 1.95996, rel=0.15)
    assert bootstrap(np.mean, x, seed=1).low != bootstrap(np.mean, x, seed=2).low
    assert half.n == 60 and half.name == "mean" and bootstrap(lambda r: r.mean(), x).name == "statistic"

def test_sign_flips_by_hand():
    "Of the 16 sign patterns of 1, 2, 3, -4, those with a sum of at least 2: fourteen ways to count, seven with a sum >= 2."
    d = np.array([1.0, 2, 3, -4])
    sums = np.array([[a, b, c, e] for a in (1, -1) for b in (1, -1) for c in (1, -1) for e in (1, -1)]) @ np.abs(d)
    e = paired_difference(d + 7, np.full(4, 7.0))
    assert e.p == pytest.approx(min(1, 2 * (sums >= d.sum()).mean())) and e.value == 0.5
    t = stats.ttest_rel(d + 7, np.full(4, 7.0)).confidence_interval(0.95)
    assert (e.low, e.high) == pytest.approx((t.low, t.high))
    long = np.random.default_rng(0).normal(size=25)
    assert paired_difference(long, 0 * long, seed=1, resamples=99).p != paired_difference(long, 0 * long, seed=2, resamples=99).p

DEMSAR = {2: (1.960, 1.645), 3: (2.343, 2.052), 4: (2.569, 2.291), 5: (2.728, 2.459), 10: (3.164, 2.920)}  # his Table 5(a): q at 5 % and 10 %

@pytest.mark.parametrize("k", DEMSAR)
def test_critical_differences_of_demsars_table(k):
    for q, level in zip(DEMSAR[k], (0.95, 0.9)):
        assert critical_difference(k, 14, level) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=1e-3 * np.sqrt(k * (k + 1) / 84))

def test_directions_of_ranks_and_fronts():
    assert friedman([[1, 2, 3], [1, 3, 2]]).ranks.tolist() == [1, 2.5, 2.5]
    assert friedman([[1, 2, 3], [1, 3, 2]], larger=True).ranks.tolist() == [3, 1.5, 1.5]
    assert pareto([[1, 1], [2, 2]]).tolist() == [False, True] and pareto([[1, 1], [2, 2]], larger=False).tolist() == [True, False]

def test_every_design_of_a_power_counts():
    base = power(9, 1.0, 1.0)
    for design in (dict(level=0.9), dict(tests=2), dict(correlation=0.5), dict(distribution="z")):
        assert abs(power(9, 1.0, 1.0, **design) - base) > 0.01
        assert runs_needed(0.3, 1.0, **design) != runs_needed(0.3, 1.0) and detectable_effect(9, 1.0, **design) != detectable_effect(9, 1.0)
    assert power(9, -1.0, 1.0) == base and power(9, 1.0, 2.0) == pytest.approx(power(9, 0.5, 1.0))
    assert runs_needed(0.3, 1.0, chance=0.9) > runs_needed(0.3, 1.0) and detectable_effect(9, 1.0, chance=0.9) > detectable_effect(9, 1.0)
    z = stats.norm.ppf(0.975)
    assert power(9, 1.0, 1.0, distribution="z") == pytest.approx(stats.norm.sf(z - 1 / np.sqrt(2 / 9)) + stats.norm.cdf(-z - 1 / np.sqrt(2 / 9)))
    assert np.allclose(power([5, 9], 1.0, 1.0), [power(5, 1.0, 1.0), base])

def test_shares_of_variance_of_a_sum_and_of_a_product():
    "a + 2b: 1/5 and 4/5. (a - 1/2)(b - 1/2): nothing alone, all together. Narrower where less is claimed."
    s = sensitivity(lambda a, b: a + 2 * b, dict(a=(0, 1), b=(0, 1)))
    assert s["first"]["a"].value == pytest.approx(0.2, abs=0.01) and s["total"]["b"].value == pytest.approx(0.8, abs=0.01)
    s = sensitivity(lambda a, b: a * b, dict(a=(-1, 1), b=stats.uniform(-1, 2)))
    assert abs(s["first"]["a"].value) < 0.05 and s["total"]["a"].value == pytest.approx(1, abs=0.05)
    narrow, wide = (sensitivity(lambda x, y: x + y, dict(x=(0, 1), y=(0, 1)), n=256, level=level)["first"]["x"] for level in (0.5, 0.95))
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low) and narrow.n == 256
    one, two = (sensitivity(lambda x, y: x + y, dict(x=(0, 1), y=(0, 1)), n=64, seed=seed)["first"]["x"].value for seed in (1, 2))
    assert one != two

def test_intervals_widen_with_the_level():
    x, y = np.random.default_rng(1).normal(size=(2, 30))
    narrow, wide = (correlation(x, y, level=level, resamples=999) for level in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert "50%" in repr(narrow) and "99.5%" in repr(interval_of_mean([1.0, 2], 0.995))
    assert 0 in Estimate(0.0, -1.0, 1.0, 3) and 2 not in Estimate(0.0, -1.0, 1.0, 3) and -2 not in Estimate(0.0, -1.0, 1.0, 3)

def test_shares_of_variance_are_scipys_and_depend_on_the_seed_alone():
    f = lambda x, y: np.sin(x) + y**2 + x * y
    ranges = dict(x=(0, 2), y=stats.norm(0.5, 0.3))
    one, again = (sensitivity(f, ranges, n=128, level=0.8, seed=4) for _ in range(2))
    theirs = stats.sobol_indices(func=lambda rows: f(*rows), n=128, dists=[stats.uniform(0, 2), stats.norm(0.5, 0.3)], rng=np.random.default_rng(4))
    wide = theirs.bootstrap(confidence_level=0.8)
    for kind, value, interval in (("first", theirs.first_order, wide.first_order), ("total", theirs.total_order, wide.total_order)):
        for i, name in enumerate("xy"):
            e = one[kind][name]
            assert e.value == pytest.approx(value[i]) and repr(e) == repr(again[kind][name])
            width = interval.confidence_interval.high[i] - interval.confidence_interval.low[i]
            assert e.high - e.low == pytest.approx(width, rel=0.2) and e.low == pytest.approx(interval.confidence_interval.low[i], abs=0.2 * width)
