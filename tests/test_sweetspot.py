"Golden numbers of the paper's formulas, properties of its optima, bad input; the audit itself is on the page."
import json, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import kendalltau, pearsonr, spearmanr

from mixlab.stats import correlation
from mixlab.sweetspot import (alignment, best_ratio, combined_sharpness, correspondence, dumb_bowls, front, general_sharpness, implied_weight, measured_correspondence, peak, peak_width,
                              protocol, published, retention, robustness, scale_law, score, special_sharpness, specialisation, summary, weight_prior, weight_sensitivity)

GOLDEN = json.loads((Path(__file__).parent / "fixtures/sweetspot_golden.json").read_text()) # six digits, λ = 0.3, s0 = 1
FORMULAS = {"S_gen": general_sharpness, "S_spec": special_sharpness, "S_comb": combined_sharpness, "G": retention, "S": specialisation, "C": score}
near = lambda x: pytest.approx(x, abs=1e-6)

@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_give_the_golden_values(name):
    assert len(GOLDEN[name]) >= 6
    for r, value in GOLDEN[name].items(): assert FORMULAS[name](float(r)) == near(value), r
    many = np.array([float(r) for r in GOLDEN[name]])
    assert np.allclose(FORMULAS[name](many), list(GOLDEN[name].values()), atol=1e-6)

def test_optima_and_weights_give_the_golden_values():
    a = alignment()
    assert (a["r_S"], a["sharpness there"]) == near(tuple(GOLDEN["r_S"])) and (a["r_C"], a["score there"]) == near(tuple(GOLDEN["r_C"]))
    assert best_ratio(specialisation) == near(tuple(GOLDEN["argmax_S"]))
    for w, (r, value) in GOLDEN["table2"].items(): assert [float(x) for x in weight_sensitivity(float(w))] == near([r, value])
    assert implied_weight(.6) == near(.572911)
    assert best_ratio(lambda r: -combined_sharpness(r, lam=0))[0] == near(.465888) and best_ratio(lambda r: -general_sharpness(r))[0] == near(.743158)
    assert best_ratio(lambda r: -combined_sharpness(r, powers=(2, 2.5)))[0] == pytest.approx(.5330, abs=1e-4)

def test_the_correlations_give_the_golden_values():
    c, noise = correspondence(), np.random.RandomState(42).normal(0, .01, 21)
    assert np.allclose(noise[:3], GOLDEN["noise_seed42_first3"], atol=1e-6) and np.allclose(c["score"], score(c["r"]) + noise)
    for name, f in (("spearman", spearmanr), ("pearson", pearsonr), ("kendall", kendalltau)):
        value, p = GOLDEN["corr_seed42_RandomState"][name]
        assert (f(c["sharpness"], c["score"]).statistic, f(c["sharpness"], c["score"]).pvalue) == near((value, p))
        assert correlation(c["sharpness"], c["score"], name, resamples=99).value == near(value)
    clean = correspondence(noise=0)
    for name, f in (("spearman", spearmanr), ("pearson", pearsonr)): assert f(clean["sharpness"], clean["score"]).statistic == near(GOLDEN["corr_noise_free"][name])
    newer = score(c["r"]) + np.random.default_rng(42).normal(0, .01, 21)
    assert (spearmanr(c["sharpness"], newer).statistic, pearsonr(c["sharpness"], newer).statistic) == near((-.836364, -.814959))
    assert spearmanr((c["r"] - .4)**2, c["score"]).statistic == pytest.approx(-.788, abs=5e-4)

def test_the_law_of_scale_gives_the_golden_values():
    for N, value in GOLDEN["scaling"].items(): assert scale_law(float(N)) == near(value)
    N = np.linspace(2, 2.3, 300_001)
    assert N[scale_law(N).argmax()] == near(2.120345) and scale_law(2.120345) == near(.574160)

