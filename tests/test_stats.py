"Statistics under ties, bad input and hostile sizes; what they are worth is counted on the page."
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy import stats

from mixlab.stats import Estimate, bootstrap, correlation, interval_of_mean, noise_floor, paired_difference, show_intervals

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
