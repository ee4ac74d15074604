"Page 21: the loader against damaged files; fits, searches and intervals against closed forms, other libraries and hand-made values."
import hashlib
import inspect
import itertools
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime, minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.linear_model import LinearRegression

from mixlab import regmix
from mixlab.mixture import Mixture, caps
from mixlab.regmix import (
    GP, EffectiveDataLaw, LightGBM, MixingLaw, Residual, average, fit_laws, load_1b, load_released, optimise, own_share,
    recommend, ridge, show_recommendation, simulate,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


# ---- RegMix's files ------------------------------------------------------------------------------------------------
def published(folder, runs=12, seed=0):
    "A folder in the format of RegMix's files: rounded shares, prefixes, the 1B index from 0, the older files with printed names."
    rng = np.random.default_rng(seed)
    plain = {
        "stackexchange": "Stack Exchange", "pile_cc": "Pile-CC", "wikipedia_en": "Wikipedia (en)",
        "gutenberg_pg_19": "Gutenberg (PG-19)",
    }
    for name, files in regmix._released.items():
        index = pd.RangeIndex(runs, name="index") + (0 if name == "test_1b" else 1)
        old = name == "history_1m"
        shares = pd.DataFrame(rng.dirichlet(np.ones(17), runs).round(3), index=index)
        shares.columns = [plain.get(d, d.replace("_", " ")) if old else f"train_the_pile_{d}" for d in regmix._pile]
        losses = pd.DataFrame(rng.normal(5, 0.3, (runs, 13)), index=index)
        losses.columns = [
            plain.get(d, d.replace("_", " ")) if old else f"metric/the_pile_{d}_val_loss" for d in regmix._targets
        ]
        shares.to_csv(folder / files[0])
        losses.to_csv(folder / files[1])
    return folder


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "files"
    place.mkdir()
    return published(place)


@pytest.fixture
def genuine(folder, monkeypatch):
    "The made-up files pass for the published ones."
    sums = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in regmix._sha256}
    monkeypatch.setattr(regmix, "_sha256", sums)
    return folder


def read(folder):
    return load_released(folder, check=False)


def edit(folder, file, change):
    table = pd.read_csv(folder / file, index_col="index")
    change(table).to_csv(folder / file)


def test_names_and_sums(folder):
    assert regmix._targets == (
        "arxiv", "freelaw", "pubmed_central", "wikipedia_en", "dm_mathematics", "github", "stackexchange",
        "gutenberg_pg_19", "pile_cc", "ubuntu_irc", "hackernews", "pubmed_abstracts", "uspto_backgrounds",
    )
    for name, t in read(folder).items():
        assert tuple(t["mixture"]) == regmix._pile and tuple(t["loss"]) == regmix._targets, name
        assert np.allclose(t["mixture"].sum(axis=1), 1, atol=1e-12)
    assert read(folder)["test_1b"].index[0] == 0
    raw = load_released(folder, renormalise=False, check=False)["train_1m"]["mixture"].sum(axis=1)
    assert not np.allclose(raw, 1, atol=1e-12)


def test_values_go_to_their_columns(folder):
    "A loss and a share are found under their domain's name, whatever the order of the columns."
    file = pd.read_csv(folder / "train_pile_loss_1m.csv", index_col="index")
    edit(folder, "train_pile_loss_1m.csv", lambda t: t[t.columns[::-1]])
    t = read(folder)["train_1m"]
    assert np.allclose(t["loss", "github"], file["metric/the_pile_github_val_loss"])
    shares = pd.read_csv(folder / "train_mixture_1m.csv", index_col="index")
    assert np.allclose(t["mixture", "github"], shares["train_the_pile_github"] / shares.sum(axis=1))


