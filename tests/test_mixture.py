"Mixtures, presets and the sampler under inputs that no page would try."
import math, pickle, subprocess, sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from mixlab.mixture import (as_amounts, as_mixture, as_mixtures, as_runs, as_targets, names_of, PILE, PILE_MIXTURES, Mixture, caps, dirichlet, effective_domains, epochs, natural, pile, representative,
                            rescale, simplex_sliders, temperature, uniform, unimax)

quick = settings(max_examples=60, deadline=None)
amounts = arrays(float, st.integers(1, 12), elements=st.floats(1e-3, 1e9)) # tokens per domain, over twelve orders of magnitude
seeds = st.integers(0, 2**32 - 1)

def named(sizes): return {f"d{j}": float(n) for j, n in enumerate(sizes)}


# Mixture

@quick
@given(amounts)
def test_a_mixture_survives_every_way_of_copying_it(sizes):
    m = natural(named(sizes))
    assert m.weights.sum() == pytest.approx(1, abs=1e-12) and m.weights.min() >= 0
    for twin in (Mixture(m), Mixture(m.to_dict()), Mixture(m.weights, m.names), Mixture(m, m.names[::-1]), pickle.loads(pickle.dumps(m))):
        assert twin == m, "copying moved a share"
    assert 1 - 1e-9 <= m.effective <= len(m) + 1e-9

@pytest.mark.parametrize("weights, names, message", [
    ({"web": 1.2, "code": -.2}, None, "'code' has share -0.2"),
    ({"web": .5, "code": math.nan}, None, "'code' has share nan"),
    ({"web": .5, "code": math.inf}, None, "'code' has share inf"),
    ({"web": .5, "code": .4}, None, "sums to 0.9"),
    ({"web": .5, "code": "half"}, None, "expected numbers"),
    ([.5, .5], ["web"], "expected 1 shares"),
    ([.5, .5], ["web", "web"], "'web' appears twice"),
    ([.5, .5], ["web", 3], "domain 1 is named 3"),
    ({"web": 1.}, ["web", "code"], "'code'"),
    ([], None, "empty|expected at least one"), ([[.5, .5]] * 2, None, "2 rows"), (.5, None, "expected numbers")])
def test_a_wrong_mixture_is_refused_by_name(weights, names, message):
    with pytest.raises(ValueError, match=message): Mixture(weights, names)

def test_rounding_is_divided_away_and_nothing_else():
    assert Mixture([.333, .333, .333]).weights.sum() == pytest.approx(1, abs=1e-12)
    assert Mixture([1 + 1e-12, -1e-12]).weights[1] == 0, "an optimiser's -1e-12 is 0"
    exact = Mixture([.1, .2, .7])
    assert exact.weights.tolist() == [.1, .2, .7], "a sum of 1 in floating point is left alone"
    with pytest.raises(ValueError): exact.weights[0] = 1
    with pytest.raises(KeyError, match="web"): exact["web"]
    with pytest.raises(TypeError): hash(exact)

def test_names_are_escaped_and_bars_have_one_line_each():
    m = Mixture({"<script>": .5, "a|b": .5, "空": 0.})
    assert "<script>" not in m._repr_html_() and "&lt;script&gt;" in m._repr_html_()
    assert len(repr(m).splitlines()) == 4


# The doors

NAMES = ("web", "code", "maths")
CLOUD = np.array([[.5, .3, .2], [.1, .1, .8]])

def test_a_row_comes_back_to_the_last_bit():
    W = as_mixtures([[.1, .2, .7], [.333, .333, .333]])
    assert np.array_equal(as_mixtures(W), W) and W[0].tolist() == [.1, .2, .7]
    assert as_mixtures([[1.0, -1e-12, 0.0]])[0].tolist() == [1, 0, 0], "an optimiser's -1e-12 is 0"
    assert np.array_equal(as_mixtures([[.333, .333, .333]])[0], np.full(3, 1 / 3)), "one tolerance everywhere: 1 %"