def test_the_weight_from_which_only_general_text_is_best():
    "In closed form: C'(1) = 0. (At 0.635323 the best ratio passes 0.999.)"
    logistic = lambda z: 1 / (1 + np.exp(-z))
    dG = .37 * 4 * logistic(2.4) * (1 - logistic(2.4)) - 2 * .015 * .25
    dS = -.40 * 4.5 * logistic(2.025) * (1 - logistic(2.025)) + .72 * np.exp(-6)
    edge = -dS / (dG - dS)
    assert edge == near(.635422)
    below, above = weight_sensitivity([edge - 1e-5, edge + 1e-5])[0]
    assert .9998 < below < 1 == above and weight_sensitivity(.635323)[0] == pytest.approx(.999, abs=1e-5)

def test_the_table_of_verdicts():
    t = published()
    assert t.verdict.value_counts().to_dict() == {"reproduces": 21, "does not hold": 10, "cannot be checked": 8, "does not reproduce": 7, "holds": 2, "only within rounding": 1}
    wrong = t[t.verdict == "does not reproduce"].index.get_level_values("what")
    assert list(wrong) == ["best ratio at w_g = 0.4", "its score at w_g = 0.4", "best ratio at w_g = 0.6", "its score at w_g = 0.6", "its score at w_g = 0.7", "seeds for each ratio", "runs"]
    assert t.computed.drop(("web page", "half-width of the 95 % interval at 13 billion")).notna().all()
    assert t.computed[("Section 3.8", "seeds for each ratio")] == 204 and t.computed[("Section 3.8", "effect between 0.5 and 0.6")] == near(.004170)

def test_the_protocol_gives_the_golden_numbers():
    t = protocol(float(score(.5) - score(.6)))["seeds for each ratio"]
    assert t["one pair, noise known (z)"] == 204 and t["one pair (t)"] == 205 and t["one pair, same seeds"] == 104
    for seeds, low, high in ((10, .362, .482), (20, .378, .466), (208, .412, .440)): # found before by another program, its own draws
        e = peak_width(seeds, .015)
        assert (e.low, e.high) == pytest.approx((low, high), abs=.015)
    assert (protocol(.02).runs <= protocol(.01).runs).all() and (protocol(.01, noise=.01).runs <= protocol(.01, noise=.02).runs).all()

shares = st.floats(0, 1)

@settings(max_examples=60, deadline=None)
@given(st.lists(shares, min_size=3, max_size=30), st.floats(0, 2), st.floats(.1, 5))
def test_a_smooth_maximum_is_near_the_maximum_and_lambda_only_shifts_it(r, lam, s0):
    r = np.array(r)
    both, comb = np.maximum(general_sharpness(r, lam, s0), special_sharpness(r, lam, s0)), combined_sharpness(r, lam, s0)
    assert (comb <= both + 1e-9).all() and (comb >= both - np.log(2) / 5 - 1e-9).all()
    assert np.allclose(comb, combined_sharpness(r, 0, s0) - lam * s0 * r * (1 - r) * (1 + .3 * r), atol=1e-9)

def test_the_best_score_is_convex_in_the_weight_and_its_ratio_never_falls():
    r, V = weight_sensitivity(np.linspace(0, 1, 801))
    assert (np.diff(V, 2) > -1e-12).all() and (np.diff(r) > -1e-6).all() and r[-1] == 1

def test_the_front_is_all_that_lies_beyond_the_best_specialised_score():
    for n in (11, 101, 1001):
        r = np.linspace(0, 1, n)
        assert (front(r) == (r >= r[specialisation(r).argmax()])).all()

def test_no_optimum_is_missed():
    rng = np.random.default_rng(0)
    where = np.r_[0, 1, rng.uniform(0, 1, 500)]
    assert np.allclose(best_ratio(lambda r: -np.abs(r - where))[0], where, atol=1e-6)
    w = weight_prior(400)
    drawn = dict(special=dict(gamma_s=rng.uniform(2, 14, 400), middle_s=rng.uniform(.3, .8, 400)), general=dict(gamma_g=rng.uniform(2, 14, 400), middle_g=rng.uniform(.2, .7, 400)))
    fine = score(np.linspace(0, 1, 20_001)[:, None], w, **drawn) # two tops are common here
    r, value = best_ratio(lambda r: score(r, w, **drawn))
    assert (value >= fine.max(0) - 1e-9).all() and np.allclose(score(r, w, **drawn), value)

