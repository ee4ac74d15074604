"What cannot be a lesson on page 21: the loader against damaged files, no network, bad input to the searches."
import hashlib
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from mixlab import regmix
from mixlab.regmix import (EffectiveDataLaw, GP, LightGBM, MixingLaw, Residual, fit_laws, load_1b, load_released, optimise, own_share,
                           recommend, simulate)

LOSSES = [d for d in regmix._pile if d not in ("nih_exporter", "philpapers", "enron_emails", "europarl")]


def published(folder, runs=12, seed=0):
    "A folder in the format of RegMix's files: rounded shares, prefixes, the 1B index from 0, the older files with printed names."
    rng = np.random.default_rng(seed)
    plain = {"stackexchange": "Stack Exchange", "pile_cc": "Pile-CC", "wikipedia_en": "Wikipedia (en)", "gutenberg_pg_19": "Gutenberg (PG-19)"}
    for name, files in regmix._released.items():
        index = pd.RangeIndex(runs, name="index") + (0 if name == "test_1b" else 1)
        old = name == "history_1m"
        W = pd.DataFrame(rng.dirichlet(np.ones(17), runs).round(3), index=index,
                         columns=[plain.get(d, d.replace("_", " ")) if old else f"train_the_pile_{d}" for d in regmix._pile])
        loss = pd.DataFrame(rng.normal(5, .3, (runs, 13)), index=index,
                            columns=[plain.get(d, d.replace("_", " ")) if old else f"metric/the_pile_{d}_val_loss" for d in LOSSES])
        W.to_csv(folder / files[0]); loss.to_csv(folder / files[1])
    return folder


@pytest.fixture
def folder(tmp_path): return published(tmp_path)


def edit(folder, file, change):
    table = pd.read_csv(folder / file, index_col="index")
    change(table).to_csv(folder / file)


def test_names_and_sums(folder):
    for name, t in load_released(folder).items():
        assert tuple(t["mixture"]) == regmix._pile and list(t["loss"]) == LOSSES, name
        assert np.allclose(t["mixture"].sum(axis=1), 1, atol=1e-12)
    assert load_released(folder)["test_1b"].index[0] == 0
    raw = load_released(folder, renormalise=False)["train_1m"]["mixture"].sum(axis=1)
    assert not np.allclose(raw, 1, atol=1e-12)