@pytest.mark.parametrize("wrong, message", [
    ([[.5, .3, .3]], r"mixtures\[0\] sums to 1.1, expected 1"),
    ([[.5, .3, .209]], None), ([[.5, .3, .2101]], r"sums to 1.0101"), ([[.5, .3, .1899]], r"sums to 0.9899"),
    ([[.5, .5, 0], [.5, -.1, .6]], r"mixtures\[1\]: domain 'code' has share -0.1"),
    ([[.5, .5, 0], [.5, .5, math.nan]], r"mixtures\[1\]: domain 'maths' has share nan"),
    ([.5, .5], "expected 3 shares: web, code, maths"), ([[.5, .5]], "web, code, maths"), ([], "empty|expected"),
    ({"web": 1.0}, "no domain 'code'"), ({"web": .5, "code": .3, "maths": .1, "books": .1}, "unknown domain 'books'"),
    ([{"web": .5, "code": .3, "maths": .2}, {"web": .5, "code": .3, "math": .2}], r"mixtures\[1\] has no domain 'maths'"),
    ({0: .5, 1: .3, 2: .2}, "named 0"), ([[.5, .5, 0], [1, 0]], "expected|lengths"), ("web", "expected numbers"),
    (None, "expected"), (object(), "expected"), (3, "expected")])
def test_a_wrong_table_of_mixtures_names_row_and_domain(wrong, message):
    if message is None:
        assert as_mixtures(wrong, NAMES).sum() == pytest.approx(1)
    else:
        with pytest.raises(ValueError, match=message): as_mixtures(wrong, NAMES)

def test_a_frame_with_counted_columns_is_an_array_and_its_rows_keep_their_labels():
    assert np.array_equal(as_mixtures(pd.DataFrame(CLOUD), NAMES), CLOUD)
    table = pd.DataFrame(CLOUD[:, ::-1] * [[1], [2]], columns=NAMES[::-1], index=["first", "second"])
    with pytest.raises(ValueError, match=r"mixtures\['second'\] sums to 2"): as_mixtures(table, NAMES)
    runs = pd.concat({"mixture": pd.DataFrame(CLOUD[:, ::-1], columns=NAMES[::-1]), "loss": pd.DataFrame(CLOUD)}, axis=1)
    assert np.array_equal(as_mixtures(runs, NAMES), CLOUD), "the mixtures of a table of runs"
    assert names_of(runs) == NAMES[::-1] and names_of(CLOUD) is None and names_of([{"a": 1.0}]) == ("a",)

def test_one_mixture_is_one_mixture():
    assert as_mixture(CLOUD[0], NAMES) == {"web": .5, "code": .3, "maths": .2}
    assert as_mixture(as_mixture(CLOUD[0], NAMES), NAMES[::-1]).names == NAMES[::-1]
    with pytest.raises(ValueError, match="start has 2 rows"): as_mixture(CLOUD, NAMES, "start")

def test_targets_are_weights_that_sum_to_one():
    for target in ({"web": 3, "maths": 1}, pd.Series({"maths": .5, "web": 1.5}), {"maths": 1, "web": 3, "code": 0}, [3, 0, 1]):
        assert as_targets(target, NAMES) == pytest.approx([.75, 0, .25])
    assert as_targets(None, NAMES) == pytest.approx([1 / 3] * 3) and as_targets("code", NAMES).tolist() == [0, 1, 0]
    for wrong in ({"web": -1}, {"web": math.nan}, {"web": 0}, "books", ["web", "web"], [], {}, 3, [1, 2], {"web": math.inf}):
        with pytest.raises(ValueError, match="target"): as_targets(wrong, NAMES)

def test_amounts_come_by_name():
    assert as_amounts({"maths": 1, "web": 2, "code": 3}, NAMES).tolist() == [2, 3, 1]
    assert as_amounts([1, math.inf, 2], NAMES, infinite=True)[1] == math.inf
    for wrong in ([1, math.inf, 2], [1, math.nan, 2], [1, -1, 2], [1, 2], {"web": 1}, "web", None):
        with pytest.raises(ValueError, match="amounts"): as_amounts(wrong, NAMES)

def test_runs_are_joined_by_index_or_refused():
    W = pd.DataFrame(CLOUD, columns=NAMES, index=["r1", "r2"])
    losses = pd.Series([2.0, 1.0], index=["r2", "r1"], name="web")
    X, Y = as_runs(W, losses)
    assert Y.web.tolist() == [1, 2] and X.index.tolist() == ["r1", "r2"] and list(X) == list(NAMES)
    assert as_runs(W, [1, 2])[1]["loss"].tolist() == [1, 2] and as_runs(CLOUD, [1, 2], NAMES)[0].columns.tolist() == list(NAMES)
    assert as_runs(CLOUD, losses)[0].index.tolist() == ["r2", "r1"], "a bare array is read in the order of the losses"
    assert as_runs(W, np.eye(2))[1].columns.tolist() == ["target_0", "target_1"] and as_runs(W, np.ones((2, 3)))[1].columns.tolist() == list(NAMES)
    table = pd.concat({"mixture": W, "loss": losses.to_frame()}, axis=1)
    assert as_runs(table)[1].loc["r2", "web"] == 2
    for wrong, message in ((losses.rename({"r1": "r9"}), "'r"), ([1, 2, 3], "3"), (pd.Series(["a", "b"], ["r1", "r2"]), "losses"), (None, "losses")):
        with pytest.raises(ValueError, match=message): as_runs(W, wrong)