def test_a_hundred_thousand_perturbations():
    r = robustness(weight_prior(100_000))
    s = summary(r)
    assert (s["mean"], s["sd"], s["lower quartile"], s["median"], s["upper quartile"]) == pytest.approx((.537, .275, .312, .435, .748), abs=.025)

def test_peak_finds_the_top_and_its_edge():
    r = np.repeat(np.linspace(0, 1, 9), 3)
    e = peak(r, -(r - .3)**2 + 1e-3 * np.random.default_rng(0).normal(size=27))
    assert .3 in e and e.high - e.low < .1
    edge = peak(r, r + 1e-3 * np.random.default_rng(0).normal(size=27))
    assert edge.value == edge.high == 1

def made(change, eta, ratios=np.linspace(0, 1, 6)): # a table as page 40 makes it; change and eta: domain -> (R,)
    return pd.concat([pd.DataFrame({"seed": 0, "lr": 1e-3, "ratio": ratios, "domain": d, "change": change[d], "status": "ok", "eta_adamw": eta[d], "norm_adamw": 2.}) for d in change], ignore_index=True)

def test_measured_correspondence_on_a_table_that_is_known():
    r = np.linspace(0, 1, 6)
    table = made({"general": (1 - r)**2, "special": r**2}, {"general": r, "special": 1.1 - r})
    row = measured_correspondence(table).iloc[0]
    least = np.minimum(r, 1.1 - r)
    assert row["measured sharpness"] == pytest.approx(spearmanr(-least, -(r**2 + (1 - r)**2)).statistic) and row["measured sharpness"] < -.8
    assert row["least sharp at"] == r[least.argmax()] and row["parabola (r - 0.5)²"] == pytest.approx(-1, abs=.05)
    assert measured_correspondence(table, w_g=1.)["best at"][0] == 1 and measured_correspondence(table, w_g=0.)["best at"][0] == 0
    shuffled = measured_correspondence(table.sample(frac=1, random_state=0)).iloc[0]
    assert shuffled.equals(row)

def spoilt(column, value):
    t = made({"general": np.arange(6.), "special": np.arange(6.)[::-1]}, {"general": np.arange(6.), "special": np.ones(6)})
    t[column] = t[column].astype(object)
    t.loc[3, column] = value
    return t.astype({"change": float})

flat = made({"general": np.arange(6.), "special": np.arange(6.)}, {"general": np.zeros(6), "special": np.ones(6)})

@pytest.mark.parametrize("call, message", [
    (lambda: score(1.01), "ratio 1.01"), (lambda: retention(-.1), "ratio -0.1"), (lambda: specialisation(np.nan), "r is nan"), (lambda: general_sharpness([0, 2]), "ratio 2.0"), (lambda: combined_sharpness(9), "ratio 9.0"),
    (lambda: dumb_bowls([.5, -1]), "ratio -1.0"), (lambda: score(.5, -1), "weight w_g -1.0"), (lambda: weight_sensitivity([.5, np.nan]), r"w_g\[1\] is nan"), (lambda: robustness([1.2]), "weight w_g 1.2"),
    (lambda: combined_sharpness(.5, T=0), "T is 0"), (lambda: combined_sharpness(.5, alpha=1), "alpha is 1"), (lambda: alignment(claim=1.2), "claim is 1.2"), (lambda: front([.5, 7]), "ratio 7.0"),
    (lambda: scale_law(0), "size 0.0"), (lambda: scale_law([1, -2]), "size -2.0"), (lambda: scale_law(np.nan), "N is nan"), (lambda: best_ratio(lambda r: 0.), "shape"), (lambda: best_ratio(lambda r: r * np.nan), "not a finite number"),
    (lambda: peak([.1, .2], [1, 2]), "2 runs at 2 ratios"), (lambda: peak([.1] * 9, range(9)), "9 runs at 1 ratios"), (lambda: peak([.1, .2], [1]), "r has 2 rows, scores has 1"), (lambda: peak(np.linspace(0, 1, 9), [np.nan] * 9), r"scores\[0\] is nan"),
    (lambda: peak([2.] * 9, range(9)), "ratio 2.0"), (lambda: protocol(.01, ratios=5), "ratios is 5"), (lambda: protocol(.01, width=0), "width is 0"), (lambda: protocol(0.), "more than a billion"), (lambda: protocol(.01, noise=-1), "noise is -1"),
    (lambda: measured_correspondence(spoilt("status", "diverged")), "seed 0, learning rate 0.001: the run at ratio 0.6 is diverged"), (lambda: measured_correspondence(spoilt("change", np.nan)), "at ratio 0.6 is ok, its change nan"),
    (lambda: measured_correspondence(flat), "the same at every ratio"), (lambda: measured_correspondence(flat.drop(index=4)), "ratio 0.8 lacks a domain"), (lambda: measured_correspondence(flat, w_g=2), "w_g is 2")])
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message): call()


