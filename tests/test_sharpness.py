"What cannot be a lesson on page 40: exact values, AdamW written out, nothing changed, bad input, agreement with curvlinops."
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from mixlab import sharpness
from mixlab.proxy import Proxy, forward, shapes
from mixlab.sharpness import (Critical, along, critical_lr, critical_lr_stack, dot, gradients, gram_window, hessian_product, measure, midtrain, mix,
                              relative, show_along, show_midtrain, sweet_spots, text_batches, top_eigenvalue, trace, update)
from mixlab.train import Trained, configuration, counter_hash, train

torch.set_num_threads(1)


# ---- the search -------------------------------------------------------------------------------------------------------
def parabola(H, theta, u): return lambda e: .5 * (theta - e * u) @ H @ (theta - e * u)

def stacked(f): return lambda etas: np.array([f(e) for e in etas])

def test_exact_values_on_a_diagonal():
    theta = np.ones(3)
    u = np.diag([1., 4, 9]) @ theta
    own, other = (parabola(np.diag(d), theta, u) for d in ([1., 4, 9], [9., 4, 1]))
    fine = critical_lr(own, .1, rtol=1e-9)
    assert fine.eta == pytest.approx(.246851, abs=1e-6) and fine.sharpness == pytest.approx(8.102041, abs=1e-6)
    fine = critical_lr(other, .1, rtol=1e-9)
    assert fine.eta == pytest.approx(.441558, abs=1e-6) and fine.sharpness == pytest.approx(4.529412, abs=1e-6)
    assert [(c.eta, c.n_forward) for c in (critical_lr(own, .1), critical_lr(other, .1))] == [(.24375, 8), (.4375, 9)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
@example(231)  # rises from the start, by so little that a step of 1e-12 looks like descent
def test_random_parabolas_another_loss_along_an_update(seed):
    "Error at most 1/30; no descent exactly where u.g <= 0; eta(ku) = eta(u)/k; a stack of steps agrees."
    rng = np.random.default_rng(seed)
    A, theta, u = rng.normal(size=(20, 20)), rng.normal(size=20), rng.normal(size=20)
    H = A @ A.T / 20
    f, slope = parabola(H, theta, u), u @ H @ theta
    if slope <= 0:
        c = critical_lr(f, 1e-3)
        assert (c.status, c.eta, c.sharpness) == ("no_descent", 0, np.inf)
        return
    exact = 2 * slope / (u @ H @ u)
    c = critical_lr(f, exact * 2 ** rng.uniform(-1, 1))
    assert c.status == "ok" and abs(c.eta / exact - 1) <= 1/30 and c.n_forward in (6, 7)
    assert c.low <= exact * (1 + 1e-9) and exact <= c.high * (1 + 1e-9) and 1 - c.low / c.high <= 1/16
    k = rng.uniform(.1, 10)
    fine = [critical_lr(parabola(H, theta, v), exact, rtol=1e-6).eta for v in (u, k * u)]
    assert fine[1] == pytest.approx(fine[0] / k, rel=1e-5)
    together = critical_lr_stack(stacked(f), exact * 2 ** rng.uniform(-1, 1))
    assert abs(together.eta / exact - 1) <= 1/16


def test_searches_side_by_side_equal_searches_alone():
    asked = []
    a = np.array([1., 30, -1, .001])
    def f(e):
        asked.append(e.copy())
        return e * e / 2 - a * e
    c = critical_lr(f, np.array([1., 1, 1, 5]))
    alone = [critical_lr(lambda e: e * e / 2 - x * e, s) for x, s in zip(a, (1., 1, 1, 5))]
    for field in ("eta", "low", "high", "status", "n_forward"): assert list(getattr(c, field)) == [getattr(x, field) for x in alone]
    assert list(c.n_forward) == list(np.isfinite(asked).sum(0)), "what is counted is what was asked"


@pytest.mark.parametrize("f, status, eta", [
    (lambda e: e, "no_descent", 0), (lambda e: -e, "no_increase", np.inf), (lambda e: 0 * e, "no_increase", np.inf),
    (lambda e: np.where(e > 0, np.nan, 1.), "no_descent", 0), (lambda e: np.where(np.asarray(e) > 0, np.inf, 1.), "no_descent", 0)])
def test_named_statuses(f, status, eta):
    c, s = critical_lr(f), critical_lr_stack(lambda e: np.asarray(f(e)))
    assert (c.status, c.eta) == (status, eta) and (s.status, s.eta) == (status + "_in_span", eta)
    assert c.sharpness == (np.inf if eta == 0 else 0)
    assert critical_lr(f, doublings=3).n_forward <= 5

def test_nan_is_an_increase():
    for bad in (np.nan, np.inf):
        f = lambda e: np.where(np.asarray(e) > .3, bad, -np.asarray(e))
        for c in (critical_lr(f, .01), critical_lr(f, 100.), critical_lr_stack(f, .1)): assert c.status == "ok" and abs(c.eta / .3 - 1) <= 1/16

def test_the_stack_finds_the_first_crossing():
    f = lambda e: np.where(np.isin(e, (2., 32.)), 1., -np.asarray(e))
    assert critical_lr_stack(f, 8.).high == 2

@pytest.mark.parametrize("kw, message", [(dict(start=0.), "start is 0.0"), (dict(start=-1.), "start is -1.0"), (dict(start=np.nan), "start is nan"), (dict(rtol=0), "rtol is 0"), (dict(rtol=1), "rtol is 1")])
def test_bad_searches(kw, message):
    with pytest.raises(ValueError, match=message): critical_lr(lambda e: e, **kw)
    if "start" in kw:
        with pytest.raises(ValueError, match=message): critical_lr_stack(lambda e: e, **kw)

def test_a_loss_that_is_none_at_the_start():
    with pytest.raises(ValueError, match="at step size 0 is nan"): critical_lr(lambda e: np.nan)
    with pytest.raises(ValueError, match="at step size 0 is inf"): critical_lr_stack(lambda e: e + np.inf)


# ---- two gradients ----------------------------------------------------------------------------------------------------
def test_windows_of_two_gradients():
    g = np.array([[1., 0], [0, 2]])
    assert gram_window(g @ g.T) == pytest.approx({"low": 0, "high": 1, "mgda": .8})
    g = np.array([[1., 0], [-1, 2]])
    assert gram_window(g @ g.T) == pytest.approx({"low": .5, "high": 5/6, "mgda": .75})
    g = np.array([[1., 0], [-1, 0]])
    assert gram_window(g @ g.T) == pytest.approx({"low": np.nan, "high": np.nan, "mgda": .5}, nan_ok=True)      # opposed
    assert np.isnan(gram_window(np.zeros((2, 2)))["low"])
    for bad in ([[1, 2]], [[1, np.nan], [0, 1]]):
        with pytest.raises(ValueError, match="M has shape|is nan"): gram_window(bad)

@pytest.mark.parametrize("H, crossing, best, eta", [((np.eye(2), np.eye(2)), .8, .8, None), ((np.diag([4., 1]), np.diag([1., 3])), .938587, .707, None)])
def test_best_step_need_not_be_a_crossing(H, crossing, best, eta):
    g, r = np.array([[1., 0], [0, 2]]), np.linspace(0, 1, 2001)[1:-1]
    U = np.stack([r, 1 - r], 1) @ g
    etas = np.stack([critical_lr(lambda e: .5 * np.einsum("ni,ij,nj->n", *[e[:, None] * U] [:1], h, e[:, None] * U) - e * (U @ gj), np.ones(len(r)), rtol=1e-7).eta for h, gj in zip(H, g)])
    sign = np.flatnonzero(np.diff(np.sign(etas[0] - etas[1])))
    assert min(abs(r[sign] - crossing)) < 1e-3 and abs(r[etas.min(0).argmax()] - best) < 2e-3


# ---- a model ----------------------------------------------------------------------------------------------------------
def small(seed=1):
    "A model with all parts at work, and text for it; the same on every machine."
    model = Proxy(vocab=16, width=8, depth=2, heads=2, hidden=16)
    g = torch.Generator().manual_seed(seed)
    # drawn in double precision: single-precision draws differ in their last digits from one instruction set to another
    scale = {k: 1. if k == "embed" else .35 for k in shapes(model)}
    params = {k: scale[k] * torch.randn((1, *shape), generator=g, dtype=torch.float64) for k, shape in shapes(model).items()}
    tokens = torch.from_numpy((counter_hash(7, np.arange(6)[:, None], np.arange(13)) % np.uint64(16)).astype(np.int64))
    return model, params, tokens

def trained(params, model, optimizer=None, **config):
    c = configuration(SimpleNamespace(vocab=16), "tiny", **{k: getattr(model, k) for k in ("width", "depth", "heads", "hidden")}, context=12, **config)
    c["vocab"] = 16
    return Trained(params, ("a", "b"), np.ones((1, 2)) / 2, np.ones((1, 2)) / 2, np.zeros((1, 0)), ["ok"], c, np.zeros(1, int), 0, optimizer)

def state(params, seed=5):
    g = torch.Generator().manual_seed(seed)
    draw = lambda v: torch.randn(v.shape, generator=g, dtype=torch.float64)
    return {"step": 7} | {k: {"exp_avg": .1 * draw(v), "exp_avg_sq": .01 * draw(v).square()} for k, v in params.items()}

@pytest.mark.parametrize("decay", [0., .1])
@pytest.mark.parametrize("kind", ["adamw", "kept"])
def test_update_is_adamw_written_out_and_torch_adamw(kind, decay):
    model, params, tokens = small()
    start = trained(params, model, state(params), weight_decay=decay, clip=.05)
    g = mix(gradients(params, tokens.view(2, 3, -1), model), [[.3, .7], [1, 0]])
    u = update(start, g, kind)
    (b1, b2), lr, decays = start.config["betas"], start.config["lr"], lambda k: k == "head" or "." in k
    for i in range(2):
        clipped = min(1, .05 / dot(g, g)[i] ** .5)
        assert clipped < 1
        own = {k: v[i:i + 1] * clipped for k, v in g.items()}
        t, old = (start.optimizer["step"], start.optimizer) if kind == "kept" else (0, {k: {"exp_avg": 0, "exp_avg_sq": 0} for k in g})
        p = {k: v.clone().requires_grad_() for k, v in params.items()}
        opt = torch.optim.AdamW([{"params": [v for k, v in p.items() if decays(k) == d], "weight_decay": decay * d} for d in (True, False)], lr=lr, betas=(b1, b2))
        for k in p:
            p[k].grad = own[k].clone()
            if t: opt.state[p[k]] = {"step": torch.tensor(float(t)), **{a: m.clone() for a, m in old[k].items()}}
        opt.step()
        for k in g:
            m, v = b1 * old[k]["exp_avg"] + (1 - b1) * own[k], b2 * old[k]["exp_avg_sq"] + (1 - b2) * own[k] ** 2
            byhand = m / (1 - b1 ** (t + 1)) / ((v / (1 - b2 ** (t + 1))).sqrt() + 1e-8) + decay * decays(k) * params[k]
            assert (u[k][i] - byhand[0]).abs().max() < 1e-9, k
            assert (u[k][i] - ((params[k] - p[k]) / lr)[0]).abs().max() < 1e-6, k

@pytest.mark.parametrize("kind", ["sgd", "adamw", "kept"])
def test_measuring_changes_nothing(kind):
    "Parameters and optimizer state, in single precision as `train` keeps them, bit for bit."
    model, params, tokens = small()
    start = trained({k: v.float() for k, v in params.items()}, model, {k: v if k == "step" else {a: t.float() for a, t in v.items()} for k, v in state(params).items()})
    tensors = lambda: [*start.params.values(), *(t for k, v in start.optimizer.items() if k != "step" for t in v.values())]
    before = [t.clone() for t in tensors()]
    u = update(start, gradients(start.params, tokens.view(2, 3, -1), model), kind)
    found = relative(start.params, u, {"a": tokens[:3], "b": tokens[3:]}, model)
    hessian_product(start.params, tokens, model)({k: v[:1] for k, v in u.items()})
    assert all(map(torch.equal, before, tensors())) and start.optimizer["step"] == 7
    assert all(t.grad is None and not t.requires_grad for t in tensors()) and len(found) == 4

def test_relative_agrees_with_searches_one_by_one():
    model, params, tokens = small()
    texts, g = {"a": tokens[:3], "b": tokens[3:]}, gradients(params, tokens.view(2, 3, -1), model)
    u = mix(g, [[1, 0], [.5, .5], [-1, 0]])
    table = relative(params, u, texts, model).set_index(["domain", "update"])
    assert table.loc[("a", 2), "status"] == "no_descent" and table.loc[("a", 2), "sharpness"] == np.inf
    for (d, i), row in table.iterrows():
        one = {k: v[[i]] for k, v in u.items()}
        f = along(params, one, texts[d], model)
        c = critical_lr(lambda e: f(e), 1., rtol=1e-4)
        assert row.slope == pytest.approx((f(0.) - f(1e-6)) / 1e-6, abs=1e-4) and row.norm == pytest.approx(dot(one, one)[0] ** .5)
        assert (row.status, c.status) == ("no_descent",) * 2 or abs(row.eta / c.eta - 1) <= 1/16, (d, i)

def test_along_is_the_loss_of_that_model():
    model, params, tokens = small()
    u = gradients(params, tokens[None], model)
    f = along(params, u, tokens, model)
    etas = np.array([0, .5, np.nan, 2.])
    for e, got in zip(etas, f(etas)):
        if np.isnan(e): assert np.isnan(got); continue
        logits = forward({k: v - e * u[k] for k, v in params.items()}, tokens[None, :, :-1], model, fused=False)
        assert got == pytest.approx(torch.nn.functional.cross_entropy(logits[0].flatten(0, 1), tokens[:, 1:].flatten()).item(), abs=1e-12)
    assert np.array_equal(along(params, u, tokens, model, stack=1)(etas[:2]), f(etas[:2])) and np.ndim(f(.5)) == 0

def test_directions_that_are_none():
    model, params, tokens = small()
    g = gradients(params, tokens.view(2, 3, -1), model)
    with pytest.raises(ValueError, match="direction 1 has norm 0"): along(params, mix(g, [[1, 0], [0, 0]]), tokens, model)
    with pytest.raises(ValueError, match="direction 0 has norm nan"): along(params, {k: v * np.nan for k, v in g.items()}, tokens, model)
    with pytest.raises(ValueError, match="3 step sizes for 2 directions"): along(params, g, tokens, model)(np.ones(3))
    with pytest.raises(ValueError, match=r"texts\['a'\]: its loss has slope nan"): relative({k: v * np.nan for k, v in params.items()}, g, {"a": tokens}, model)
    start = trained(params, model)
    with pytest.raises(ValueError, match="no optimizer state"): update(start, g, "kept")
    with pytest.raises(ValueError, match="'adam', expected one of 'sgd'"): update(start, g, "adam")
    with pytest.raises(ValueError, match="2 members, expected one"): update(replace(start, W=np.ones((2, 2)) / 2), g)


# ---- Hessian products -------------------------------------------------------------------------------------------------
CURVLINOPS = {"top": 3.4397385610825673, "least": -2.47944865445378, "trace": 11.2088078808821, "v.Hv": 4.863270230196873, "|Hv|": 5.320236553529802}  # 3.0.1, of `small`

def wave(params): return {k: torch.from_numpy(np.cos(np.arange(v.numel()))).view(v.shape) for k, v in params.items()}

def test_products_agree_with_recorded_curvlinops():
    model, params, tokens = small()
    hv, v = hessian_product(params, tokens, model), wave(params)
    Hv = hv(v)
    assert dot(v, Hv)[0] == pytest.approx(CURVLINOPS["v.Hv"], rel=1e-8) and dot(Hv, Hv)[0] ** .5 == pytest.approx(CURVLINOPS["|Hv|"], rel=1e-8)
    top, bound = top_eigenvalue(hv, params, 20)
    assert top[0] == pytest.approx(CURVLINOPS["top"], rel=1e-8) and bound[0] < 1e-4
    top, bound = top_eigenvalue(hv, params, 30)
    assert top[0] == pytest.approx(CURVLINOPS["top"], rel=1e-12) and bound[0] < 1e-9
    least, _ = top_eigenvalue(lambda v: {k: -t for k, t in hv(v).items()}, params, 20)
    assert -least[0] == pytest.approx(CURVLINOPS["least"], rel=1e-6)
    t = trace(hv, params, 64)
    assert abs(t.value - CURVLINOPS["trace"])[0] < (t.high - t.low)[0], "within four standard errors"

def test_products_agree_with_curvlinops_itself():
    HessianLinearOperator = pytest.importorskip("curvlinops").HessianLinearOperator
    from torch.nn.attention import SDPBackend, sdpa_kernel
    model, params, tokens = small()
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.ParameterList([torch.nn.Parameter(v.clone()) for v in params.values()])
        def forward(self, x): return forward(dict(zip(params, self.p)), x[None], model, fused=False)[0].flatten(0, 1)
    net, v = Net(), wave(params)
    with sdpa_kernel(SDPBackend.MATH):
        H = HessianLinearOperator(net, torch.nn.CrossEntropyLoss(), list(net.p), [(tokens[:, :-1], tokens[:, 1:].flatten())])
        dense = H.to_scipy() @ np.eye(sum(t.numel() for t in net.p))
    ours, flat = hessian_product(params, tokens, model)(v), torch.cat([t.flatten() for t in v.values()]).numpy()
    assert abs(dense @ flat - torch.cat([t.flatten() for t in ours.values()]).numpy()).max() < 1e-10
    assert {"top": np.linalg.eigvalsh(dense)[-1], "trace": np.trace(dense)} == pytest.approx({k: CURVLINOPS[k] for k in ("top", "trace")})

def test_products_are_derivatives_of_gradients_and_linear_in_the_mixture():
    model, params, tokens = small()
    v, e = wave(params), 1e-7       # so small that no squared ReLU passes its kink in between
    Hv = hessian_product(params, tokens[:3], model)(v)
    up, down = (gradients({k: params[k] + s * e * v[k] for k in v}, tokens[None, :3], model) for s in (1, -1))
    for k in v: assert (Hv[k] - (up[k] - down[k]) / (2 * e)).abs().max() < 1e-6
    w = np.repeat([[.3, .7], [1, 0]], 3, axis=1) / 3
    both = hessian_product(params, tokens, model, w)({k: t.expand(2, *t.shape[1:]) for k, t in v.items()})
    ends = [Hv, hessian_product(params, tokens[3:], model)(v)]
    for k in v:
        assert torch.allclose(both[k][[0]], .3 * ends[0][k] + .7 * ends[1][k], atol=1e-12) and torch.allclose(both[k][[1]], Hv[k], atol=1e-12)

def test_lanczos_and_hutchinson_on_known_matrices():
    rng = np.random.default_rng(3)
    A = rng.normal(size=(2, 30, 30))
    A = torch.from_numpy(A + A.transpose(0, 2, 1))
    product = lambda v: {"w": torch.einsum("nij,nj->ni", A, v["w"])}
    like = {"w": torch.zeros(2, 30)}
    top, bound = top_eigenvalue(product, like, steps=30)
    assert np.allclose(top, np.linalg.eigvalsh(A)[:, -1]) and (bound < 1e-6).all()
    rough, bound = top_eigenvalue(product, like, steps=8)
    assert (abs(rough - top) <= bound + 1e-9).all() or (rough <= top).all()
    assert abs(trace(product, like, probes=4000).value - A.diagonal(dim1=1, dim2=2).sum(1).numpy()).max() < 3


# ---- the study --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def corpus():
    "Two domains of letters that follow each other, forwards and backwards."
    rng, n = np.random.default_rng(0), 6000
    text = {(d, s): ((np.cumsum(rng.choice([1, 2], n, p=[.9, .1]) * sign)) % 8).astype(np.uint16) for d, sign in (("up", 1), ("down", -1)) for s in ("train", "valid")}
    return SimpleNamespace(names=("up", "down"), targets=("up", "down"), vocab=8, token_bytes=np.ones(8, int), tokens=lambda d, split="train": text[d, split])

QUICK = dict(pretraining=60, steps=25, repeats=2, rows=8, tokens=1024, progress=False, width=16, hidden=32, context=16, batch=8)

@pytest.fixture(scope="module")
def table(corpus): return midtrain(corpus, "up", {"down": 1.}, [1, 0, .5], seeds=(0, 3), lrs=(1e-3, 1e-2), updates=("sgd", "adamw", "kept"), **QUICK)

def test_table_of_the_study(corpus, table):
    assert list(table.columns[:8]) == ["seed", "lr", "ratio", "domain", "before", "after", "change", "status"]
    assert len(table) == 2 * 2 * 3 * 2 and not table.isna().any().any() and table.status.eq("ok").all()
    for kind in ("sgd", "adamw", "kept"):
        for c in ("eta", "sharpness", "no_descent", "slope", "norm", "n_forward"): assert f"{c}_{kind}" in table
        assert (table[f"sharpness_{kind}"] == 2 / table[f"eta_{kind}"].where(table[f"eta_{kind}"] > 0, 2 / np.inf)).all() or (table[f"eta_{kind}"] == 0).any()
    assert np.allclose(table.change, table.after - table.before)
    same = table.groupby(["seed", "ratio", "domain"])[["before", "eta_sgd", "slope_adamw"]].nunique()
    assert (same == 1).all().all(), "what is measured does not depend on the learning rate"
    change = table[table.lr == 1e-2].set_index(["seed", "ratio", "domain"]).change
    for s in (0, 3): assert change[s, 1, "general"] < change[s, 0, "general"] and change[s, 0, "special"] < change[s, 1, "special"]

RESOLUTION = 16 / 15  # two searches of one crossing: one middle at most 31/30 of it, the other at least 31/32

def assert_same_study(one, other):
    """The same measurements from models that differ by float32's rounding (a member of another stack, another CPU).

    Losses agree to float32's accuracy. A slope is a difference of nearly opposed sums, so it is compared on the scale of
    all slopes. A critical learning rate is the middle of a bracket: where rounding decides between two brackets, they
    are neighbours, so the answers agree within the resolution of the search, and so do their medians."""
    assert list(one.columns) == list(other.columns) and len(one) == len(other)
    for c in one.columns.drop(["measuring", "training"]):
        if one[c].dtype.kind not in "fiu":
            assert one[c].tolist() == other[c].tolist(), c
        elif c.startswith(("eta", "sharpness")):
            finite = np.isfinite(one[c]) & (one[c] > 0)
            assert (finite == (np.isfinite(other[c]) & (other[c] > 0))).all(), c
            apart = np.abs(np.log(one[c][finite] / other[c][finite]))
            assert (apart <= np.log(RESOLUTION) + 1e-3).all(), c
        elif c.startswith("n_forward"):
            assert (np.abs(one[c] - other[c]) <= 2 * 2).all(), f"{c}: one or two steps more for each of two batches"
        else:
            np.testing.assert_allclose(one[c], other[c], rtol=2e-3, atol=2e-3 * np.abs(other[c]).max(), err_msg=c)

def test_study_is_a_pure_function_and_members_are_what_they_would_be_alone(corpus, table):
    one = midtrain(corpus, "up", "down", [0, .5, 1], seeds=(3,), lrs=(1e-2,), updates=("sgd", "adamw", "kept"), **QUICK)
    rest = table[(table.seed == 3) & (table.lr == 1e-2)].reset_index(drop=True)
    assert_same_study(one, rest)

@pytest.mark.parametrize("seed", range(4))
def test_a_measurement_survives_float32s_rounding(corpus, seed):
    "Parameters moved by a few parts in ten million, which is what another order of sums does to them."
    pre = train(corpus, [.9, .1], steps=60, seed=seed, keep_optimizer=True, progress=False, width=16, hidden=32, context=16, batch=8)
    noise = torch.Generator().manual_seed(seed)
    moved = replace(pre, params={k: v * (1 + 5e-7 * torch.randn(v.shape, generator=noise)) for k, v in pre.params.items()})
    a, b = (measure(corpus, start, "up", "down", [.2, .5, .8], repeats=3, rows=8, seed=seed) for start in (pre, moved))
    both = (a.status == "ok") & (b.status == "ok")
    assert (a.status == b.status).all() and both.sum() > 20
    apart = np.abs(np.log(a.eta[both] / b.eta[both]))
    assert (apart <= np.log(RESOLUTION) + 1e-3).all() and (apart == 0).mean() > .2 or (apart < 1e-3).mean() > .2

def test_two_searches_of_one_crossing_agree_within_their_resolution():
    "The largest difference that the method allows is nearly reached, so no tighter promise would hold."
    starts = np.geomspace(.1, 10, 4001)
    for rtol in (1/16, 1/64):
        eta = critical_lr(lambda e: e * e - e, starts, rtol=rtol).eta
        bound = 1 / (1 - rtol)
        assert eta.max() / eta.min() <= bound + 1e-12 and eta.max() / eta.min() > 1 + .9 * (bound - 1)

def test_a_stopped_study_goes_on(corpus, tmp_path, monkeypatch):
    how = dict(general="up", special="down", ratios=[0, 1], lrs=(1e-3,), store=tmp_path / "s", **QUICK | dict(pretraining=10, steps=5, repeats=1))
    with_hash = SimpleNamespace(**vars(corpus), hash="of these letters")
    one_model, done = sharpness._one_model, []
    def stops(corpus, pre, seed, *args, **kw):
        if seed in (2, 9): raise KeyboardInterrupt
        done.append(seed)
        return one_model(corpus, pre, seed, *args, **kw)
    monkeypatch.setattr(sharpness, "_one_model", stops)
    with pytest.raises(KeyboardInterrupt): midtrain(with_hash, seeds=(0, 1, 2), **how)
    assert done == [0, 1]
    first = midtrain(with_hash, seeds=(1, 0), **how)
    assert done == [0, 1] and list(first.seed.unique()) == [0, 1] and first.sharpness_sgd.max() == np.inf
    fresh = midtrain(with_hash, seeds=(0, 1), **how | {"store": None})
    assert_same_study(first, fresh)
    with pytest.raises(KeyboardInterrupt): midtrain(with_hash, seeds=(9,), **how)
    midtrain(with_hash, seeds=(0,), **how | {"steps": 6})
    assert done == [0, 1, 0, 1, 0], "another study has another key"

def test_measure_starts_where_the_last_batch_ended(corpus):
    pre = train(corpus, [.9, .1], steps=60, keep_optimizer=True, progress=False, width=16, hidden=32, context=16, batch=8)
    m = measure(corpus, pre, "up", "down", [.5, .9], repeats=4, rows=8)
    ok = m[m.status == "ok"].groupby("batch").n_forward.mean()
    assert set(m.domain) == {"general", "special"} and len(m) == 4 * 2 * 2 * 2
    assert ok[1:].mean() <= 9 < 40

def made(change_general, change_special, eta_general, eta_special, status="ok"):
    "A table as `midtrain` gives it, from four curves on five ratios."
    r = np.linspace(0, 1, 5)
    rows = [pd.DataFrame({"seed": 0, "lr": .1, "ratio": r, "domain": d, "change": c, "status": status, "eta_sgd": e, "slope_sgd": s})
            for d, c, e, s in (("general", change_general, eta_general, 2 * r - 1), ("special", change_special, eta_special, 1.5 - 2 * r))]
    return pd.concat(rows, ignore_index=True)

def test_sweet_spots_of_known_curves():
    r = np.linspace(0, 1, 5)
    w = sweet_spots(made(.5 - r, (r - .3)**2 + r - .84, 2 * r, 3 - 2 * r)).iloc[0]
    assert w.neither_low == .5 and w.maximin_sgd == pytest.approx(.75) and w.low_sgd == pytest.approx(.5, abs=1e-3) and w.high_sgd == pytest.approx(.75, abs=1e-3)
    assert w.average == pytest.approx(.3)          # (.5 - r + (r-.3)^2 + r + const)/2: a parabola around .3
    assert w.mgda == pytest.approx((1.5 + .75) / (1 + 1.5 + 1.5))
    never = sweet_spots(made(1 - .5 * r, .2 + r, 2 * r, 3 - 2 * r)).iloc[0]
    assert np.isnan(never.neither_low) and never.neither == pytest.approx(.8 / 1.5, abs=1e-3)

def test_diverged_runs_enter_no_fit():
    t = made(np.r_[np.nan, .2, 0, -.2, -.3], np.r_[np.nan, -.3, -.2, -.1, .1], np.arange(5.), np.arange(5.)[::-1])
    t.loc[t.ratio == 0, "status"] = "diverged"
    assert sweet_spots(t).notna()[["neither", "average", "maximin_sgd"]].all().all()
    t["status"] = "diverged"
    with pytest.raises(ValueError, match="seed 0, lr 0.1: 0 ratios"): sweet_spots(t)

@pytest.mark.parametrize("change, message", [
    (dict(ratios=[0, 1.2]), "ratio 1.2 is outside"), (dict(ratios=[-.1]), "ratio -0.1 is outside"), (dict(ratios=[np.nan]), r"ratios\[0\] is nan"), (dict(ratios=[]), "ratios has 0 entries"),
    (dict(ratios=[.5, .5]), "distinct numbers"), (dict(general="sideways"), "general has an unknown domain 'sideways'"), (dict(special={"up": .5, "sideways": .5}), "special has an unknown domain 'sideways'"),
    (dict(special={"down": .7}), "special sums to 0.7"), (dict(special=[-.5, 1.5]), "domain 'up' has share -0.5"), (dict(special="up"), "the same mixture"), (dict(seeds=(1, 1)), "seeds"),
    (dict(seeds=()), "seeds"), (dict(lrs=(0.,)), "lrs is 0.0"), (dict(pretrained=1.5), "pretrained is 1.5"), (dict(repeats=0), "repeats is 0"), (dict(updates=("adam",)), "updates is 'adam'"), (dict(updates="sgd"), "updates is 'sgd'"),
    (dict(updates=()), "updates"), (dict(updates=("sgd", "sgd")), "updates"), (dict(steps=0), "steps is 0"), (dict(steps=2.5), "steps is 2.5"), (dict(pretraining=True), "pretraining is True"),
    (dict(tokens=0), "tokens is 0"), (dict(rows=-1), "rows is -1"), (dict(seeds=(-1,)), "seeds is -1"), (dict(seeds=(.5,)), "seeds is 0.5"), (dict(lrs=(np.nan,)), "lrs"),
    (dict(scale="huge"), "scale is 'huge'"), (dict(store=3), "store is 3"), (dict(progress="no"), "progress is 'no'"), (dict(corpus=None), "corpus is None")])
def test_bad_studies(corpus, change, message):
    with pytest.raises(ValueError, match=message): midtrain(**{**dict(corpus=corpus, general="up", special="down", ratios=[0, 1]), **QUICK, "pretraining": 2, **change})

def test_figures_draw_on_given_axes(table):
    import matplotlib.pyplot as plt
    ax = plt.figure().subplots()
    assert show_midtrain(table, "change", ax) is ax and show_along([.1, 1], {"a": np.zeros(2)}, {"a": 0.}, {"a": Critical(0., 0., 1., "no_descent", 3)}, ax, chosen=.5) is ax
    plt.close("all")

def test_text_is_drawn_from_the_split_asked_for(corpus):
    for split in ("train", "valid"):
        t, = text_batches(corpus, [[1, 0], [0, 1]], 4, 16, split, seed=2)
        windows = np.lib.stride_tricks.sliding_window_view(corpus.tokens("down", split), 17)
        assert t.shape == (2, 4, 17) and all((windows == row.numpy()).all(1).any() for row in t[1])


# ---- closed forms and dense computations ------------------------------------------------------------------------------
def test_along_an_eigenvector_the_critical_rate_is_two_over_the_eigenvalue():
    rng = np.random.default_rng(0)
    values = np.array([.5, 3., 40.])
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for value, q in zip(values, Q.T):
        c = critical_lr(parabola((Q * values) @ Q.T, 2 * q, value * 2 * q), .1, rtol=1e-8)
        assert c.eta == pytest.approx(2 / value, rel=1e-8) and c.sharpness == pytest.approx(value, rel=1e-8)

def test_every_option_of_a_search_counts():
    f = lambda e: e * e - e  # crosses at 1
    coarse, fine = critical_lr(f, .3, rtol=.25), critical_lr(f, .3, rtol=.01)
    assert coarse.high - coarse.low > fine.high - fine.low and coarse.n_forward < fine.n_forward
    assert 1 - coarse.low / coarse.high <= .25 < 1 - coarse.low / (2 * coarse.high - coarse.low)
    assert (critical_lr(f, .3).low, critical_lr(f, .3).high) == (.9750000000000001, 1.0125) or critical_lr(f, .3).low <= 1 <= critical_lr(f, .3).high
    assert critical_lr(f, 2.**-8, doublings=7).status == "no_increase" and critical_lr(f, 2.**-8, doublings=9).status == "ok"
    assert critical_lr(f, 2.**9, doublings=7).status == "no_descent" and critical_lr(f, 2.**9, doublings=12).status == "ok"
    assert critical_lr_stack(f, 2.**-8, span=7).status == "no_increase_in_span" and critical_lr_stack(f, 2.**-8, span=9).status == "ok"
    few, many = (critical_lr_stack(f, .3, span=3, points=p) for p in (1, 31))
    assert (few.low, few.high) == pytest.approx((.9, 1.2)) and (many.low, many.high) == pytest.approx((.99375 + .00625 * .0, 1.0125), abs=.02)
    assert (few.n_forward, many.n_forward) == (8 + 1, 8 + 31) and many.high - many.low == pytest.approx(.6 / 32)
    assert critical_lr_stack(f, .3, span=3, points=1).eta == pytest.approx(1.05)

@pytest.mark.parametrize("call, message", [
    (lambda: critical_lr(3), "f is 3"), (lambda: critical_lr(lambda e: "low"), "what f returned"), (lambda: critical_lr(lambda e: np.zeros(3)), r"f returned shape \(3,\)"),
    (lambda: critical_lr(lambda e: e, [1., -1]), "start is"), (lambda: critical_lr(lambda e: e, []), "start"), (lambda: critical_lr(lambda e: e, rtol=1e-17), "rtol is 1e-17"),
    (lambda: critical_lr(lambda e: e, doublings=0), "doublings is 0"), (lambda: critical_lr_stack(lambda e: e, span=0), "span is 0"), (lambda: critical_lr_stack(lambda e: e, points=10**9), "points is 10"),
    (lambda: critical_lr_stack(lambda e: e, 1e300, span=200), "expected positive numbers"), (lambda: top_eigenvalue(lambda v: v, {"w": torch.zeros(1, 3)}, steps=0), "steps is 0"),
    (lambda: top_eigenvalue(lambda v: {"w": v["w"] * np.nan}, {"w": torch.zeros(1, 3)}), "product returned numbers that are not finite"),
    (lambda: top_eigenvalue(lambda v: v["w"], {"w": torch.zeros(1, 3)}), "what product returned"), (lambda: trace(lambda v: v, {"w": torch.zeros(1, 3)}, probes=1), "probes is 1"),
    (lambda: trace(lambda v: v, {}), "like is {}"), (lambda: mix({"w": torch.zeros(2, 3)}, [[1., 0, 0]]), r"W has shape \(1, 3\)"), (lambda: dot({"w": torch.zeros(2, 3)}, {"w": torch.zeros(2, 4)}), "b.'w'. has shape"),
    (lambda: dot({"w": torch.zeros(2, 3)}, {"w": torch.zeros(3, 3)}), "a has 2 members and b 3"), (lambda: gradients({}, torch.zeros(1, 1, 2, dtype=torch.long), small()[0]), "params is {}"),
    (lambda: gradients(small()[1], small()[2][None] + 99, small()[0]), "token numbers from 0 to 15"), (lambda: gradients(small()[1], small()[2], small()[0]), r"tokens has shape \(6, 13\)"),
    (lambda: gradients(small()[1], small()[2][None], "proxy"), "model is 'proxy'"), (lambda: gradients(small()[1], small()[2][None], small()[0], torch.int64), "dtype is torch.int64"),
    (lambda: hessian_product(small()[1], small()[2], small()[0], [[1., 0]]), r"weights has shape \(1, 2\)"), (lambda: show_midtrain("x", "change"), "table is 'x'"), (lambda: sweet_spots(pd.DataFrame({"seed": [1]})), "no column 'lr'")])
def test_what_cannot_be_searched_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()

def test_a_table_with_a_row_twice_or_another_domain_is_refused():
    t = made(*np.zeros((4, 5)))
    with pytest.raises(ValueError, match="two rows for seed 0"):
        sweet_spots(pd.concat([t, t.iloc[:1]]))
    with pytest.raises(ValueError, match="expected general and special"):
        sweet_spots(t[t.domain == "general"])
    with pytest.raises(ValueError, match="ratio 1.0 lacks a domain"):
        sweet_spots(t.iloc[:-1])
    with pytest.raises(ValueError, match="no column 'eta_adamw'"):
        show_midtrain(t, "eta_adamw")

def as_product(H):
    H = torch.as_tensor(np.atleast_3d(np.asarray(H, float).T).T)
    return lambda v: {"w": torch.einsum("nij,nj->ni", H, v["w"])}, {"w": torch.zeros(H.shape[:2], dtype=torch.float64)}

def random_symmetric(rng):
    "Dense, squared, few distinct eigenvalues, or low rank; of any scale."
    n, kind = rng.integers(1, 50), rng.integers(4)
    A = rng.normal(size=(n, n))
    A = A + A.T
    if kind == 1:
        A = A @ A
    if kind == 2:
        A = (np.linalg.eigh(A)[1] * rng.integers(-3, 4, n)) @ np.linalg.eigh(A)[1].T
    if kind == 3:
        A = A[:, :1 + n // 3] @ A[:, :1 + n // 3].T
    A = (A + A.T) * rng.choice([-1, 1])
    return A * 10. ** rng.choice([-150, -8, 0, 8, 150])

def test_the_bound_of_the_largest_eigenvalue_bounds_it():
    rng, close = np.random.default_rng(0), []
    for trial in range(400):
        H, steps = random_symmetric(rng), int(rng.integers(1, 30))
        values = np.linalg.eigvalsh(H)
        (top,), (bound,) = top_eigenvalue(*as_product(H), steps=steps, seed=trial)
        rounding = 1e-13 * abs(values).max()
        assert -rounding <= values[-1] - top <= bound + rounding, (trial, H.shape, steps)
        if steps >= len(np.unique((values / max(abs(values).max(), 1e-300)).round(9))):
            assert bound <= 1e-10 * abs(values).max()
        elif bound > 0:
            close.append((values[-1] - top) / bound)
    assert np.max(close) > .1, "the bound is no more than a few times the error where the search is short"

@pytest.mark.parametrize("H", [np.diag([1., 2, 3]), np.diag(np.arange(1., 11)), 2 * np.eye(20), np.zeros((30, 30)), -np.ones((40, 40)), np.diag([1.] * 10 + [50.] * 10), [[-3.]]])
def test_the_search_ends_where_the_vectors_run_out(H):
    H = np.asarray(H)
    asked = []
    product, like = as_product(H)
    counted = lambda v: asked.append(1) or product(v)
    for seed in range(20):
        (top,), (bound,) = top_eigenvalue(counted, like, seed=seed)
        assert top == pytest.approx(np.linalg.eigvalsh(H)[-1], abs=1e-11 * max(1, abs(H).max())) and 0 <= bound < 1e-10
    assert len(asked) <= 20 * min(20, len(H), len(np.unique(np.linalg.eigvalsh(H).round(9))))

def test_members_that_run_out_at_different_steps_are_as_alone():
    Hs = np.stack([2 * np.eye(12), np.diag(np.arange(12.)), np.outer(np.arange(12.), np.arange(12.)), np.zeros((12, 12))])
    top, bound = top_eigenvalue(*as_product(Hs), steps=9, seed=1)
    alone = [top_eigenvalue(*as_product(H), steps=9, seed=1) for H in Hs]
    assert np.allclose(top, [a[0][0] for a in alone], rtol=1e-12) and np.allclose(bound, [a[1][0] for a in alone], rtol=1e-3, atol=1e-10)
    assert np.allclose(top[[0, 2, 3]], [2, np.sum(np.arange(12.)**2), 0])

def test_lanczos_is_that_of_the_textbook():
    "One product: the Rayleigh quotient of the start, which the seed decides. More products: never lower. Close eigenvalues are told apart."
    H = np.diag([9., 4, 1, 0, -20])
    start = torch.randn((1, 5), generator=torch.Generator().manual_seed(7), dtype=torch.float64).numpy()[0]
    assert top_eigenvalue(*as_product(H), steps=1, seed=7)[0][0] == pytest.approx(start @ H @ start / (start @ start))
    tops = [top_eigenvalue(*as_product(H), steps=s, seed=7)[0][0] for s in range(1, 6)]
    assert (np.diff(tops) > 0).all() and tops[-1] == pytest.approx(9) and top_eigenvalue(*as_product(H), steps=2, seed=8)[0][0] != tops[1]
    D = np.r_[1000., 999, np.linspace(0, 1, 60)]
    top, bound = top_eigenvalue(*as_product(np.diag(D)), steps=40)
    assert abs(top[0] - 1000) < 1e-6 and bound[0] < 1e-6

def test_traces_are_means_of_signed_products():
    A = np.random.default_rng(0).normal(size=(4, 4))
    A = A + A.T
    e = trace(*as_product(A), probes=5, seed=3)
    z = np.stack([np.sign(torch.randn((1, 4), generator=torch.Generator().manual_seed(3 + i), dtype=torch.float64).numpy()[0]) for i in range(5)])
    v = np.einsum("pi,ij,pj->p", z, A, z)
    assert e.value[0] == pytest.approx(v.mean()) and e.n == 5 and e.name == "trace"
    assert e.high[0] - e.value[0] == pytest.approx(2.776445 * v.std(ddof=1) / 5**.5, rel=1e-6)
    assert trace(*as_product(A), probes=5, seed=9).value[0] != e.value[0]
    swap = trace(*as_product([[0., 1], [1, 0]]), probes=16)
    assert swap.high[0] > swap.low[0] and abs(swap.value[0]) < 2, "probes differ from each other"

def test_gradients_and_products_equal_dense_derivatives():
    "A model of 108 parameters: torch's own Jacobian and Hessian of the cross-entropy, written out."
    model = Proxy(vocab=4, width=4, depth=1, heads=1, hidden=4)
    g = torch.Generator().manual_seed(0)
    params = {k: .5 * torch.randn((1, *shape), generator=g, dtype=torch.float64) for k, shape in shapes(model).items()}
    tokens = torch.randint(0, 4, (2, 3, 6), generator=g)
    sizes, names = [v.numel() for v in params.values()], list(params)
    flat = torch.cat([v.flatten() for v in params.values()])
    def loss_of(x, batch, w):
        p = {k: t.view(params[k].shape) for k, t in zip(names, x.split(sizes))}
        logits = forward(p, batch[None, :, :-1], model, fused=False)[0]
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none").view(len(batch), -1).mean(1)
        return (w * each).sum()
    mean = torch.full((3,), 1 / 3, dtype=torch.float64)
    ours = gradients(params, tokens, model)
    for n in range(2):
        dense = torch.autograd.functional.jacobian(lambda x: loss_of(x, tokens[n], mean), flat)
        assert torch.allclose(torch.cat([ours[k][n].flatten() for k in names]), dense, atol=1e-12)
    assert gradients(params, tokens, model, torch.float32)["head"].dtype == torch.float32 and ours["head"].dtype == torch.float64
    from torch.nn.attention import SDPBackend, sdpa_kernel
    weights = torch.tensor([[.2, .3, .5], [1., 0, -1]], dtype=torch.float64)
    v = {k: torch.randn((2, *t.shape[1:]), generator=g, dtype=torch.float64) for k, t in params.items()}
    Hv, plain = hessian_product(params, tokens[0], model, weights)(v), hessian_product(params, tokens[0], model)({k: t[:1] for k, t in v.items()})
    with sdpa_kernel(SDPBackend.MATH):
        dense = [torch.autograd.functional.hessian(lambda x: loss_of(x, tokens[0], w), flat) for w in (*weights, mean)]
    for n, (stack, i) in enumerate(((Hv, 0), (Hv, 1), (plain, 0))):
        direction = torch.cat([v[k][i].flatten() for k in names])
        assert torch.allclose(torch.cat([stack[k][i].flatten() for k in names]), dense[n] @ direction, atol=1e-10)
    values = np.linalg.eigvalsh(dense[2].numpy())
    (top,), (bound,) = top_eigenvalue(hessian_product(params, tokens[0], model), params, 60)
    assert 0 <= values[-1] - top + 1e-12 <= bound + 2e-12 and bound < 1e-6

def test_mixing_and_inner_products_are_sums():
    rng = np.random.default_rng(0)
    a, b = ({"x": torch.from_numpy(rng.normal(size=(3, 2, 2))), "y": torch.from_numpy(rng.normal(size=(3, 4)))} for _ in range(2))
    flat = lambda d: np.concatenate([v.numpy().reshape(3, -1) for v in d.values()], 1)
    assert np.allclose(dot(a, b), (flat(a) * flat(b)).sum(1)) and np.allclose(dot(a, {k: v[:1] for k, v in b.items()}), flat(a) @ flat(b)[0])
    W = [[.2, .3, .5], [-1, 0, 2]]
    assert np.allclose(np.concatenate([v.numpy().reshape(2, -1) for v in mix(a, W).values()], 1), W @ flat(a))


# ---- splits, seeds and options of a study -------------------------------------------------------------------------------
class Recorded:
    "Splits that were read of each domain."
    def __init__(self, corpus):
        vars(self).update({k: v for k, v in vars(corpus).items() if k != "tokens"})
        self.read, self.inner = set(), corpus
    def tokens(self, domain, split="train"):
        self.read.add((domain, split))
        return self.inner.tokens(domain, split)

@pytest.fixture(scope="module")
def pre(corpus): return train(corpus, [.9, .1], steps=30, keep_optimizer=True, progress=False, width=16, hidden=32, context=16, batch=8)

def test_updates_come_from_training_text_and_losses_from_validation_text(corpus, pre, monkeypatch):
    drawn, judged, real = [], [], (sharpness.text_batches, sharpness.gradients, sharpness.relative)
    monkeypatch.setattr(sharpness, "text_batches", lambda *a, **k: drawn.append(a) or real[0](*a, **k))
    monkeypatch.setattr(sharpness, "gradients", lambda p, t, *a, **k: judged.append(("gradient", t)) or real[1](p, t, *a, **k))
    monkeypatch.setattr(sharpness, "relative", lambda p, u, texts, *a, **k: judged.append(("loss", texts)) or real[2](p, u, texts, *a, **k))
    measure(corpus, pre, "up", "down", [0, .25, 1], updates=("sgd",), repeats=1, rows=3, seed=9)
    assert [a[4] for a in drawn] == ["train", "valid"] and [a[5] for a in drawn] == [9, 9] and [a[2] for a in drawn] == [3, 3]
    text = {s: next(real[0](corpus, [[1, 0], [0, 1]], 3, 16, s, 9)) for s in ("train", "valid")}
    assert torch.equal(judged[0][1], text["train"])
    found = judged[1][1]
    assert torch.equal(found["general"], text["valid"][0]) and torch.equal(found["special"], text["valid"][1])

def test_a_ratio_is_the_share_of_general_text(corpus, pre):
    "Ratio 1 is the gradient of general text alone, on the same batch; 1/4 a quarter of it and three quarters of the other."
    found = measure(corpus, pre, "up", "down", [0, .25, 1], updates=("sgd",), repeats=1, rows=3, seed=9).set_index(["domain", "ratio"])
    model = sharpness.proxy(pre.config)
    up, down = (gradients(pre.params, next(text_batches(corpus, [w], 3, 16, "train", 9)), model) for w in ([1, 0], [0, 1]))
    judge = {d: gradients(pre.params, next(text_batches(corpus, [w], 3, 16, "valid", 9)), model) for d, w in (("general", [1, 0]), ("special", [0, 1]))}
    for ratio in (0, .25, 1):
        u = {k: ratio * up[k] + (1 - ratio) * down[k] for k in up}
        assert found.norm[("general", ratio)] == pytest.approx(dot(u, u)[0] ** .5)
        for d in judge:
            assert found.slope[(d, ratio)] == pytest.approx(dot(u, judge[d])[0])

def test_every_option_of_a_measurement_counts(corpus, pre):
    how = dict(general="up", special="down", ratios=[.2, .8], updates=("sgd",), repeats=2, rows=3, seed=1)
    base = measure(corpus, pre, **how)
    for change in (dict(general={"up": .8, "down": .2}), dict(special={"up": .2, "down": .8}), dict(ratios=[.3, .8]), dict(updates=("adamw",)), dict(rows=4), dict(seed=2)):
        assert not np.allclose(measure(corpus, pre, **how | change).slope, base.slope), change
    assert len(measure(corpus, pre, **how | dict(repeats=1))) == len(base) / 2
    first = measure(corpus, pre, **how | dict(repeats=1))
    pd.testing.assert_frame_equal(first, base[base.batch == 0].reset_index(drop=True))
    named = measure(corpus, pre, **how | dict(general={"down": .3, "up": .7}, special=pd.Series({"down": 1.})))
    by_position = measure(corpus, pre, **how | dict(general=[.7, .3], special=np.array([0, 1.])))
    pd.testing.assert_frame_equal(named, by_position)

def test_first_guesses_and_tolerance_of_relative(monkeypatch):
    model, params, tokens = small()
    u, text = gradients(params, tokens.view(2, 3, -1), model), {"a": tokens[:3], "b": tokens[3:]}
    asked, real = [], sharpness.critical_lr
    monkeypatch.setattr(sharpness, "critical_lr", lambda f, start, rtol: asked.append((np.array(start), rtol)) or real(f, start, rtol))
    free = relative(params, u, text, model)
    assert np.allclose(asked[0][0], .1 / free[free.domain == "a"].slope) and asked[0][1] == 1 / 16
    relative(params, u, text, model, start={"a": [.3, .4], "b": .5}, rtol=.01)
    assert asked[2][0].tolist() == [.3, .4] and asked[3][0].tolist() == [.5, .5] and asked[2][1] == .01
    with pytest.raises(ValueError, match="start has no domain 'b'"):
        relative(params, u, text, model, start={"a": 1.})
    with pytest.raises(ValueError, match="start has 3 guesses for 2 updates"):
        relative(params, u, text, model, start=[1., 2, 3])

@pytest.fixture
def followed(corpus, monkeypatch):
    "A study whose trainings are recorded: mixtures, seeds, start, settings."
    calls, scored = [], []
    real = sharpness.train, sharpness.losses
    def follow(corpus, W, scale, seed, start=None, **k):
        calls.append(SimpleNamespace(W=np.array(W), scale=scale, seed=np.atleast_1d(seed).tolist(), start=start, how=k))
        return real[0](corpus, W, scale, seed, start, **k)
    def score(stack, corpus, *a, **k):
        scored.append((a, k))
        return real[1](stack, corpus, *a, **k)
    monkeypatch.setattr(sharpness, "train", follow)
    monkeypatch.setattr(sharpness, "losses", score)
    recorded = Recorded(corpus)
    def run(**how):
        calls.clear(), scored.clear(), recorded.read.clear()
        base = dict(general="up", special="down", ratios=[0, 1], seeds=(5,), lrs=(1e-3,), pretrained=.75, pretraining=3, steps=2, updates=("sgd",), repeats=1, rows=2, tokens=64)
        return midtrain(recorded, **{**QUICK, **base, **how}), list(calls), list(scored), set(recorded.read)
    return run

def test_a_study_trains_what_it_says(followed):
    table, (pretraining, middle), scored, read = followed()
    assert np.allclose(pretraining.W, [[.75, .25]]) and pretraining.start is None and pretraining.how["steps"] == 3 and pretraining.how["keep_optimizer"] is True
    assert np.allclose(middle.W, [[0, 1], [1, 0]]) and middle.start is not None and middle.start.optimizer is None, "mid-training begins with a fresh optimizer"
    assert middle.how["steps"] == 2 and middle.how["lr"] == 1e-3 and middle.scale == "tiny"
    assert not set(pretraining.seed) & set(middle.seed), "text in another order than that of pretraining"
    assert {split for _, split in read} == {"train", "valid"}, "nothing else is read, the test split least of all"
    assert all("split" not in k and not a for a, k in scored) and all(k["tokens"] == 64 for _, k in scored)
    ratio = table.set_index(["domain", "ratio"])
    assert ratio.change[("general", 1)] < ratio.change[("general", 0)] and ratio.change[("special", 0)] < ratio.change[("special", 1)]

@pytest.mark.parametrize("change, moved", [
    (dict(pretrained=.5), "before"), (dict(pretraining=4), "before"), (dict(seeds=(6,)), "before"), (dict(tokens=128), "before"), (dict(steps=3), "after"), (dict(lrs=(1e-2,)), "after"),
    (dict(rows=3), "slope_sgd"), (dict(repeats=2), "slope_sgd"), (dict(width=8), "before"), (dict(ratios=[0, .9]), "after"), (dict(general={"up": .9, "down": .1}), "slope_sgd")])
def test_every_option_of_a_study_counts(followed, change, moved):
    assert not np.allclose(followed(**change)[0][moved], followed()[0][moved], rtol=1e-9, atol=0)

def test_a_kept_study_is_that_of_its_rates(followed, tmp_path):
    from mixlab.runs import RunStore
    one, two = (followed(lrs=lrs, store=RunStore(tmp_path))[0] for lrs in ((1e-3,), (1e-2,)))
    assert set(one.lr) == {1e-3} and set(two.lr) == {1e-2}
    again, trainings, *_ = followed(lrs=(1e-3,), store=tmp_path)
    assert not trainings and again.drop(columns="status").astype(str).equals(one.drop(columns="status").astype(str))

def test_batches_are_summed_up_by_median_share_and_mean():
    rows = {"ratio": 0., "domain": "general", "kind": "sgd", "eta": [1., 2, 9], "status": ["ok", "ok", "no_descent"], "slope": [1., 2, 6], "norm": [2., 2, 5], "n_forward": [1, 2, 3]}
    t = sharpness._summary(pd.DataFrame(rows)).iloc[0]
    assert (t.eta_sgd, t.sharpness_sgd, t.no_descent_sgd, t.slope_sgd, t.norm_sgd, t.n_forward_sgd) == (2, 1, pytest.approx(1/3), 3, 3, 6)

def test_the_vertex_of_three_points_and_of_an_edge():
    r = np.linspace(0, 1, 5)
    assert sharpness._vertex(r, (r - .4)**2) == pytest.approx(.4) and sharpness._vertex(r, -r) == 1 and sharpness._vertex(r, r) == 0
    assert sharpness._vertex(np.array([0, .5, 1.]), np.array([3., 2, 1])) == 1

def test_sweet_spots_of_each_seed_and_rate():
    r = np.linspace(0, 1, 5)
    one = made(.5 - r, r - .7, 2 * r, 3 - 2 * r)
    two = made(.25 - r, r - .7, 2 * r, 1.5 - r).assign(seed=1, lr=.2)
    w = sweet_spots(pd.concat([one, two])).set_index(["seed", "lr"])
    assert w.neither_low.tolist() == pytest.approx([.5, .25], abs=6e-4) and w.neither_high.tolist() == pytest.approx([.7, .7], abs=6e-4)
    assert w.maximin_sgd.tolist() == pytest.approx([.75, .5], abs=6e-4) and w.index.tolist() == [(0, .1), (1, .2)]
    assert w.neither.tolist() == pytest.approx([.6, .475], abs=6e-4), "where the larger of the two changes is smallest"

def test_batches_of_text_depend_on_seed_split_and_names(corpus):
    one = next(text_batches(corpus, [[1, 0]], 4, 16, "train", seed=1))
    assert torch.equal(one, next(text_batches(corpus, {"down": 0., "up": 1.}, 4, 16, "train", seed=1)))
    for other in (text_batches(corpus, [[1, 0]], 4, 16, "train", seed=2), text_batches(corpus, [[1, 0]], 4, 16, "valid", seed=1), text_batches(corpus, [[0, 1]], 4, 16, "train", seed=1)):
        assert not torch.equal(one, next(other))
    assert len(list(text_batches(corpus, [[1, 0]], 4, 16, repeats=3))) == 3 and one.shape == (1, 4, 17)
    for wrong, message in ((dict(split="dev"), "split is 'dev'"), (dict(rows=0), "rows is 0"), (dict(repeats=10**9), "repeats is 1000000000"), (dict(W={"up": .5, "left": .5}), "unknown domain 'left'")):
        with pytest.raises(ValueError, match=message):
            text_batches(**dict(corpus=corpus, W=[[1, 0]], rows=2, context=8) | wrong)