# Presets

def test_presets_by_hand():
    assert caps({"a": 100, "b": 1}, 10, 4) == pytest.approx([1, .4])
    assert unimax({"a": 100, "b": 1}, 10, 2).weights == pytest.approx([.8, .2]) and unimax({"a": 100, "b": 1}, 10, 4).weights == pytest.approx([.6, .4])
    assert temperature({"a": 16, "b": 1}, 2).weights == pytest.approx([.8, .2]) and temperature({"a": 16, "b": 1}, np.inf).weights == pytest.approx([.5, .5])
    assert natural({"a": 3, "b": 1}).weights == pytest.approx([.75, .25])
    assert epochs([.25, .75], {"a": 5, "b": 10}, 20) == pytest.approx([1, 1.5])
    assert effective_domains([.5, .25, .25]) == pytest.approx(2 ** 1.5) and effective_domains([[.25] * 4, [1, 0, 0, 0]]) == pytest.approx([4, 1])
    assert np.sum(list(PILE.values()), axis=0) == pytest.approx([1, .998, 1, .6969, 1, .998], abs=.012)
    assert np.sum(list(PILE.values()), axis=0)[[1, 2]] == pytest.approx([.998, 1.0], abs=1e-9)

@quick
@given(amounts, st.floats(.05, 1e6))
def test_temperature_keeps_the_order_and_the_zeros(sizes, tau):
    sizes = np.r_[sizes, 0.]
    w = temperature(named(sizes), tau).weights
    assert w.sum() == pytest.approx(1) and w[-1] == 0
    assert (np.diff(w[np.argsort(sizes, kind="stable")]) >= -1e-12).all(), "a larger domain got less"

@quick
@given(amounts, st.floats(.01, 20), st.floats(.5, 20))
def test_unimax_keeps_its_cap_and_is_as_even_as_that_allows(sizes, share_of_corpus, limit):
    tokens = share_of_corpus * sizes.sum()
    if share_of_corpus > limit * (1 + 1e-9):
        with pytest.raises(ValueError, match="passes over all"): unimax(named(sizes), tokens, limit)
        return
    assume(share_of_corpus <= limit)
    w = unimax(named(sizes), tokens, limit).weights
    assert (epochs(w, named(sizes), tokens) <= limit * (1 + 1e-9)).all(), "a cap is broken"
    room = w < caps(named(sizes), tokens, limit) * (1 - 1e-9)
    assert np.ptp(w[room]) < 1e-9 if room.any() else True, "domains with room differ"
    assert (w[~room] <= w[room].max() + 1e-9).all() if room.any() else True, "a full domain got more than one with room"

@quick
@given(amounts, seeds)
def test_presets_do_not_depend_on_the_order_of_domains(sizes, seed):
    corpus = named(sizes)
    order = np.random.default_rng(seed).permutation(list(corpus))
    mixed = {name: corpus[name] for name in order}
    tokens = 2 * sizes.sum()
    for preset in (natural, uniform, lambda c: temperature(c, 3), lambda c: unimax(c, tokens, 4)):
        a, b = preset(corpus), preset(mixed)
        assert b.names == tuple(order) and np.allclose(Mixture(b, a.names).weights, a.weights, atol=1e-12)
    assert np.allclose(epochs(natural(mixed), corpus, tokens), 2), "shares must meet tokens by name"