# ---- numbers by hand ------------------------------------------------------------------------------------------------------
def test_the_prior_of_the_weight_is_a_clipped_normal():
    w = weight_prior(20_000)
    assert w.std() == pytest.approx(.1474, abs=.004) and (w > .8).mean() == pytest.approx(.02275, abs=.005)
    assert w.min() >= .1 and w.max() <= .9 and not np.array_equal(w, weight_prior(20_000, seed=1))
    assert weight_prior(20_000, mean=.3, sd=.01).mean() == pytest.approx(.3, abs=.001)

def test_the_interval_of_a_peak_is_that_of_the_posterior_of_its_curve():
    "Parabola through seven points: the coefficients are multivariate t, drawn here by scipy's formula."
    r = np.linspace(0, 1, 7)
    y = -(r - .5)**2 + .03 * np.random.default_rng(3).normal(size=7)
    e = peak(r, y, degree=2, draws=8000)
    D = np.stack([r**0, r, r**2], 1)
    b, *_ = np.linalg.lstsq(D, y, rcond=None)
    cov = ((y - D @ b)**2).sum() / 4 * np.linalg.inv(D.T @ D)
    g = np.random.default_rng(1)
    t = b + g.multivariate_normal(np.zeros(3), cov, 40_000) / np.sqrt(g.chisquare(4, 40_000) / 4)[:, None]
    grid = np.linspace(0, 1, 501)
    low, high = np.quantile(grid[(np.stack([grid**0, grid, grid**2], 1) @ t.T).argmax(0)], [.025, .975])
    assert (e.low, e.high) == pytest.approx((low, high), abs=.008)
    narrow = peak(r, y, degree=2, draws=8000, level=.5)
    assert e.low < narrow.low <= narrow.high < e.high and e.value == narrow.value == pytest.approx(-b[1] / 2 / b[2], abs=.002)

def test_sharpness_is_a_distance_so_that_the_length_of_the_update_does_not_count():
    r = np.linspace(0, 1, 6)
    rows = [pd.DataFrame({"seed": 0, "lr": .1, "ratio": r, "domain": d, "change": -r, "status": "ok", "eta_adamw": 1 / (1 + r), "norm_adamw": (1 + r)**3})
            for d in ("general", "special")]
    assert measured_correspondence(pd.concat(rows))["least sharp at"][0] == 1 # eta * norm grows with r, eta alone falls

def test_the_first_of_equal_ratios_is_the_best():
    assert best_ratio(lambda r: np.zeros_like(r))[0] == 0

def test_noise_of_the_front_depends_on_its_seed():
    r = np.linspace(0, 1, 51)
    assert not np.array_equal(front(r, .05, seed=1), front(r, .05, seed=2)) and np.array_equal(front(r, .05, seed=1), front(r, .05, seed=1))