def test_rows_in_another_order_change_nothing(folder):
    before = load_released(folder)["train_1m"]
    edit(folder, "train_pile_loss_1m.csv", lambda t: t.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(load_released(folder)["train_1m"], before)


DAMAGE = {
    "a run without loss": ("train_pile_loss_1m.csv", lambda t: t.drop(index=5), "train_pile_loss_1m.csv: index 5 is missing"),
    "a run without mixture": ("test_mixture_1B.csv", lambda t: t.drop(index=0), "test_mixture_1B.csv: index 0 is missing"),
    "an index twice": ("train_mixture_1m.csv", lambda t: pd.concat([t, t.loc[[3]]]), "train_mixture_1m.csv: index 3 occurs twice"),
    "a value is missing": ("test_pile_loss_60m.csv", lambda t: t.apply(lambda c: c.mask(t.index == 4)), "test_pile_loss_60m.csv: index 4 lacks a value"),
    "no mixture": ("test_mixture_1m.csv", lambda t: t.apply(lambda c: c.mask(t.index == 7, 2 * c)), "test_mixture_1m.csv: index 7 is no mixture"),
    "negative share": ("test_mixture_1m.csv", lambda t: t.assign(train_the_pile_arxiv=t.train_the_pile_arxiv.where(t.index != 2, -.1),
                       train_the_pile_github=t.train_the_pile_github.where(t.index != 2, t.train_the_pile_github + t.train_the_pile_arxiv + .1)),
                       "test_mixture_1m.csv: index 2 is no mixture"),
    "text": ("history_loss_1m_1000.csv", lambda t: t.astype(object).apply(lambda c: c.mask(t.index == 3, "crashed")), "history_loss_1m_1000.csv: column 'arxiv' holds something"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(folder, what):
    file, change, message = DAMAGE[what]
    edit(folder, file, change)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")): load_released(folder)


def test_lost_and_unreadable_files(folder):
    (folder / "test_mixture_60m.csv").unlink()
    with pytest.raises(FileNotFoundError, match="test_mixture_60m.csv"): load_released(folder)
    (folder / "train_mixture_1m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="train_mixture_1m.csv: no column `index`"): load_released(folder)
    (folder / "train_mixture_1m.csv").write_text("")
    with pytest.raises(ValueError, match="train_mixture_1m.csv: not a CSV"): load_released(folder)


def test_checksum(folder, monkeypatch):
    with pytest.raises(ValueError, match="train_mixture_1m.csv: SHA-256"): load_released(folder, check=True)
    monkeypatch.setenv("MIXLAB_DATA", str(folder))          # found by itself: checked by default
    with pytest.raises(ValueError, match="SHA-256"): load_released()
    sums = {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in regmix._sha256}
    monkeypatch.setattr(regmix, "_sha256", sums)
    assert len(load_released()["train_1m"]) == 12
    with open(folder / "test_pile_loss_1B.csv", "a") as f: f.write("\n")
    with pytest.raises(ValueError, match="test_pile_loss_1B.csv: SHA-256"): load_released()


def test_download(folder, tmp_path, monkeypatch):
    "Each file is asked for once, at its commit, with its checksum; without a network the message says what to do."
    import pooch
    asked = {}
    def retrieve(url, known_hash, fname, path):
        asked[fname] = url, known_hash
        return str(folder / fname)
    monkeypatch.chdir("/"); monkeypatch.delenv("MIXLAB_DATA", raising=False); monkeypatch.setattr(regmix, "_find", lambda folder: None)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    load_released()
    assert set(asked) == set(regmix._sha256)
    assert asked["history_loss_1m_1000.csv"][0].endswith(f"{regmix._history}/data/pile/tiny_wandb_1M_1000_pile_4B.csv")
    assert asked["test_mixture_1B.csv"] == (f"https://raw.githubusercontent.com/sail-sg/regmix/{regmix._head}/data/test_mixture_1B.csv",
                                            "sha256:" + regmix._sha256["test_mixture_1B.csv"])
    def offline(*args, **kwargs): raise ConnectionError("no route")
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(OSError, match="train_mixture_1m.csv: neither found nor downloaded.*MIXLAB_DATA"): load_released()


def test_published_1b_scores():
    t = load_1b()
    assert t.shape == (64, 17 + 13 + 3) and t.index[0] == 1 and tuple(t["mixture"]) == regmix._pile
    assert np.allclose(t["mixture"].sum(axis=1), 1) and t["note", "truncated"].astype(bool).sum() == 3
    assert np.allclose(t["score"].mean(axis=1), t["note", "avg_recomputed"].astype(float), atol=.001)


pytestmark = pytest.mark.filterwarnings("ignore:.*extrapolates")


# ---- searches and recommendations on a law that we made ------------------------------------------------------------

@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    W = pd.DataFrame(rng.dirichlet(np.full(5, .6), 60), columns=list("abcde"))
    worth = {"a": [8, 2, .1, .1, .1], "b": [.1, 8, 1, .1, .1]}
    losses = pd.DataFrame({t: 2 + (W.to_numpy() ** .6 @ w) ** -.3 + .005 * rng.normal(size=60) for t, w in worth.items()})
    return W, losses


def test_optimise_beats_every_corner_and_keeps_caps(runs):
    laws = fit_laws(*runs)
    best = optimise(laws, weights={"a": 2, "b": 1})
    others = pd.DataFrame(np.r_[best[None], np.eye(5), np.random.default_rng(1).dirichlet(np.ones(5), 300)], columns=list("abcde"))
    mixed = (2 * laws["a"].predict(others) + laws["b"].predict(others)) / 3
    assert abs(best.sum() - 1) < 1e-9 and mixed.min() >= mixed[0] - 1e-6
    caps = np.array([.2, .2, .9, .9, .9])
    held = optimise(laws, caps=caps)
    assert (held <= caps + 1e-9).all() and abs(held.sum() - 1) < 1e-9 and np.allclose(held[:2], .2, atol=1e-3)
    assert np.allclose(optimise(laws, caps=np.full(5, .2)), .2)


@pytest.mark.parametrize("caps, message", [(np.full(5, .1), "add up to 0.5"), (np.full(4, .5), "shape|broadcast|length")])
def test_impossible_caps(runs, caps, message):
    with pytest.raises(ValueError, match=message): optimise(fit_laws(*runs), caps=caps)


def test_forest_is_flat(runs):
    W, losses = runs
    with pytest.raises(ValueError, match="flat.*simulate"): optimise(LightGBM().fit(W, losses["a"]))


def test_finite_differences_find_the_law_s_optimum(runs):
    W, losses = runs
    law = EffectiveDataLaw().fit(W, losses["a"])
    class Hidden:                                            # the same model without its closed form
        n_features_in_, feature_names_in_ = 5, np.array(list("abcde"))
        def predict(self, X): return law.predict(X)
    assert np.allclose(optimise(Hidden()), optimise(law), atol=5e-3)


def test_simulate(runs):
    W, losses = runs
    law = EffectiveDataLaw().fit(W, losses["a"])
    cloud = np.random.default_rng(0).dirichlet(np.ones(5), 500)
    by_hand = cloud[np.argsort(law.predict(pd.DataFrame(cloud, columns=W.columns)), kind="stable")[:10]].mean(axis=0)
    assert np.allclose(simulate(law, cloud, top=10), by_hand)
    assert (simulate(law, np.ones(5), n=70_000, seed=3) == simulate(law, np.ones(5), n=70_000, seed=3)).all()
    assert simulate(law, cloud, top=3, caps=np.full(5, .5)).max() <= .5
    with pytest.raises(ValueError, match="within the caps"): simulate(law, cloud, top=400, caps=np.full(5, .3))


def test_recommend_takes_arrays_tables_and_sweeps(runs):
    W, losses = runs
    table = pd.concat({"run": pd.DataFrame({"status": "ok"}, index=W.index), "mixture": W, "loss": losses}, axis=1)
    array = recommend(W.to_numpy(), losses.to_numpy()[:, 0], names=list("abcde"), n_boot=3)
    assert array.mixture.names == tuple("abcde") and array.mixture["a"] > .5
    a, b = recommend(table, target="a", n_boot=3), recommend(W, losses, target="a", n_boot=3)
    pd.testing.assert_frame_equal(a.table, b.table)
    assert "uniform" in a.gain.index and "natural" not in a.gain.index and "share" in repr(a) and "<table" in a._repr_html_()


def test_recommend_counts_epochs_and_warns(runs):
    W, losses = runs
    supply = dict(a=1e6, b=1e6, c=8e6, d=8e6, e=8e6)
    with pytest.warns(UserWarning, match="a.*at the cap"): rec = recommend(W, losses, target="a", available=supply, tokens=1e7, n_boot=5)
    assert abs(rec.table.epochs["a"] - 4) < 1e-6 and rec.table.cap["a"] == .4 and any("cap" in w for w in rec.warnings)
    with pytest.warns(UserWarning, match="2 runs diverged"):
        rec = recommend(W, losses.assign(a=losses["a"].mask(W.index == 3, np.inf).mask(W.index == 4)), target="a", n_boot=2)
    assert rec.runs == 58
    with pytest.warns(UserWarning, match="extrapolates"): recommend(W[W.a < .3], losses[W.a < .3], target="a", n_boot=2)


def test_recommend_takes_a_corpus_and_heldout_targets(runs):
    "Tokens per domain come from the corpus, by name; a target that no mixture contains has no own domain."
    from types import SimpleNamespace
    W, losses = runs
    corpus = SimpleNamespace(names=tuple("edcba"), sizes=np.array([5e6, 4e6, 3e6, 2e6, 1e6]))
    rec = recommend(W, losses.rename(columns={"b": "elsewhere"}), corpus=corpus, tokens=2e6, max_epochs=1, n_boot=2)
    assert np.allclose(rec.table.natural, np.array([1, 2, 3, 4, 5]) / 15) and rec.table.cap["a"] == .5 and set(rec.models) == {"a", "elsewhere"}
    assert np.allclose(rec.table.epochs, rec.table.share * 2e6 / [1e6, 2e6, 3e6, 4e6, 5e6])


def test_a_loss_that_is_not_a_target_may_be_missing(runs):
    W, losses = runs
    assert recommend(W, losses.assign(b=np.nan), target="a", n_boot=2).runs == 60


BAD = {
    "sum": (dict(W=np.full((4, 2), .6), losses=np.ones(4)), "row 0 is no mixture.*sum 1.2"),
    "lengths": (dict(W=np.full((4, 2), .5), losses=np.ones(3)), "4 mixtures, but 3 rows of losses"),
    "no losses": (dict(W=np.full((4, 2), .5)), "no losses"),
    "target": (dict(W=np.full((4, 2), .5), losses=np.ones(4), target="x"), "no losses for target 'x'"),
    "search": (dict(W=np.eye(4), losses=np.arange(4.), search="genetic"), "search is 'genetic'"),
    "tokens": (dict(W=np.eye(4), losses=np.arange(4.), tokens=1e6), "epochs need `corpus` or `available`"),
    "available": (dict(W=np.eye(4), losses=np.arange(4.), tokens=1e6, available=[1, 2]), "numbers for 4 domains"),
    "too long": (dict(W=np.eye(4), losses=np.arange(4.), tokens=1e6, available=np.ones(4)), "tokens"),
    "all diverged": (dict(W=np.eye(4), losses=np.full(4, np.nan)), "0 of 4 runs"),
}


@pytest.mark.parametrize("what", BAD)
def test_recommend_refuses(what):
    kwargs, message = BAD[what]
    with pytest.raises(ValueError, match=message): recommend(**kwargs)


def test_lightgbm_says_that_it_is_constant(runs):
    W, losses = runs
    with pytest.warns(UserWarning, match="LightGBM with 39 runs predicts one constant"): few = LightGBM().fit(W[:39], losses["a"][:39])
    assert np.ptp(few.predict(W)) < 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.ptp(LightGBM().fit(W, losses["a"]).predict(W)) > 0


def test_own_domain_by_name_or_number(runs):
    W, losses = runs
    by_name, by_number = EffectiveDataLaw(own="b").fit(W, losses["b"]), EffectiveDataLaw(own=1).fit(W.to_numpy(), losses["b"])
    assert np.allclose(by_name.theta_, by_number.theta_)
    with pytest.raises(ValueError, match="own='z' is none of the columns"): EffectiveDataLaw(own="z").fit(W, losses["b"])
    with pytest.raises(ValueError, match="[Nn]egative"): EffectiveDataLaw().fit(-W, losses["b"])
    assert own_share("b").fit(W, losses["b"]).predict(W).shape == (60,)


def test_laws_fitted_together_agree_with_apart_when_told_to(runs):
    W, losses = runs
    apart = fit_laws(W, losses, rounds=0)
    for t in losses: assert np.allclose(apart[t].theta_, EffectiveDataLaw(own=t).fit(W, losses[t]).theta_)
    assert not np.allclose(fit_laws(W, losses)["a"].theta_, apart["a"].theta_)
    assert np.allclose(fit_laws(W, losses[["a"]])["a"].theta_, apart["a"].theta_)


@pytest.mark.parametrize("model", [GP(ard=False, max_iter=5), Residual(LinearRegression(), MixingLaw()), MixingLaw()], ids=lambda m: type(m).__name__)
def test_scikit_learn_checks(model):
    from sklearn.utils.estimator_checks import check_estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = [c["check_name"] for c in check_estimator(model, on_fail=None) if c["status"] == "failed"]
    assert not failed