@pytest.mark.parametrize("call, message", [
    (lambda: temperature({"web": 1.}, 0), "tau is 0"), (lambda: temperature({"web": 1.}, math.nan), "tau is nan"),
    (lambda: natural({"web": 0., "code": 0.}), "sum to 0"), (lambda: natural({"web": 2., "code": -1.}), "'code'"),
    (lambda: uniform("web"), "list of names"), (lambda: uniform([]), "list of names"),
    (lambda: epochs({"web": .5, "code": .5}, {"web": 5., "books": 5.}, 10), "no domain 'books' and has an unknown domain 'code'"),
    (lambda: epochs([.5, .5], {"web": 5., "code": 0.}, 10), "'code' has no tokens"),
    (lambda: epochs([1.], {"web": 5., "code": 1.}, 10), "shape"), (lambda: epochs([1.], {"web": 5.}, 0), "tokens is 0"),
    (lambda: pile("llama"), "expected one of 'natural', 'human'")])
def test_presets_refuse_by_name(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_published_mixtures_are_whole():
    assert len(PILE) == 17 and all(len(row) == len(PILE_MIXTURES) for row in PILE.values())
    assert all(pile(name).weights.sum() == pytest.approx(1) for name in PILE_MIXTURES)
    assert pile("regmix")["pile_cc"] == pytest.approx(.87 / .998) and pile("pile_cc")["pile_cc"] == 1
    assert sum(row[3] for row in PILE.values()) == pytest.approx(.6969), "online's column was printed without being divided"


# The sampler

def test_strengths_are_spaced_evenly_in_their_logarithm():
    "Two domains, prior 1/2: the variance of a share of Dirichlet(s/2, s/2) is 1 / (4 (s + 1)), averaged over 15 strengths."
    W = dirichlet(uniform(["a", "b"]), 4000, concentration=(1, 100), temperature=1, minimum=0, maximum=None)
    expected = np.mean(1 / (4 * (1 + 100 ** (np.arange(15) / 14))))
    assert W[:, 0].var() == pytest.approx(expected, rel=.1)

def test_every_option_of_the_sampler_changes_it():
    prior = natural({"a": 8, "b": 2, "c": 1})
    base = dirichlet(prior, 200)
    for option in (dict(concentration=(1, 5)), dict(temperature=1), dict(minimum=.01), dict(maximum=1.5), dict(seed=1)):
        assert not np.array_equal(dirichlet(prior, 200, **option), base), option
    W = dirichlet(prior, 200, minimum=.01)
    assert W[W > 0].min() >= .01 and (dirichlet(prior, 200, maximum=1.5) <= 1.5 * prior.weights + 1e-12).all()
    assert np.array_equal(dirichlet(prior, 50, maximum={"c": .2, "a": 1, "b": .5}), dirichlet(prior, 50, maximum=[1, .5, .2]))

@settings(max_examples=25, deadline=None)
@given(arrays(float, st.integers(2, 10), elements=st.floats(.02, 1)), st.floats(.05, 2), st.floats(1, 8), st.floats(1, 5),
       st.sampled_from([0, 1e-4, 1e-2]), seeds)
def test_random_mixtures_keep_every_promise(sizes, low, ratio, tau, minimum, seed):
    prior = natural(named(sizes))
    cap = np.minimum(1, 30 * prior.weights)
    options = dict(concentration=(low, low * ratio), temperature=tau, minimum=minimum, maximum=30.)
    W = dirichlet(prior, 40, seed=seed, **options)
    assert W.shape == (40, len(prior)) and np.allclose(W.sum(1), 1, atol=1e-12)
    assert (W <= cap + 1e-9).all() and (W[W > 0] >= minimum).all()
    assert len(np.unique(W, axis=0)) == 40
    assert np.array_equal(W, dirichlet(prior, 40, seed=seed, **options)) and np.array_equal(W[:13], dirichlet(prior, 13, seed=seed, **options))
    assert not np.array_equal(W, dirichlet(prior, 40, seed=seed + 1, **options))

def test_tiny_strengths_give_corners_not_nan():
    W = dirichlet(pile(), 17, concentration=1e-6, temperature=1, minimum=0, maximum=None)
    assert np.isfinite(W).all() and W.max(1).min() > .999

def test_a_domain_without_prior_never_comes():
    assert (dirichlet({"web": .5, "code": .5, "books": 0.}, 50)[:, 2] == 0).all()

def test_caps_may_be_given_by_name():
    prior = uniform(["web", "code", "books"])
    W = dirichlet(prior, 50, concentration=(1, 5), maximum={"books": .1, "code": .9, "web": .8})
    assert W[:, 2].max() <= .1 + 1e-9 and W[:, 1].max() > .1

@pytest.mark.parametrize("options, message", [
    (dict(n=0), "n is 0"), (dict(concentration=(0, 1)), "concentration"), (dict(concentration=(2, 1)), "concentration"),
    (dict(minimum=.5), "minimum is 0.5"), (dict(minimum=-.1), "minimum"), (dict(temperature=-1), "temperature is -1"),
    (dict(maximum=[.5, .5]), "shape"), (dict(maximum=.5), "expected at least 1"), (dict(maximum=[.3, .3, math.nan]), "'books' has nan"),
    (dict(maximum={"web": 1., "code": 1.}), "books"),
    (dict(concentration=.01, minimum=.01, n=5000), "n is 5000, but .* draws gave")])
def test_the_sampler_refuses_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message): dirichlet(uniform(["web", "code", "books"]), **{"n": 64, **options})