@pytest.mark.parametrize("function, options", [
    (general_sharpness, dict(lam=.1, s0=2., power=3.)), (special_sharpness, dict(lam=.1, s0=2., power=3.)),
    (combined_sharpness, dict(lam=.1, s0=2., T=9., alpha=.3, powers=(3., 2.))),
    (retention, dict(G0=.8, G_min=.3, gamma_g=5., middle_g=.5, late=.1)),
    (specialisation, dict(S_max=.7, S_min=.2, gamma_s=5., middle_s=.5, early=.2, rate=5.)),
    (score, dict(w_g=.3, general={"G0": .8}, special={"S_max": .7})), (scale_law, dict(a=.5, b=.1, c=.1))])
def test_every_parameter_of_a_formula_counts(function, options):
    at = .8
    for name, value in options.items(): assert function(at, **{name: value}) != pytest.approx(function(at), abs=1e-9), name

def test_formulas_by_hand():
    "At r = 0.5 with plain numbers, written out."
    assert general_sharpness(.5, lam=0, power=2) == pytest.approx(.25 + .1 / 16) and special_sharpness(.5, lam=0, power=2) == pytest.approx(.25 + .08 / 8)
    assert general_sharpness(.5, lam=1, power=2) == pytest.approx(.25 + .1 / 16 - .25 * 1.15)
    assert retention(.4, late=0) == pytest.approx((.72 + .35) / 2) and retention(1., G0=0, G_min=0, late=1) == pytest.approx(-.0625)
    assert specialisation(.55, early=0) == pytest.approx(.45) and specialisation(0., S_max=0, S_min=0) == pytest.approx(-.12)
    assert scale_law(4., a=1, b=0, c=2) == pytest.approx(2) and scale_law(np.e, a=1, b=2, c=0) == pytest.approx(3)
    assert combined_sharpness(.5, T=1000) == pytest.approx(max(general_sharpness(.5), special_sharpness(.5)), abs=1e-3)

def test_what_a_design_will_find():
    "No noise: the top of the fitted curve, with no width. More seeds or runs: narrower."
    truth = lambda r: -(r - .3)**2
    sharp = peak_width(1, 0, curve=truth, degree=2)
    assert sharp.value == sharp.low == sharp.high == pytest.approx(.3)
    widths = [(lambda e: e.high - e.low)(peak_width(curve=truth, degree=2, **d)) for d in (
        dict(seeds=1, noise=.1), dict(seeds=4, noise=.1), dict(seeds=1, noise=.05), dict(seeds=1, noise=.1, ratios=44), dict(seeds=1, noise=.1, level=.5))]
    assert widths[1] == pytest.approx(widths[2], abs=1e-9) and widths[1] < widths[0] and widths[3] < widths[0] and widths[4] < widths[0]

def test_weights_that_no_ratio_implies_are_refused():
    w = implied_weight(.5)
    assert best_ratio(lambda r: score(r, w))[0] == pytest.approx(.5, abs=1e-3)
    with pytest.raises(ValueError, match="no weight from 0 to 1"): implied_weight(.1)
    with pytest.raises(ValueError, match="noise is nan"): peak_width(3, np.nan)

def test_implied_weights_of_many_ratios_and_of_the_edge():
    "w G' + (1 - w) S' = 0 with the derivatives of equations 4 and 5 written out, at r = 0.3."
    logistic = lambda z: 1 / (1 + np.exp(-z))
    g, s = logistic(4 * (.3 - .4)), logistic(-4.5 * (.3 - .55))
    dG, dS = .37 * 4 * g * (1 - g), -.40 * 4.5 * s * (1 - s) + .72 * np.exp(-1.8)
    assert implied_weight(.3) == near(-dS / (dG - dS)) and implied_weight([.3, .6]) == near([-dS / (dG - dS), .572911])
    first = best_ratio(specialisation)[0]
    assert implied_weight(first + 1e-4) == pytest.approx(0, abs=1e-3)
    for wrong in (first - 1e-3, 0, 1, [.6, .1], np.nan, "0.6"):
        with pytest.raises(ValueError, match="ratio|r is"): implied_weight(wrong)
    with pytest.raises(ValueError, match="h is 0"): implied_weight(.6, h=0)
    assert implied_weight(.6, h=.2) != near(.572911)