def test_rows_in_another_order_change_nothing(folder):
    before = read(folder)["train_1m"]
    edit(folder, "train_pile_loss_1m.csv", lambda t: t.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(read(folder)["train_1m"], before)


def put(value, row):
    "A change of a table: this value in every column of one row."
    return lambda t: t.apply(lambda column: column.mask(column.index == row, value))


def negative(t):
    "One share below 0, the sum as it was."
    t.loc[2, "train_the_pile_github"] += t.loc[2, "train_the_pile_arxiv"] + 0.1
    t.loc[2, "train_the_pile_arxiv"] = -0.1
    return t


DAMAGE = {
    "a run without loss": ("train_pile_loss_1m.csv", lambda t: t.drop(index=5), "train_pile_loss_1m.csv: index 5 is missing"),
    "a run without mixture": ("test_mixture_1B.csv", lambda t: t.drop(index=0), "test_mixture_1B.csv: index 0 is missing"),
    "an index twice": ("train_mixture_1m.csv", lambda t: pd.concat([t, t.loc[[3]]]), "train_mixture_1m.csv: index 3 occurs twice"),
    "a value is missing": ("test_pile_loss_60m.csv", put(np.nan, 4), "test_pile_loss_60m.csv: index 4 lacks a value"),
    "infinite": ("test_pile_loss_60m.csv", put(np.inf, 4), "test_pile_loss_60m.csv: index 4 has inf .* finite loss above 0"),
    "a negative loss": ("test_pile_loss_1m.csv", put(-1.0, 6), "test_pile_loss_1m.csv: index 6 has -1.0"),
    "a loss of zero": ("history_loss_1m_1000.csv", put(0.0, 6), "history_loss_1m_1000.csv: index 6 has 0.0"),
    "sum": ("test_mixture_1m.csv", lambda t: t.apply(lambda c: c.mask(c.index == 7, 2 * c)), "test_mixture_1m.csv: index 7 sums to 2"),
    "sum, a little": ("test_mixture_1m.csv", lambda t: t.apply(lambda c: c.mask(c.index == 7, 1.02 * c)), "index 7 sums to 1.02"),
    "negative share": ("test_mixture_1m.csv", negative, "test_mixture_1m.csv: index 2 sums to .* smallest share of -0.1"),
    "text": ("history_loss_1m_1000.csv", lambda t: put("crashed", 3)(t.astype(object)), "history_loss_1m_1000.csv: column 'arxiv' holds"),
    "saved with row numbers": (
        "train_pile_loss_1m.csv", lambda t: t.assign(**{"Unnamed: 0": range(len(t))}), "train_pile_loss_1m.csv: column 'Unnamed: 0'",
    ),
    "a column of another table": (
        "train_pile_loss_1m.csv", lambda t: t.assign(**{"metric/the_pile_europarl_val_loss": 3.0}), "column 'metric/the_pile_europarl",
    ),
    "a column is missing": ("train_mixture_1m.csv", lambda t: t.iloc[:, 1:], "train_mixture_1m.csv: column 'arxiv' is missing"),
    "a column twice": ("train_mixture_1m.csv", lambda t: t.assign(GitHub=0.0), "train_mixture_1m.csv: column 'github' occurs twice"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_without_checksums_too(folder, what):
    file, change, message = DAMAGE[what]
    edit(folder, file, change)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read(folder)


def test_lost_and_unreadable_files(folder):
    (folder / "test_mixture_60m.csv").unlink()
    for check in (True, False):
        with pytest.raises((FileNotFoundError, ValueError), match="test_mixture_60m.csv" if not check else "SHA-256"):
            load_released(folder, check=check)
    (folder / "train_mixture_1m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="train_mixture_1m.csv: no column `index`"):
        read(folder)
    (folder / "train_mixture_1m.csv").write_text("")
    with pytest.raises(ValueError, match="train_mixture_1m.csv: not a CSV"):
        read(folder)
    with pytest.raises(FileNotFoundError, match="folder is"):
        load_released(folder / "nothing here")


def test_checksums_are_compared_whoever_names_the_folder(folder, monkeypatch):
    with pytest.raises(ValueError, match="train_mixture_1m.csv: SHA-256"):
        load_released(folder)
    monkeypatch.setenv("MIXLAB_DATA", str(folder))
    with pytest.raises(ValueError, match="train_mixture_1m.csv: SHA-256.*check=False"):
        load_released()
    assert len(load_released(check=False)["train_1m"]) == 12


def test_a_changed_digit_and_swapped_files_are_noticed(genuine):
    assert len(load_released(genuine)["train_1m"]) == 12
    one, other = genuine / "test_pile_loss_1m.csv", genuine / "test_pile_loss_60m.csv"
    kept, swapped = one.read_bytes(), other.read_bytes()
    one.write_bytes(swapped)
    other.write_bytes(kept)
    with pytest.raises(ValueError, match="test_pile_loss_1m.csv: SHA-256"):
        load_released(genuine)
    one.write_bytes(kept[:-2] + b"\n")
    other.write_bytes(swapped)
    with pytest.raises(ValueError, match="test_pile_loss_1m.csv: SHA-256"):
        load_released(genuine)


def test_folders_are_looked_for_where_the_user_said(genuine, tmp_path, monkeypatch):
    "MIXLAB_DATA or `regmix` in it; never a folder that happens to lie above the working directory."
    monkeypatch.setenv("MIXLAB_DATA", str(genuine))
    assert regmix._find(None) == genuine
    inside = tmp_path / "data" / "regmix"
    shutil.copytree(genuine, inside)
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path / "data"))
    assert regmix._find(None) == inside and len(load_released()["test_1b"]) == 12
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    assert regmix._find(None) is None
    assert regmix._find(genuine) == genuine
    shutil.copytree(genuine, tmp_path / "shared" / "data" / "regmix")
    (tmp_path / "project" / "nbs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "nbs")
    monkeypatch.delenv("MIXLAB_DATA")
    assert regmix._find(None) is None


def test_download(genuine, tmp_path, monkeypatch):
    "Each file is asked for once, at its commit, and kept; a wrong one is refused; offline, the message says what to do."
    import pooch

    asked = {}

    def copy(self, url, output_file, pooch, **kwargs):
        name = next(f for f in regmix._sha256 if regmix._renamed.get(f, f) == url.split("/data/")[1])
        asked[name] = url
        shutil.copy(genuine / name, output_file)

    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MIXLAB_DATA", raising=False)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", copy)
    assert len(load_released()["train_1m"]) == 12
    assert set(asked) == set(regmix._sha256)
    assert (tmp_path / "cache" / "regmix" / "test_mixture_1B.csv").is_file()
    root = "https://raw.githubusercontent.com/sail-sg/regmix"
    assert asked["history_loss_1m_1000.csv"] == f"{root}/{regmix._history}/data/pile/tiny_wandb_1M_1000_pile_4B.csv"
    assert asked["test_mixture_1B.csv"] == f"{root}/{regmix._head}/data/test_mixture_1B.csv"
    asked.clear()
    load_released()
    assert not asked

    shutil.rmtree(tmp_path / "cache")
    edit(genuine, "train_pile_loss_1m.csv", lambda t: t + 1e-3)
    with pytest.raises(ValueError, match="(?s)train_pile_loss_1m.csv.*does not match"):
        load_released()

    def offline(*args, **kwargs):
        raise ConnectionError("no route")

    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", offline)
    with pytest.raises(OSError, match="train_mixture_1m.csv: neither found nor downloaded.*MIXLAB_DATA"):
        load_released()


def test_published_1b_scores():
    t = load_1b()
    assert t.shape == (64, 17 + 13 + 3) and t.index[0] == 1 and tuple(t["mixture"]) == regmix._pile
    assert np.allclose(t["mixture"].sum(axis=1), 1) and t["note", "truncated"].astype(bool).sum() == 3
    assert np.allclose(t["score"].mean(axis=1), t["note", "avg_recomputed"].astype(float), atol=0.001)


# ---- estimators ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    W = pd.DataFrame(rng.dirichlet(np.full(5, 0.6), 60), columns=list("abcde"))
    worth = {"a": [8, 2, 0.1, 0.1, 0.1], "b": [0.1, 8, 1, 0.1, 0.1]}
    noise = {t: 0.005 * rng.normal(size=60) for t in worth}
    losses = pd.DataFrame({t: 2 + (W.to_numpy() ** 0.6 @ w) ** -0.3 + noise[t] for t, w in worth.items()})
    return W, losses


def fresh(n=50, K=5, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(K), n)


def test_ridge_is_the_closed_form_with_the_papers_penalties(runs):
    W, losses = runs
    default = ridge()
    assert default.cv == 5 and np.allclose(default.alphas, 10.0 ** np.arange(-3, 4))
    X, y = W.to_numpy(), losses["a"].to_numpy()
    centred = X - X.mean(axis=0)
    slope = np.linalg.solve(centred.T @ centred + 0.1 * np.eye(5), centred.T @ (y - y.mean()))
    by_hand = y.mean() + (fresh() - X.mean(axis=0)) @ slope
    assert np.allclose(ridge(alphas=[0.1]).fit(X, y).predict(fresh()), by_hand)
    with pytest.raises(ValueError, match="'penalty'"):
        ridge(penalty=1)


def test_own_share_is_a_line_in_one_share(runs):
    W, losses = runs
    slope, intercept = np.polyfit(W["b"], losses["b"], 1)
    for column, X in (("b", W), (1, W.to_numpy())):
        assert np.allclose(own_share(column).fit(X, losses["b"]).predict(X), intercept + slope * W["b"])
    for wrong in (None, 1.5, "", -1, True):
        with pytest.raises(ValueError, match="column is"):
            own_share(wrong)


def test_lightgbm_is_lightgbm(runs):
    from lightgbm import LGBMRegressor

    W, losses = runs
    assert LightGBM().get_params() == dict(n_estimators=1000, learning_rate=0.01, num_leaves=31, min_child_samples=20)
    seen = []
    base = dict(n_estimators=30, learning_rate=0.1, num_leaves=6, min_child_samples=5)
    others = [{}, {"n_estimators": 10}, {"learning_rate": 0.3}, {"num_leaves": 3}, {"min_child_samples": 12}]
    for change in others:
        mine = LightGBM(**base | change).fit(W, losses["a"]).predict(W)
        theirs = LGBMRegressor(**base | change, n_jobs=1, verbose=-1).fit(W, losses["a"]).predict(W)
        assert np.allclose(mine, theirs, atol=1e-12)
        seen.append(mine)
    assert all(not np.allclose(x, y) for x, y in itertools.combinations(seen, 2))


def test_lightgbm_says_that_it_is_constant(runs):
    W, losses = runs
    with pytest.warns(UserWarning, match="LightGBM with 39 runs predicts one constant: a leaf needs 20 of them, a split 40"):
        few = LightGBM().fit(W[:39], losses["a"][:39])
    assert np.ptp(few.predict(W)) < 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.ptp(LightGBM().fit(W, losses["a"]).predict(W)) > 0
        LightGBM(min_child_samples=2, n_estimators=2).fit(W, np.ones(60))  # a constant that is right


def test_mixing_law_finds_what_was_planted():
    t = np.array([-1.0, 0.5, 0.2, -2.0])
    X = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    y = 2 + np.exp(0.3 + X @ t)
    law = MixingLaw(penalty=1e-7).fit(X, y)
    assert law.c_ == pytest.approx(2, abs=1e-4)
    assert np.allclose(law.k_ + law.t_, 0.3 + t, atol=1e-3)  # shares sum to 1: only k + t is known
    assert np.allclose(law.predict(fresh(K=4)), 2 + np.exp(0.3 + fresh(K=4) @ t), atol=1e-5)
    assert np.allclose(law.predict(X), law.c_ + np.exp(law.k_ + X @ law.t_))


def mixing_objective(theta, X, y, penalty):
    c, k, t = theta[0], theta[1], theta[2:]
    return (((c + np.exp(k + X @ t) - y) / y.std()) ** 2).sum() + penalty**2 * (t**2).sum()


def test_mixing_law_is_the_minimum_of_its_penalised_squares(runs):
    W, losses = runs
    X, y = W.to_numpy(), losses["a"].to_numpy()
    for penalty in (0.1, 1.0):
        law = MixingLaw(penalty=penalty).fit(X, y)
        theta = np.r_[law.c_, law.k_, law.t_]
        best = minimize(mixing_objective, theta, (X, y, penalty), method="BFGS")
        assert mixing_objective(theta, X, y, penalty) <= best.fun * (1 + 1e-6)
        assert abs(law.t_).max() > 0.05
    assert not np.allclose(MixingLaw(penalty=0.1).fit(X, y).t_, law.t_, atol=1e-2)
    assert not np.allclose(MixingLaw(max_nfev=2).fit(X, y).predict(X), MixingLaw().fit(X, y).predict(X), atol=1e-4)
    assert MixingLaw().get_params() == dict(penalty=0.01, max_nfev=300)


def test_the_best_of_several_fits_is_kept():
    law = MixingLaw()

    def residual(p):  # two minima: -1, and 1, which is lower
        return np.r_[p * p - 1, 0.1 * (p - 1), 0 * p]

    def jacobian(p):
        return np.array([[2 * p[0]], [0.1], [0.0]])

    starts = [np.array([-1.0]), np.array([1.0])]
    assert law._solve(residual, jacobian, starts)[0] == pytest.approx(1)
    assert law._solve(residual, jacobian, starts[::-1])[0] == pytest.approx(1)


def law_by_hand(X, c, alpha, beta, w):
    return c + (w * X**beta).sum(axis=1) ** -alpha


def made(c, alpha, beta, w, names=None):
    "An effective-data law with these parameters, as if fitted."
    law, beta = EffectiveDataLaw(), np.asarray(beta, float)
    law.n_features_in_ = len(w)
    if names is not None:
        law.feature_names_in_ = np.array(names, object)
    law.theta_ = np.r_[c, np.log(alpha), 0, np.log(beta / (1 - beta)), np.log(w)]
    return law


def test_effective_data_law_is_its_formula(runs):
    W, losses = runs
    beta, w = np.array([0.3, 0.5, 0.7]), np.array([2.0, 1.0, 0.1])
    law, X = made(1.5, 0.2, beta, w), fresh(K=3)
    assert np.allclose([law.c_, law.alpha_], [1.5, 0.2]) and np.allclose(law.beta_, beta) and np.allclose(law.weights_, w)
    assert np.allclose(law.predict(X), law_by_hand(X, 1.5, 0.2, beta, w), atol=1e-13)
    assert law.predict([[1.0, 0, 0]])[0] == pytest.approx(1.5 + 2**-0.2)  # a share of 0 counts for nothing
    fitted = EffectiveDataLaw(own="a").fit(W, losses["a"])
    parameters = fitted.c_, fitted.alpha_, fitted.beta_, fitted.weights_
    assert np.allclose(fitted.predict(W), law_by_hand(W.to_numpy(), *parameters), atol=1e-12)
    assert np.isfinite(fitted.predict(np.zeros((1, 5)))).all()


@pytest.mark.parametrize("make", [EffectiveDataLaw, MixingLaw])
def test_gradients_are_those_of_the_prediction(runs, make):
    W, losses = runs
    law, r = make().fit(W.to_numpy(), losses["a"]), fresh(1)[0]
    by_differences = approx_fprime(r, lambda r: law.predict(r[None])[0], 1e-7)
    assert np.allclose(law.gradient(r[None])[0], by_differences, rtol=1e-4, atol=1e-6)
    assert law.gradient(fresh(3)).shape == (3, 5)
    named = make().fit(W, losses["a"])
    frame = pd.DataFrame(fresh(3), columns=list("abcde"))
    assert np.allclose(named.gradient(frame[list("ecadb")]), named.gradient(frame)[:, [4, 2, 0, 3, 1]])
    with pytest.raises(ValueError, match="feature names|columns"):
        named.predict(frame[list("ecadb")])  # as scikit-learn does
    with pytest.raises(ValueError, match="X has columns"):
        named.gradient(frame.rename(columns={"a": "z"}))


def test_the_slope_at_zero_counts_as_that_at_1e_9():
    law = made(1, 0.5, [0.5, 0.5], [1.0, 1.0])
    at_zero, near = law.gradient([[0.0, 1.0]]), law.gradient([[1e-9, 1.0]])
    assert np.allclose(at_zero, near) and np.isfinite(at_zero).all()


def objective(theta, X, y, noise, worth):
    "What the fit minimises, in the units of y."
    K, sd = X.shape[1], y.std()
    beta = 1 / (1 + np.exp(-(theta[2] + theta[3 : 3 + K])))
    log_w = theta[3 + K :]
    misfit = (law_by_hand(X, theta[0], np.exp(theta[1]), beta, np.exp(log_w)) - y) / sd
    apart = (log_w - worth) - (log_w - worth).mean()
    prior = np.r_[
        (theta[0] - (y.min() - 2 * sd)) / (3 * sd), (theta[1] - np.log(0.15)) / 0.7, (theta[2] - 0.5) / 0.5,
        theta[3 : 3 + K] / 0.4, apart / 1.2,
    ]
    return (misfit**2).sum() + noise**2 * (prior**2).sum()


@pytest.mark.parametrize("noise, own", [(0.15, None), (0.15, 1), (1.0, 3)])
def test_effective_data_law_is_the_maximum_a_posteriori(runs, noise, own):
    W, losses = runs
    X, y, worth = W.to_numpy(), losses["b"].to_numpy(), np.zeros(5)
    if own is not None:
        worth[own] = 2
    law = EffectiveDataLaw(own=own, noise=noise).fit(X, y)
    found = objective(law.theta_, X, y, noise, worth)
    lower = minimize(objective, law.theta_, (X, y, noise, worth), method="BFGS").fun
    assert found <= lower * (1 + 1e-5)
    assert EffectiveDataLaw().get_params() == dict(own=None, noise=0.15, prior=None, warm_start=False, max_nfev=300)


def test_a_fit_that_trusts_only_its_priors_is_the_priors(runs):
    W, losses = runs
    y = losses["a"]
    law = EffectiveDataLaw(own="b", noise=1e5).fit(W, y)
    assert law.c_ == pytest.approx(y.min() - 2 * y.std(ddof=0), abs=1e-6)
    assert law.alpha_ == pytest.approx(0.15, abs=1e-6) and np.allclose(law.beta_, 1 / (1 + np.exp(-0.5)))
    assert np.allclose(law.weights_ / law.weights_[0], [1, np.e**2, 1, 1, 1], rtol=1e-6)
    worth = np.array([0.5, 0, -1, 0, 2])
    by_prior = EffectiveDataLaw(own="b", noise=1e5, prior=worth).fit(W, y)  # prior instead of own
    assert np.allclose(np.log(by_prior.weights_ / by_prior.weights_[1]), worth, atol=1e-6)
    by_name = EffectiveDataLaw(noise=1e5, prior=pd.Series(worth, list("abcde")).iloc[::-1]).fit(W, y)
    assert np.allclose(by_name.weights_, by_prior.weights_)


def test_least_squares_has_the_slopes_of_its_residuals(runs):
    W, losses = runs
    X, z = W.to_numpy().copy(), (losses["a"].to_numpy() - 2.5) / 0.2
    X[0] = [1, 0, 0, 0, 0]
    residual, jacobian, starts = regmix._least_squares(X, z, *regmix._prior(z, np.arange(5.0), 0.3))
    assert len(starts) == 2
    for theta, below in zip(starts, (2, 0.7)):
        by_differences = np.array([approx_fprime(theta, lambda p, i=i: residual(p)[i], 1e-7) for i in range(len(residual(theta)))])
        assert np.allclose(jacobian(theta), by_differences, atol=1e-4)
        assert theta[0] == pytest.approx(z.min() - below)
        log_S, alpha, *_ = regmix._effective(theta, regmix._log(X))
        assert np.exp(-alpha * np.median(log_S)) == pytest.approx(np.median(z) - theta[0])  # the median loss is right


def test_effective_data_law_finds_what_was_planted():
    w = np.r_[8, 4, 2, 1, 0.5, 0.2]
    A, B = np.random.default_rng(0).dirichlet(np.full(6, 0.5), (2, 128))
    law = EffectiveDataLaw(noise=0.01).fit(A, law_by_hand(A, 2, 0.3, 0.6, w))
    assert np.allclose(law.predict(B), law_by_hand(B, 2, 0.3, 0.6, w), atol=2e-3)
    assert np.array_equal(np.argsort(law.weights_), np.argsort(w))


def test_own_domain_by_name_or_number(runs):
    W, losses = runs
    assert EffectiveDataLaw(own=1)._expected(3).tolist() == [0, 2, 0]
    by_name, by_number = EffectiveDataLaw(own="b").fit(W, losses["b"]), EffectiveDataLaw(own=1).fit(W.to_numpy(), losses["b"])
    assert np.allclose(by_name.theta_, by_number.theta_)
    assert not np.allclose(by_name.predict(W), EffectiveDataLaw().fit(W, losses["b"]).predict(W), atol=1e-5)
    with pytest.raises(ValueError, match="own='z' is none of the columns"):
        EffectiveDataLaw(own="z").fit(W, losses["b"])
    with pytest.raises(ValueError, match="[Nn]egative.*'a'|[Nn]egative"):
        EffectiveDataLaw().fit(-W, losses["b"])


def test_a_warm_start_goes_on_from_the_last_fit(runs):
    W, losses = runs
    for unit in (1, 1000):
        y = unit * losses["a"] + 7
        law = EffectiveDataLaw(warm_start=True).fit(W, y)
        before = law.theta_.copy()
        law.set_params(max_nfev=1).fit(W, y)  # no way to go: it starts where it stopped
        assert np.allclose(law.theta_, before, rtol=1e-3, atol=1e-3)
        cold = EffectiveDataLaw(max_nfev=1).fit(W, y)
        assert not np.allclose(cold.theta_, before, rtol=1e-2, atol=1e-2)


MODELS = [EffectiveDataLaw(), MixingLaw(), GP(max_iter=20), LightGBM(n_estimators=30, min_child_samples=5), Residual(LinearRegression(), GP(max_iter=5))]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_no_fit_depends_on_the_unit_of_the_loss(runs, model):
    from sklearn.base import clone

    W, losses = runs
    y = losses["a"]
    plain = clone(model).fit(W, y).predict(W)
    for unit, shift in ((1000, 0), (1e-9, 0), (1, 1000), (1e12, 0)):
        p = (clone(model).fit(W, unit * y + shift).predict(W) - shift) / unit
        assert np.allclose(p, plain, atol=1e-4 * y.std()), (unit, shift)


def test_parameters_are_in_the_unit_of_the_loss(runs):
    W, losses = runs
    law, thousand = (EffectiveDataLaw().fit(W, k * losses["a"]) for k in (1, 1000))
    assert thousand.c_ == pytest.approx(1000 * law.c_, rel=1e-4) and thousand.alpha_ == pytest.approx(law.alpha_, rel=1e-3)
    assert np.allclose(thousand.weights_ / law.weights_, 1000 ** (-1 / law.alpha_), rtol=1e-2)
    mixing, more = (MixingLaw().fit(W, k * losses["a"]) for k in (1, 1000))
    assert more.c_ == pytest.approx(1000 * mixing.c_, rel=1e-4) and more.k_ == pytest.approx(mixing.k_ + np.log(1000), abs=1e-3)
    assert regmix._standard(np.array([1.0, 2, 6])) == (3, pytest.approx(np.sqrt(14 / 3)))
    assert regmix._standard(np.full(3, -4.0)) == (-4, 4) and regmix._standard(np.zeros(3)) == (0, 1)


def test_perplexities_rank_and_are_searched():
    rng = np.random.default_rng(2)
    W = pd.DataFrame(rng.dirichlet(np.full(4, 0.7), 60), columns=list("wxyz"))
    y = np.exp(4.5 + 1 + (0.2 + W.to_numpy() @ [0.1, 2, 1, 0.3]) ** -0.5)
    p = EffectiveDataLaw().fit(W[:40], y[:40]).predict(W[40:])
    assert pd.Series(p).corr(pd.Series(y[40:]), method="spearman") > 0.97
    rec = recommend(W[:40], y[:40], n_boot=0, progress=False)
    assert rec.mixture["x"] > 0.8
    with pytest.raises(ValueError, match="too wide"):
        EffectiveDataLaw().fit(W, np.r_[1e200, y[1:]])


def test_gp_is_scikit_learns(runs):
    W, losses = runs
    X, y = W.to_numpy()[:30], losses["a"][:30]

    def scaled(X, eps):
        return np.log(1 + X / eps) / np.log(1 + 1 / eps)

    for ard, eps in ((False, 0.01), (True, 0.05)):
        kernel = ConstantKernel(1, (1e-2, 1e3)) * Matern(np.ones(5) if ard else 1.0, (0.1, 100), nu=2.5)
        kernel = kernel + ConstantKernel(1, (1e-3, 1e3)) * DotProduct(1, "fixed") + WhiteKernel(1e-3, (1e-5, 1e-1))
        theirs = GaussianProcessRegressor(kernel, normalize_y=True).fit(scaled(X, eps), y).predict(scaled(fresh(), eps))
        mine = GP(eps=eps, ard=ard).fit(X, y).predict(fresh())
        assert np.allclose(mine, theirs, atol=0.02 * y.std())
    few = GP(ard=False, max_iter=1).fit(X, y)
    assert few.n_iter_ <= 1 and not np.allclose(few.predict(fresh()), GP(ard=False).fit(X, y).predict(fresh()))
    assert GP().get_params() == dict(eps=0.01, ard=None, max_iter=100)


def test_gp_has_a_length_scale_per_domain_from_four_runs_per_domain(runs):
    W, losses = runs
    scales = {n: np.size(GP(max_iter=1).fit(W[:n], losses["a"][:n]).gp_.kernel_.k1.k1.k2.length_scale) for n in (19, 20)}
    assert scales == {19: 1, 20: 5}


def test_residual_corrects_what_the_base_leaves(runs):
    W, losses = runs
    y = losses["a"].to_numpy()
    base = MixingLaw().fit(W, y)
    correction = LinearRegression().fit(W, y - base.predict(W))
    both = Residual(MixingLaw(), LinearRegression()).fit(W, y)
    assert np.allclose(both.predict(W), base.predict(W) + correction.predict(W))
    for name in ("base", "correction"):
        with pytest.raises(ValueError, match=f"{name} is"):
            Residual(**{"base": MixingLaw(), "correction": MixingLaw(), name: "ridge"}).fit(W, y)


def test_average_is_the_mean_of_three(runs):
    W, losses = runs
    W, y = W[:30], losses["b"][:30]
    law = EffectiveDataLaw(own="b").fit(W, y)
    parts = [law.predict(W), GP().fit(W, y).predict(W), Residual(EffectiveDataLaw(own="b"), GP()).fit(W, y).predict(W)]
    assert np.allclose(average("b").fit(W, y).predict(W), np.mean(parts, axis=0))
    with pytest.raises(ValueError, match="X and y.*NaN"):
        average().fit(W, y.mask(y.index == 3))
    with pytest.raises(ValueError, match="own is"):
        average(own=1.5)


def test_many_rows_are_predicted_in_blocks(runs):
    W, losses = runs
    law = made(1.5, 0.2, [0.3, 0.5, 0.7], np.array([2.0, 1.0, 0.1]))
    many = fresh(20_001, 3)
    assert np.allclose(law.predict(many), law_by_hand(many, 1.5, 0.2, np.array([0.3, 0.5, 0.7]), [2, 1, 0.1]), atol=1e-12)
    gp, many = GP(max_iter=2).fit(W.to_numpy()[:20], losses["a"][:20]), fresh(8_200)
    assert np.allclose(gp.predict(many)[8_190:], gp.predict(many[8_190:])) and len(gp.predict(many)) == 8_200


def test_what_estimators_say_of_their_inputs():
    for model in (MixingLaw(), EffectiveDataLaw(), GP(), Residual(LinearRegression(), MixingLaw())):
        assert model.__sklearn_tags__().input_tags.positive_only
    assert not Residual(LinearRegression(), LinearRegression()).__sklearn_tags__().input_tags.positive_only
    assert MixingLaw().__sklearn_tags__().regressor_tags.poor_score and not GP().__sklearn_tags__().regressor_tags.poor_score


WRONG = [
    (EffectiveDataLaw, dict(noise=0)), (EffectiveDataLaw, dict(noise=np.nan)), (EffectiveDataLaw, dict(warm_start="yes")),
    (EffectiveDataLaw, dict(max_nfev=0)), (EffectiveDataLaw, dict(own=5)), (EffectiveDataLaw, dict(own=-1)),
    (EffectiveDataLaw, dict(prior=[1.0])), (EffectiveDataLaw, dict(prior=[np.nan] * 5)), (MixingLaw, dict(penalty=-1)),
    (MixingLaw, dict(max_nfev=2.5)), (GP, dict(eps=0)), (GP, dict(ard=1)), (GP, dict(max_iter=0)),
    (LightGBM, dict(n_estimators=0)), (LightGBM, dict(learning_rate=-1)), (LightGBM, dict(num_leaves=1)),
    (LightGBM, dict(min_child_samples=True)),
]


@pytest.mark.parametrize("make, options", WRONG, ids=lambda x: x.__name__ if isinstance(x, type) else str(x))
def test_options_are_stored_by_init_and_checked_by_fit(runs, make, options):
    W, losses = runs
    model = make(**options)
    with pytest.raises(ValueError, match=next(iter(options))):
        model.fit(W, losses["a"])


@pytest.mark.parametrize(
    "model", [GP(ard=False, max_iter=5), Residual(LinearRegression(), MixingLaw()), MixingLaw()], ids=lambda m: type(m).__name__
)
def test_scikit_learn_checks(model):
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = [c["check_name"] for c in check_estimator(model, on_fail=None) if c["status"] == "failed"]
    assert not failed


# ---- laws together -------------------------------------------------------------------------------------------------
def test_what_targets_tell_each_other():
    laws = {t: SimpleNamespace(weights_=np.exp(np.array(w, float))) for t, w in (("a", [3, 1, 0]), ("b", [0, 5, 2]), ("z", [9, 0, 0]))}
    # for z, which is no domain: rows a and b without their own entries; a: (., .5, -.5), b: (-1, ., 1)
    assert np.allclose(regmix._shared(laws, "z", ["a", "b", "c"]), [-1, 0.5, 0.25])
    # for a: b: (-1, 4, 1) about the mean of its others, z: (6, -3, -3); its own: what b is worth to b
    assert np.allclose(regmix._shared(laws, "a", ["a", "b", "c"]), [4, -3, -1])


def test_laws_fitted_together_agree_with_apart_when_told_to(runs):
    W, losses = runs
    apart = fit_laws(W, losses, rounds=0)
    for t in losses:
        assert np.allclose(apart[t].theta_, EffectiveDataLaw(own=t).fit(W, losses[t]).theta_)
    together = fit_laws(W, losses)
    assert not np.allclose(together["a"].theta_, apart["a"].theta_)
    assert not np.allclose(together["a"].predict(W), fit_laws(W, losses, rounds=1)["a"].predict(W), atol=1e-7)
    assert np.allclose(together["a"].predict(W), fit_laws(W, losses, rounds=3)["a"].predict(W), atol=1e-9)
    assert np.allclose(fit_laws(W, losses[["a"]])["a"].theta_, apart["a"].theta_)


def test_one_round_by_hand(runs):
    W, losses = runs
    apart = fit_laws(W, losses, rounds=0)
    prior = regmix._shared(apart, "b", list(W))
    by_hand = EffectiveDataLaw(prior=prior).fit(W, losses["b"]).predict(W)
    assert np.allclose(fit_laws(W, losses, rounds=1)["b"].predict(W), by_hand, atol=1e-4)


def test_runs_are_joined_by_index_and_never_paired_by_position(runs):
    W, losses = runs
    mixed = losses.sample(frac=1, random_state=1)
    straight, shuffled = fit_laws(W, losses)["a"], fit_laws(W, mixed)["a"]
    assert np.allclose(straight.predict(W), shuffled.predict(W))
    a, b = (recommend(W, y, n_boot=0, progress=False).mixture for y in (losses["a"], mixed["a"]))
    assert np.allclose(a.weights, b.weights)
    for call in (fit_laws, recommend):
        with pytest.raises(ValueError, match="different indexes"):
            call(W, losses.rename(index={0: "another run"}))


# ---- searches ------------------------------------------------------------------------------------------------------
def linear(slopes, names=None, intercept=3.0):
    "A fitted straight line."
    X = np.random.default_rng(0).dirichlet(np.ones(len(slopes)), 30)
    X = X if names is None else pd.DataFrame(X, columns=names)
    return LinearRegression(fit_intercept=False).fit(X, np.asarray(X) @ (np.asarray(slopes, float) + intercept))


def test_weighted_means_of_models():
    constant = {t: SimpleNamespace(predict=lambda X, v=v: np.full(len(X), v)) for t, v in (("a", 1.0), ("b", 4.0))}
    assert np.allclose(regmix._total(constant, {"a": 2.0, "b": 1.0}, np.zeros((3, 2))), 2)
    assert np.allclose(regmix._total(constant, None, np.zeros((3, 2))), 2.5)


def test_simulate_averages_the_best_candidates(runs):
    W, losses = runs
    laws = fit_laws(W, losses)
    cloud = fresh(500)
    loss = (3 * laws["a"].predict(pd.DataFrame(cloud, columns=W.columns)) + laws["b"].predict(pd.DataFrame(cloud, columns=W.columns))) / 4
    by_hand = cloud[np.argsort(loss, kind="stable")[:10]].mean(axis=0)
    assert np.allclose(simulate(laws, cloud, top=10, weights={"a": 3, "b": 1}), by_hand)
    for change in (dict(top=11), dict(weights={"a": 1, "b": 3}), dict(weights=None), dict(caps=np.full(5, 0.5))):
        assert not np.allclose(simulate(laws, cloud, **dict(top=10, weights={"a": 3, "b": 1}) | change), by_hand)
    low = cloud[(cloud <= 0.5).all(axis=1)]
    capped = simulate(laws["a"], cloud, top=3, caps=np.full(5, 0.5))
    assert np.allclose(capped, simulate(laws["a"], low, top=3)) and capped.max() <= 0.5
    with pytest.raises(ValueError, match="within the caps, top=400"):
        simulate(laws, cloud, top=400, caps=np.full(5, 0.3))


def test_simulate_draws_from_the_dirichlet_that_it_was_given(runs):
    W, losses = runs
    law = EffectiveDataLaw().fit(W, losses["a"])
    prior = np.array([3.0, 1, 1, 0.5, 2])
    drawn = np.random.default_rng(7).dirichlet(prior, 300)
    assert np.allclose(simulate(law, prior, n=300, top=5, seed=7), simulate(law, drawn, top=5))
    assert not np.allclose(simulate(law, prior, n=300, top=5, seed=8), simulate(law, drawn, top=5))
    assert not np.allclose(simulate(law, prior, n=200, top=5, seed=7), simulate(law, drawn, top=5))
    rng = np.random.default_rng(3)  # more than one block
    two = np.r_[rng.dirichlet(prior, 65_536), rng.dirichlet(prior, 4_464)]
    assert np.allclose(simulate(law, prior, n=70_000, seed=3), simulate(law, two))
    by_name = dict(zip("edcba", prior[::-1]))
    assert np.allclose(simulate(law, by_name, n=300, top=5, seed=7), simulate(law, drawn, top=5))
    assert inspect.signature(simulate).parameters["top"].default == 100 and inspect.signature(simulate).parameters["n"].default == 1_000_000


def test_models_whose_columns_stand_in_another_order(runs):
    W, losses = runs
    straight = {t: EffectiveDataLaw(own=t).fit(W, losses[t]) for t in losses}
    turned = straight | {"b": EffectiveDataLaw(own="b").fit(W[list("ecadb")], losses["b"])}
    assert np.allclose(optimise(turned), optimise(straight), atol=1e-4)
    assert np.allclose(simulate(turned, fresh(300), top=5), simulate(straight, fresh(300), top=5))
    lines = {"a": linear([1, 0, 2], list("xyz")), "b": linear([5, 0, 0], list("zyx"))}
    cloud = fresh(200, 3)
    best = cloud[np.argsort(cloud @ [1, 0, 7], kind="stable")[:4]].mean(axis=0)
    assert np.allclose(simulate(lines, cloud, top=4), best)
    with pytest.raises(ValueError, match="another model"):
        simulate({"a": lines["a"], "b": linear([1, 2, 3], list("xyw"))}, cloud)


def test_optimise_finds_the_closed_form():
    "With β = 1/2, S = Σ w √r is largest at r in proportion to w²; a straight line fills its cheapest domains to their caps."
    w = np.array([3.0, 2.0, 1.0, 0.5])
    law = made(1, 0.3, np.full(4, 0.5), w)
    assert np.allclose(optimise(law), w**2 / (w**2).sum(), atol=2e-4)
    limit = np.array([0.3, 1, 1, 1])  # the rest in proportion to w² again
    assert np.allclose(optimise(law, caps=limit), np.r_[0.3, 0.7 * w[1:] ** 2 / (w[1:] ** 2).sum()], atol=2e-4)
    line = linear([0.3, 0.1, 0.2, 0.4])
    assert np.allclose(optimise(line), [0, 1, 0, 0], atol=1e-5)
    assert np.allclose(optimise(line, caps=[1, 0.4, 0.25, 1]), [0.35, 0.4, 0.25, 0], atol=1e-5)
    both = {"a": linear([0, 1, 2]), "b": linear([4, 1, 0])}
    assert np.allclose(optimise(both, weights={"a": 9, "b": 1}), [1, 0, 0], atol=1e-5)
    assert np.allclose(optimise(both, weights={"a": 1, "b": 9}), [0, 0, 1], atol=1e-5)
    assert np.allclose(optimise(both), np.array([0, 1, 0]), atol=1e-5) or optimise(both) @ [2, 1, 1] == pytest.approx(1, abs=1e-5)


def test_optimise_beats_a_cloud_within_its_caps(runs):
    laws = fit_laws(*runs)
    limit = np.array([0.15, 0.3, 0.5, 1, 1])
    best = optimise(laws, caps=limit, weights={"a": 2, "b": 1})
    cloud = fresh(20_000)
    cloud = cloud[(cloud <= limit).all(axis=1)]
    mixed = regmix._total(laws, {"a": 2, "b": 1}, np.r_[best[None], cloud], "_value")
    assert mixed[0] <= mixed[1:].min() + 1e-6 and (best <= limit + 1e-9).all() and abs(best.sum() - 1) < 1e-9
    assert np.allclose(optimise(laws, caps=np.full(5, 0.2)), 0.2)


def test_optimise_takes_every_caps_that_leave_room(runs):
    laws = fit_laws(*runs)["a"]
    rng = np.random.default_rng(0)
    for i in range(40):
        sizes = rng.integers(1, 10**6, 5)
        limit = caps(dict(zip("abcde", sizes.tolist())), 4.0 * sizes.sum(), 4)  # exactly one mixture, up to rounding
        assert np.allclose(optimise(laws, caps=limit), sizes / sizes.sum(), atol=1e-6)
        limit = np.minimum(1, rng.dirichlet(np.full(5, 0.5)) * rng.choice([1.02, 1.5, 5]))
        if limit.sum() >= 1:
            found = optimise(laws, caps=limit)
            assert (found <= limit + 1e-6).all() and found.min() >= 0 and found.sum() == pytest.approx(1)


def test_no_start_is_better_under_tight_caps(runs):
    "Caps of a few thousandths beside caps of 1: the search must not end early."
    law = fit_laws(*runs)["b"]
    limit = np.array([1, 0.003, 0.0005, 1, 0.01])
    ends = [law._value(optimise(law, start=r, caps=limit)[None])[0] for r in fresh(6)]
    assert np.ptp(ends) < 1e-6


BAD_CAPS = {
    "negative": ([-1, 1, 1, 1, 1], "caps: domain 'a' has -1"), "NaN": ([np.nan, 1, 1, 1, 1], "caps: domain 'a' has nan"),
    "no room": (np.full(5, 0.1), "caps add up to 0.5"), "too few": (np.full(4, 0.5), "caps has shape"),
    "stranger": ({"a": 1, "b": 1, "c": 1, "d": 1, "z": 1}, "'z'"), "text": ("abc", "caps"),
}


@pytest.mark.parametrize("what", BAD_CAPS)
def test_caps_that_are_none(runs, what):
    law = EffectiveDataLaw().fit(runs[0], runs[1]["a"])
    value, message = BAD_CAPS[what]
    with pytest.raises(ValueError, match=message):
        optimise(law, caps=value)
    with pytest.raises(ValueError, match=message):
        simulate(law, fresh(), top=3, caps=value)


def test_caps_and_start_by_name(runs):
    W, losses = runs
    law = EffectiveDataLaw().fit(W, losses["a"])
    limit = {"a": 0.2, "b": 0.3, "c": 0.9, "d": 1.0, "e": 0.8}
    turned = dict(reversed(limit.items()))
    assert np.allclose(optimise(law, caps=turned), optimise(law, caps=list(limit.values())), atol=1e-7)
    assert np.allclose(simulate(law, fresh(200), top=3, caps=turned), simulate(law, fresh(200), top=3, caps=list(limit.values())))
    bare = EffectiveDataLaw().fit(W.to_numpy(), losses["a"])
    for argument in ("caps", "start"):
        with pytest.raises(ValueError, match=f"{argument} names domains"):
            optimise(bare, **{argument: {d: 0.2 for d in limit}})


class Wells:
    "A fitted model with one minimum near each of some mixtures; the first is not the deepest."

    n_features_in_ = 3

    def __init__(self, *centres):
        self.centres, self.depth, self.width = np.array(centres), np.arange(1, len(centres) + 1), 0.03

    def predict(self, X):
        squares = ((np.asarray(X)[:, None] - self.centres) ** 2).sum(axis=2)
        return 5 - (self.depth * np.exp(-squares / self.width)).sum(axis=1)


def test_starts_decide_where_a_search_that_is_not_convex_ends():
    wells = Wells([0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8])
    ends = {j: optimise(wells, start=np.full(3, 0.1) + 0.7 * np.eye(3)[j]) for j in range(3)}
    for j, end in ends.items():
        assert np.allclose(end, wells.centres[j], atol=0.02)
    both = optimise(wells, start=[[0.75, 0.15, 0.1], [0.1, 0.15, 0.75]])  # the lowest end counts, not the first
    assert np.allclose(both, wells.centres[2], atol=0.02)
    many = Wells(*np.random.default_rng(0).dirichlet(np.ones(3), 12))
    many.depth, many.width = 1 + np.arange(12) / 50, 0.01
    assert len({tuple(np.round(optimise(many, seed=s), 2)) for s in range(6)}) > 1
    assert np.array_equal(optimise(many, seed=3), optimise(many, seed=3))


def test_searches_that_cannot_end_well_say_so(runs):
    W, losses = runs
    with pytest.raises(ValueError, match="flat.*simulate"):
        optimise(LightGBM().fit(W, losses["a"]))
    broken = Wells([0.8, 0.1, 0.1])
    broken.predict = lambda X: np.full(len(X), np.nan)
    for search in (lambda: optimise(broken), lambda: simulate(broken, fresh(20, 3), top=3)):
        with pytest.raises(ValueError, match="models predict nan"):
            search()
    with pytest.raises(ValueError, match="fitted"):
        optimise(EffectiveDataLaw())
    with pytest.raises(ValueError, match="models is empty"):
        optimise({})


def test_finite_differences_find_the_law_s_optimum(runs):
    W, losses = runs
    law = EffectiveDataLaw().fit(W, losses["a"])

    class Hidden:  # the same model without its closed form
        n_features_in_, feature_names_in_ = 5, np.array(list("abcde"))

        def predict(self, X):
            return law.predict(X)

    assert np.allclose(optimise(Hidden()), optimise(law), atol=5e-3)


def test_the_nearest_mixture_within_caps():
    assert np.allclose(regmix._within_caps(np.array([0.7, 0.2, 0.1]), np.array([0.4, 1, 1])), [0.4, 0.35, 0.25])
    assert np.allclose(regmix._within_caps(np.array([0.9, 0.1, 0.0]), np.array([0.5, 0.3, 1])), [0.5, 0.3, 0.2])
    rng = np.random.default_rng(0)
    for _ in range(20):
        r, limit = rng.dirichlet(np.ones(4)), np.minimum(1, rng.dirichlet(np.ones(4)) * 1.6)
        equal = {"type": "eq", "fun": lambda x: x.sum() - 1}
        start = limit / limit.sum()
        theirs = minimize(lambda x: ((x - r) ** 2).sum(), start, bounds=[(0, c) for c in limit], constraints=equal).x
        mine = regmix._within_caps(r, limit)
        assert np.allclose(mine, theirs, atol=1e-3) and mine.sum() == pytest.approx(1)


def test_how_far_a_convex_loss_could_fall():
    slope, r = np.array([1.0, -2, 0.5]), np.array([0.5, 0.2, 0.3])
    assert regmix._gap(r, slope, np.ones(3)) == pytest.approx(0.25 + 2)  # to (0, 1, 0)
    assert regmix._gap(r, slope, np.array([1, 0.4, 0.3])) == pytest.approx(0.25 - (0.3 - 0.8 + 0.15))  # to (.3, .4, .3)


# ---- recommend -----------------------------------------------------------------------------------------------------
few = dict(n_boot=8, progress=False)


def test_recommend_takes_arrays_tables_mixtures_and_sweeps(runs):
    W, losses = runs
    table = pd.concat({"run": pd.DataFrame({"status": "ok"}, index=W.index), "mixture": W, "loss": losses}, axis=1)
    array = recommend(W.to_numpy(), losses.to_numpy()[:, 0], names=list("abcde"), **few)
    assert array.mixture.names == tuple("abcde") and array.mixture["a"] > 0.5
    a, b = recommend(table, target="a", **few), recommend(W, losses, target="a", **few)
    pd.testing.assert_frame_equal(a.table, b.table)
    rows = [Mixture(dict(reversed(row.items()))) for row in W.to_dict("records")]
    listed = recommend(rows, losses["a"].to_numpy(), **few)
    assert set(listed.mixture.names) == set("abcde") and listed.mixture["a"] == pytest.approx(b.mixture["a"], abs=1e-3)
    numbered = recommend(pd.DataFrame(W.to_numpy()), losses["a"].to_numpy(), **few)
    assert numbered.mixture.names == tuple(f"domain_{j}" for j in range(5))
    assert "uniform" in a.gain.index and "natural" not in a.gain.index and "share" in repr(a) and "<table" in a._repr_html_()


def test_targets_and_their_weights(runs):
    W, losses = runs
    mixed = recommend(W, losses, target={"a": 3, "b": 1}, **few)
    by_hand = optimise(fit_laws(W, losses), weights={"a": 0.75, "b": 0.25})
    assert np.allclose(mixed.mixture.weights, by_hand, atol=1e-4)
    for other in (Mixture({"b": 0.25, "a": 0.75}), pd.Series({"b": 1.0, "a": 3.0}), [3, 1]):
        assert np.allclose(recommend(W, losses, target=other, **few).mixture.weights, by_hand, atol=1e-4)
    assert not np.allclose(recommend(W, losses, target={"a": 1, "b": 3}, **few).mixture.weights, by_hand, atol=1e-2)
    alone = recommend(W, losses, target={"a": 1, "b": 0}, **few)
    assert list(alone.models) == ["a"]
    assert np.allclose(alone.mixture.weights, recommend(W, losses, target="a", **few).mixture.weights)
    loss = mixed.gain.loss["uniform"]
    laws, even = fit_laws(W, losses), pd.DataFrame(np.full((1, 5), 0.2), columns=W.columns)
    assert loss == pytest.approx(float(0.75 * laws["a"].predict(even)[0] + 0.25 * laws["b"].predict(even)[0]), abs=1e-5)


def fixed(models, caps, weights):
    return [0.5, 0.2, 0.1, 0.1, 0.1]


def test_gains_and_their_intervals_by_hand(runs):
    "A straight line, a search that always says the same: what is left is the bootstrap."
    W, losses = runs
    rec = recommend(W, losses["a"], model=LinearRegression(), search=fixed, natural=[0.1, 0.1, 0.1, 0.1, 0.6], n_boot=20, seed=4, level=0.8, progress=False)
    X = np.array([fixed(0, 0, 0), [0.1, 0.1, 0.1, 0.1, 0.6], np.full(5, 0.2)])
    rng, gains = np.random.default_rng(4), []
    for _ in range(20):
        rows = rng.integers(60, size=60)
        p = LinearRegression().fit(W.to_numpy()[rows], losses["a"].to_numpy()[rows]).predict(X)
        gains.append(p[1:] - p[0])
    low, high = np.quantile(gains, [0.1, 0.9], axis=0)
    p = LinearRegression().fit(W.to_numpy(), losses["a"]).predict(X)
    assert list(rec.gain.index) == ["recommended", "uniform", "natural"]
    for i, name in enumerate(("natural", "uniform")):
        assert np.allclose(rec.gain.loc[name, ["loss", "gain", "low", "high"]].astype(float), [p[i + 1], p[i + 1] - p[0], low[i], high[i]])
    assert np.allclose(rec.gain.loc["recommended"].astype(float), [p[0], 0, 0, 0])
    assert np.allclose(rec.mixture.weights, fixed(0, 0, 0)) and (rec.table.low == rec.table.high).all()
    assert rec.level == 0.8 and rec.draws.shape == (20, 5)


def test_intervals_of_shares_are_quantiles_of_the_draws(runs):
    W, losses = runs
    rec = recommend(W, losses, target="a", n_boot=12, level=0.5, progress=False)
    low, high = np.quantile(rec.draws, [0.25, 0.75], axis=0)
    assert np.allclose(rec.table.low, low) and np.allclose(rec.table.high, high) and (high - low).max() > 1e-3
    assert np.allclose(rec.table.share, rec.mixture.weights) and rec.gain.gain["uniform"] > 0
    wider = recommend(W, losses, target="a", n_boot=12, level=0.95, progress=False)
    assert np.array_equal(wider.draws, rec.draws) and ((wider.table.high - wider.table.low) >= (high - low) - 1e-12).all()
    assert (wider.table.high - wider.table.low).sum() > (high - low).sum()


def test_draws_are_searches_of_fits_to_resampled_runs(runs):
    W, losses = runs
    rec = recommend(W, losses, target="a", n_boot=2, seed=5, progress=False)
    rng = np.random.default_rng(5)
    for draw in rec.draws:
        rows = rng.integers(60, size=60)
        assert np.allclose(draw, optimise(EffectiveDataLaw(own="a").fit(W.iloc[rows], losses["a"].iloc[rows])), atol=5e-3)
    assert not np.allclose(rec.draws, recommend(W, losses, target="a", n_boot=2, seed=6, progress=False).draws)
    assert np.array_equal(rec.draws, recommend(W, losses, target="a", n_boot=2, seed=5, progress=False).draws)


def test_a_forest_that_may_start_warm_is_fitted_anew(runs):
    "scikit-learn's warm start adds nothing to a forest that is whole: every bootstrap would be the same forest."
    from sklearn.ensemble import ExtraTreesRegressor

    W, losses = runs

    def search(models, caps, weights):
        return simulate(models, fresh(100), top=5)

    rec = recommend(W, losses, target="a", model=ExtraTreesRegressor(10, random_state=0), search=search, n_boot=4, progress=False)
    assert np.ptp(rec.draws, axis=0).max() > 1e-3


def test_the_model_and_the_search_are_those_given(runs):
    W, losses = runs
    seen = []

    def search(models, caps, weights):
        seen.append((type(models["a"]).__name__, caps, weights))
        return simulate(models, fresh(100), top=5)

    rec = recommend(W, losses, target="a", model=MixingLaw(), search=search, n_boot=2, progress=False)
    assert seen == [("MixingLaw", None, {"a": 1.0})] * 3
    law = MixingLaw().fit(W, losses["a"])
    assert np.allclose(rec.mixture.weights, simulate(law, fresh(100), top=5))
    own = recommend(W, losses, target="b", model=EffectiveDataLaw(), n_boot=0, progress=False)
    assert own.models["b"].own == "b"
    for wrong in ([0.5, 0.5], [2.0, -1, 0, 0, 0], [np.nan] * 5, "best"):
        with pytest.raises(ValueError, match="search"):
            recommend(W, losses, target="a", search=lambda m, c, w: wrong, **few)
    supply = dict(a=1.0, b=5.0, c=5.0, d=5.0, e=5.0)
    with pytest.raises(ValueError, match="'a' has share 0.5, above its cap of 0.4"):
        recommend(W, losses, target="a", search=fixed, available=supply, tokens=10.0, **few)


def test_epochs_and_caps(runs):
    W, losses = runs
    supply = dict(e=8e6, d=8e6, c=8e6, b=1e6, a=1e6)
    rec = recommend(W, losses, target="a", available=supply, tokens=1e7, **few)
    assert rec.table.epochs["a"] == pytest.approx(4, abs=1e-6) and rec.table.cap["a"] == 0.4
    assert any(w.startswith("a: at the cap") or ", a: at the cap" in w or "a, b: at the cap" in w for w in rec.warnings)
    assert np.allclose(rec.table.epochs, rec.table.share * 1e7 / [supply[d] for d in W])
    assert np.allclose(rec.table.natural, [supply[d] / 26e6 for d in W])
    assert recommend(W, losses, target="a", available=supply, tokens=1e7, max_epochs=2, **few).table.cap["a"] == 0.2
    assert recommend(W, losses, target="a", available=supply, tokens=5e6, **few).table.cap["a"] == pytest.approx(0.8)
    free = recommend(W, losses, target="a", available=supply, **few)
    assert "cap" not in free.table and free.mixture["a"] > 0.4
    other = recommend(W, losses, target="a", available=supply, natural=Mixture(dict(zip("edcba", [0.1, 0.1, 0.1, 0.1, 0.6]))), **few)
    assert other.table.natural["a"] == pytest.approx(0.6) and set(other.gain.index) == {"natural", "uniform", "recommended"}


def test_recommend_takes_a_corpus_and_heldout_targets(runs):
    "Tokens per domain come from the corpus, by name; a target that no mixture contains has no own domain."
    W, losses = runs
    corpus = SimpleNamespace(names=tuple("edcba"), sizes=np.array([5e6, 4e6, 3e6, 2e6, 1e6]))
    rec = recommend(W, losses.rename(columns={"b": "elsewhere"}), corpus=corpus, tokens=2e6, max_epochs=1, **few)
    assert np.allclose(rec.table.natural, np.array([1, 2, 3, 4, 5]) / 15) and rec.table.cap["a"] == 0.5
    assert set(rec.models) == {"a", "elsewhere"}
    assert np.allclose(rec.table.epochs, rec.table.share * 2e6 / [1e6, 2e6, 3e6, 4e6, 5e6])


def test_runs_that_failed_are_left_out_and_counted(runs):
    W, losses = runs
    holes = losses.assign(a=losses["a"].mask(W.index == 3, np.inf).mask(W.index == 4))
    kept = ~W.index.isin([3, 4])
    rec = recommend(W, holes, target="a", **few)
    assert rec.runs == 58 and rec.warnings[0] == "2 runs diverged or have no loss: left out"
    assert np.allclose(rec.mixture.weights, recommend(W[kept], losses[kept], target="a", **few).mixture.weights)
    status = pd.DataFrame({"status": np.where(kept, "ok", "diverged")}, index=W.index)
    lowest = losses.copy()
    lowest.loc[~kept] = 2.0  # would be the best
    table = pd.concat({"run": status, "mixture": W, "loss": lowest}, axis=1)
    marked = recommend(table, target="a", **few)
    assert marked.runs == 58 and np.allclose(marked.mixture.weights, rec.mixture.weights)
    twice = pd.concat([table, table])  # two sweeps put together: labels stand twice
    assert recommend(twice, target="a", n_boot=0, progress=False).runs == 116
    again = fit_laws(table, table["loss"])
    assert np.allclose(again["a"].predict(W), fit_laws(W[kept], losses[kept])["a"].predict(W))
    assert recommend(W, losses.assign(b=np.nan), target="a", **few).runs == 60  # not a target
    with pytest.raises(ValueError, match="target 'a' is inf in run 3"):
        fit_laws(W, holes)


def test_what_a_reader_must_know():
    W = pd.DataFrame(np.eye(2), columns=["x", "y"])
    table = pd.DataFrame({"share": [0.5, 0.5], "low": 0.5, "high": 0.5}, index=["x", "y"])
    gain = pd.DataFrame({"loss": [1, 1], "gain": [0.1, 0], "low": [-0.1, 0], "high": [0.3, 0]}, index=["uniform", "recommended"])
    assert regmix._notes(table, gain, W, 0, 0.25) == ["uniform: the predicted gain over this mixture may be zero"]
    sure = gain.assign(low=0.05)
    assert regmix._notes(table, sure, W, 0, 0.25) == []
    assert regmix._notes(table, sure, W, 1, 0.25) == ["1 runs diverged or have no loss: left out"]
    unsure = table.assign(low=[0.4, 0.3], high=[0.6, 0.6])
    assert regmix._notes(unsure, sure, W, 0, 0.25)[0].startswith("y: the interval is wider than 0.25")
    assert regmix._notes(unsure, sure, W, 0, 0.35) == []
    beyond = regmix._notes(table, sure, W * [0.4, 1], 0, 0.25)
    assert len(beyond) == 1 and beyond[0].startswith("x: share above that of any run")
    held = regmix._notes(table.assign(cap=[0.5, 1.0]), sure, W, 0, 0.25)
    assert len(held) == 1 and held[0].startswith("x: at the cap")
    assert regmix._notes(table.assign(share=1.0, cap=1.0), sure, W, 0, 0.25) == []  # a cap of 1 holds nothing back


def test_width_that_is_worth_a_warning_and_no_bootstrap(runs):
    W, losses = runs
    narrow = recommend(W, losses, target="a", wide=1e-9, **few)
    assert any("wider than 1e-09" in w for w in narrow.warnings)
    none = recommend(W, losses, target="a", n_boot=0, progress=False)
    assert none.table.low.isna().all() and none.draws.shape == (0, 5) and "n_boot is 0: there are no intervals" in none.warnings
    with pytest.warns(UserWarning, match="extrapolates"):
        recommend(W[W.a < 0.3], losses[W.a < 0.3], target="a", n_boot=2, progress=False)
    defaults = {k: p.default for k, p in inspect.signature(recommend).parameters.items()}
    assert (defaults["n_boot"], defaults["level"], defaults["wide"], defaults["max_epochs"], defaults["seed"]) == (200, 0.9, 0.25, 4, 0)


class Late(LinearRegression):
    "A model that must not be reached."

    def fit(self, X, y):
        raise AssertionError("fitted before the arguments were checked")


BAD = {
    "sum": (dict(W=np.full((4, 2), 0.6), losses=np.ones(4)), r"W\[0\] sums to 1.2"),
    "lengths": (dict(W=np.full((4, 2), 0.5), losses=np.ones(3)), "4 rows, losses has 3"),
    "no losses": (dict(W=np.full((4, 2), 0.5)), "losses is missing"),
    "target": (dict(target="x"), "target: no target 'x'"),
    "no weight": (dict(target={"loss": 0}), "target: all weights are 0"),
    "weight NaN": (dict(target={"loss": np.nan}), "target: domain 'loss' has nan"),
    "search": (dict(search="genetic"), "search is 'genetic'"),
    "tokens alone": (dict(tokens=1e6), "tokens is given: epochs need `corpus` or `available`"),
    "tokens": (dict(tokens=-1, available=np.ones(4)), "tokens is -1"),
    "available": (dict(available=[1, 2]), "available has shape"),
    "available, none": (dict(available=np.zeros(4)), "available: all amounts are 0"),
    "available, other names": (dict(available={"q": 1}), "available has no domain"),
    "corpus": (dict(corpus="text"), "corpus is 'text'"),
    "too long": (dict(tokens=1e6, available=np.ones(4)), "tokens"),
    "natural": (dict(natural=[5, 5, 5, 5]), "natural sums to 20, expected 1"),
    "natural in per cent": (dict(natural=[25, 25, 25, 25]), "natural sums to 100"),
    "max_epochs": (dict(max_epochs=0), "max_epochs is 0"),
    "level": (dict(level=95), "level is 95.*0.95"),
    "n_boot": (dict(n_boot=2.5), "n_boot is 2.5"),
    "seed": (dict(seed=-1), "seed is -1"),
    "wide": (dict(wide=np.nan), "wide is nan"),
    "progress": (dict(progress="no"), "progress is 'no'"),
    "names": (dict(names=["a", "b"]), r"W has shape"),
    "model": (dict(model="ridge"), "model is 'ridge'"),
    "all diverged": (dict(losses=np.full(4, np.nan)), "losses: 0 of 4 runs"),
    "all the same": (dict(losses=np.full(4, 2.5)), "target 'loss' is 2.5 in all 4 runs"),
    "other index": (dict(W=pd.DataFrame(np.eye(4)), losses=pd.Series(np.arange(4.0), index=[0, 1, 2, 4])), "different indexes"),
    "a number for a name": (dict(losses=pd.DataFrame({3: np.arange(4.0)})), "target 3 is not a name"),
}


@pytest.mark.parametrize("what", BAD)
def test_recommend_refuses_before_it_fits(what):
    wrong, message = BAD[what]
    good = dict(W=np.eye(4), losses=None if "W" in wrong else np.arange(4.0), model=Late(), progress=False)
    with pytest.raises(ValueError, match=message):
        recommend(**good | wrong)


def test_what_is_drawn_is_what_was_recommended(runs):
    W, losses = runs
    rec = recommend(W, losses, target="a", available=dict.fromkeys("abcde", 3.0), tokens=15.0, **few)
    ax = show_recommendation(rec)
    order = rec.table.sort_values("share")
    assert [bar.get_width() for bar in ax.patches] == order.share.tolist()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(order.index)
    assert show_recommendation(rec, ax) is ax
    with pytest.raises(ValueError, match="rec is"):
        show_recommendation("advice")