def test_the_closest_cap_is_named():
    with pytest.raises(ValueError, match="maximum of 'books'"):
        dirichlet({"web": .1, "code": .1, "books": .8}, 64, concentration=(50, 60), maximum=[.6, .6, .15])

@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(1, 60), seeds)
def test_representatives_are_rows_of_the_cloud_taken_once(K, n, seed):
    cloud = np.random.default_rng(seed).dirichlet(np.ones(K), 80)
    chosen = representative(cloud, n)
    at = [int(np.flatnonzero((cloud == row).all(1))[0]) for row in chosen]
    assert len(set(at)) == n and np.array_equal(chosen[:n // 2 + 1], representative(cloud, n // 2 + 1))

def test_all_rows_of_a_cloud_are_taken_once():
    cloud = np.repeat(np.eye(3), [1, 2, 3], axis=0) * .9 + .1 / 3 # rows repeat
    assert sorted(map(tuple, representative(cloud, 6))) == sorted(map(tuple, cloud))

def test_representatives_of_a_cloud_too_small():
    with pytest.raises(ValueError, match="n is 5, expected a whole number from 1 to 3"): representative(np.eye(3), 5)


# Sliders

@quick
@given(arrays(float, st.integers(1, 9), elements=st.floats(0, 1)), st.data())
def test_rescale_stays_on_the_simplex(w, data):
    assume(w.sum() > 1e-3)
    w, K = w / w.sum(), len(w)
    j, share = data.draw(st.integers(0, K - 1)), data.draw(st.floats(0, 1))
    locked = data.draw(st.sets(st.integers(0, K - 1)))
    r = rescale(w, j, share, locked)
    assert r.sum() == pytest.approx(1, abs=1e-9) and r.min() >= -1e-12
    for i in locked - {j}: assert r[i] == w[i], "a locked share moved"
    free = [i for i in range(K) if i != j and i not in locked]
    if free: assert r[j] == pytest.approx(min(share, 1 - sum(w[i] for i in locked - {j})), abs=1e-9)

@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=6))
def test_sliders_moved_at_will_sum_to_one_and_draw_once_per_move(moves):
    drawn = []
    panel = simplex_sliders({"web": .4, "code": .3, "books": .2, "maths": .1}, lambda m: drawn.append(m), {"corner": Mixture([1., 0, 0, 0], ["web", "code", "books", "maths"])})
    panel.locks[3].value = True
    for j, share in moves:
        before, old = len(drawn), panel.mixture
        moved = abs(share - old.weights[j]) > panel.sliders[j].step / 2
        panel.sliders[j].value = share
        assert len(drawn) - before == moved, "a move draws exactly once, a rounding never"
        if not moved: assert panel.mixture == old
        else: assert sum(s.value for s in panel.sliders) == pytest.approx(1, abs=1e-9)
    for label, expected in (("corner", [1, 0, 0, 0]), ("reset", [.4, .3, .2, .1])):
        panel.buttons[label].click()
        assert np.allclose(panel.mixture, expected)

def test_what_the_browser_rounds_and_sends_back_moves_nothing():
    drawn = []
    panel = simplex_sliders(["web", "code", "books"], lambda m: drawn.append(m))
    for slider in panel.sliders: slider.value = round(slider.value / slider.step) * slider.step
    assert len(drawn) == 1 and bytes(panel.picture.value[:4]) == b"\x89PNG" and np.allclose(panel.mixture, 1 / 3, atol=1e-15)

def test_the_module_is_cheap_to_import():
    heavy = "import mixlab.mixture, mixlab.stats, sys; print([m for m in ('torch', 'scipy', 'matplotlib', 'ipywidgets', 'pandas', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.strip() == "[]"