def test_a_summary_by_hand():
    s = summary([0., .5, .54, .56, .7, 1.])
    assert s == pytest.approx({"mean": .55, "sd": np.std([0., .5, .54, .56, .7, 1.]), "lower quartile": .51, "median": .55, "upper quartile": .665,
                               "within 0.1 of 0.6": 4 / 6, "within 0.05 of 0.6": 1 / 6})

def test_every_option_of_an_analysis_counts():
    c = correspondence()
    assert len(correspondence(points=11)["r"]) == 11 and c["r"][[0, -1]].tolist() == [0, 1]
    for option, moved in ((dict(noise=.02), "score"), (dict(seed=43), "score"), (dict(w_g=.6), "score"), (dict(lam=.1), "sharpness"), (dict(s0=2.), "sharpness")):
        other = correspondence(**option)
        assert not np.allclose(other[moved], c[moved]) and np.allclose(other["r"], c["r"]), option
    a = alignment()
    assert a["gaps"] == near({"r_S to r_C": a["r_S"] - a["r_C"], "claim to r_S": .6 - a["r_S"], "claim to r_C": .6 - a["r_C"]})
    assert a["within"] == {"r_S to r_C": True, "claim to r_S": False, "claim to r_C": False} and all(alignment(tolerance=.2)["within"].values())
    assert alignment(claim=.5)["gaps"]["claim to r_S"] == near(.5 - a["r_S"]) and alignment(w_g=.6)["r_C"] != near(a["r_C"])
    assert alignment(lam=0)["r_S"] == near(.465888) and alignment(s0=2.)["sharpness there"] != near(a["sharpness there"])
    assert len(np.unique(robustness([.5] * 9, spread=.1))) == 9 and np.ptp(robustness([.5] * 9, spread=0)) == 0
    assert robustness([.5], seed=1) != robustness([.5], seed=2) and robustness(.5, spread=0) == pytest.approx(.434967, abs=1e-4)
    shifted = weight_sensitivity([.5], general={"middle_g": .3}, special={"middle_s": .5})
    assert shifted[0] != near(weight_sensitivity([.5])[0])

def test_every_option_of_a_search_and_of_a_peak_counts():
    bump = lambda r: np.exp(-((r - .505) / .001)**2) + .5 * np.exp(-((r - .1) / .2)**2) # the higher one is narrower than a cell of the coarse grid
    assert best_ratio(bump, grid=101)[1] < .9 < best_ratio(bump, grid=4001)[1]
    slope = lambda r: -np.abs(r - 1 / 3)
    assert abs(best_ratio(slope, steps=2)[0] - 1 / 3) > 1e-5 > abs(best_ratio(slope, steps=36)[0] - 1 / 3)
    r = np.repeat(np.linspace(0, 1, 7), 3)
    y = np.sin(5 * r) + .2 * np.random.default_rng(0).normal(size=21)
    base = peak(r, y)
    assert repr(peak(r, y, draws=200, seed=1)) != repr(peak(r, y, draws=200, seed=2))
    for option in (dict(degree=2), dict(level=.5), dict(draws=100)):
        assert repr(peak(r, y, **option)) != repr(base), option
    named = pd.Series(y, index=range(100, 121))
    assert repr(peak(pd.Series(r, index=range(100, 121)), named.sample(frac=1, random_state=0))) == repr(base)
    with pytest.raises(ValueError, match="different indexes"): peak(pd.Series(r), named)
    low = .25 + .5 * r
    assert peak(low, low).high == .75 and peak(low, -low).low == .25, "between the smallest and the largest ratio"
    wide = peak_width(3, .1, seed=0)
    for option in (dict(seed=1), dict(degree=6), dict(draws=999), dict(level=.5), dict(ratios=21), dict(curve=lambda r: -r)):
        assert repr(peak_width(3, .1, **option)) != repr(wide), option
    assert wide.n == 33

def test_a_protocol_is_page_15s_power_at_its_numbers_of_tests():
    from mixlab.stats import runs_needed
    t = protocol(.02, noise=.03, ratios=7, chance=.7, level=.9, correlation=.3, width=.3)
    expected = [runs_needed(.02, .03, .7, level=.9, **d) for d in (dict(distribution="z"), {}, dict(correlation=.3), dict(tests=6), dict(tests=21))]
    assert t["seeds for each ratio"].tolist()[:5] == expected and t.index[3:5].tolist() == ["all 6 neighbours", "all 21 pairs"]
    assert (t.runs == 7 * t["seeds for each ratio"]).all()
    n = t["seeds for each ratio"].iloc[5]
    width = lambda k: (lambda e: e.high - e.low)(peak_width(k, .03, 7, level=.9))
    assert width(n) <= .3 and (n == 1 or width(n - 1) > .3)
    assert protocol(.02, curve=lambda r: -9 * (r - .5)**2)["seeds for each ratio"].iloc[5] < protocol(.02)["seeds for each ratio"].iloc[5]

def test_scores_and_rivals_of_a_measured_correspondence():
    r = np.linspace(0, 1, 6)
    change = {"general": np.array([5., 3, 1, 0, -1, -1.5]), "special": np.array([-2., -1, 0, .5, 3, 9])}
    table = made(change, {"general": r + .1, "special": 1.05 - r})
    table["eta_sgd"], table["norm_sgd"] = np.r_[1.1 - r, 1.1 - r], 1.
    least = np.minimum(r + .1, 1.05 - r)
    for w, good in ((.5, -(change["general"] + change["special"]) / 2), (.2, -(.2 * change["general"] + .8 * change["special"])), (None, -np.maximum(change["general"], change["special"]))):
        row = measured_correspondence(table, w_g=w).iloc[0]
        assert row["measured sharpness"] == pytest.approx(spearmanr(-least, good).statistic) and row["best at"] == r[good.argmax()]
        assert row["the ratio r"] == pytest.approx(spearmanr(r, good).statistic)
    assert measured_correspondence(table, kind="sgd")["least sharp at"][0] == 0
    rival = measured_correspondence(table, baselines=lambda r: {"mine": -r})
    assert "mine" in rival and "the ratio r" not in rival
    two = pd.concat([table, table.assign(seed=1, lr=.1)])
    assert measured_correspondence(two)[["seed", "lr"]].to_numpy().tolist() == [[0, .001], [1, .1]]
    for wrong, message in ((table.drop(columns="norm_adamw"), "no column 'norm_adamw'"), (pd.concat([table, table.iloc[:1]]), "two rows"), ("table", "table is 'table'"), (table.astype({"ratio": str}), "expected numbers")):
        with pytest.raises(ValueError, match=message): measured_correspondence(wrong)
    with pytest.raises(ValueError, match="'flat'"): measured_correspondence(table, baselines=lambda r: {"flat": 0 * r})

def test_rivals_are_bowls_around_a_guess():
    bowls = dumb_bowls([0., .4, 1.])
    assert list(bowls) == ["parabola (r - 0.4)²", "parabola (r - 0.5)²", "the ratio r"]
    assert np.allclose(list(bowls.values()), [[.16, 0, .36], [.25, .01, .25], [0, .4, 1]])

def test_the_chance_of_the_correlation_is_that_of_two_million_shuffles():
    "2.67e-4, found by another program; 9,999 shuffles alone would say 6e-4."
    c = correspondence()
    e = correlation(c["sharpness"], c["score"])
    assert e.p == pytest.approx(2.67e-4, rel=.15) and not e.p_is_bound and correlation(c["sharpness"], c["score"], resamples=9999).p == pytest.approx(6e-4)
