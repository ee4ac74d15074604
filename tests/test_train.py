"""Engine: what a page cannot show without losing its thread. A training loop in plain torch, batches dealt by hand, losses in
NumPy; both architectures, both tokenizers, every way of stopping; every setting, and what is refused at the door."""
import hashlib
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mixlab.train as engine
from mixlab.corpus import from_folder, train_bpe
from mixlab.mixture import Mixture
from mixlab.proxy import Proxy, init, size, token_losses
from mixlab.runs import RunStore, sweep
from mixlab.train import (
    batches, configuration, counter_hash, domain_draws, fast_products, join, learning_rate, losses, proxy, restore, shuffled,
    stack_size, tqdm_or_not, train, windows,
)

LLAMA = dict(block="llama", width=32, heads=2, hidden=48, depth=2)
SMALL = dict(width=16, heads=1, hidden=32, depth=1, context=16, progress=False)


class Letters:
    "Three domains and one held out; eight tokens, of which token 1 stands for two bytes and token 7 for none."
    names, heldout, targets = ("a", "b", "c"), ("out",), ("a", "b", "c", "out")
    vocab, eod, hash = 8, 7, "0" * 64
    token_bytes = np.array([1, 2, 1, 1, 1, 1, 1, 0])

    def __init__(self):
        rng, self.read = np.random.default_rng(0), []
        self.text = {}
        for i, domain in enumerate(self.targets):
            for j, split in enumerate(("train", "valid", "test")):
                p = rng.dirichlet(np.full(8, 0.3 + j))
                self.text[domain, split] = rng.choice(8, 1500 + 400 * i, p=p).astype(np.uint8)
        self.sizes = np.array([len(self.text[d, "train"]) for d in self.names])

    def tokens(self, domain, split="train"):
        self.read.append((domain, split))
        return self.text[domain, split]


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    words = {"a": "alpha beta gamma delta", "b": "eins zwei drei vier fünf", "c": "0 1 2 3 4 5 + - =", "out": "alpha zwei 3 delta"}
    for name, w in words.items():
        (root / name).mkdir()
        for i in range(40):
            (root / name / f"{i}.txt").write_text(" ".join(rng.choice(w.split(), 60)) + "\n")
    return root


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory):
    return from_folder(folder, heldout=("out",), cache=tmp_path_factory.mktemp("cache"))


W = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0.05, 0.9, 0.05], [1 / 3] * 3])


def distance(one, other):
    "Largest distance of two stacks' members, relative to the norm of all their parameters."
    flat = [torch.cat([v.flatten(1) for v in t.params.values()], 1).double() for t in (one, other)]
    return ((flat[0] - flat[1]).norm(dim=1) / flat[0].norm(dim=1)).max().item()


def same_bits(one, other):
    return all(torch.equal(v, other.params[k]) for k, v in one.params.items())


# ---- a member is what it would be alone, up to rounding ------------------------------------------------------------------
ODD = {
    "head width 2": dict(width=12, heads=6, hidden=4, context=13),
    "width 10, one head": dict(width=10, heads=1, hidden=2, context=11),
    "context 1": dict(width=24, heads=3, hidden=40, context=1, rows=1),
    "eight rows": dict(width=16, heads=2, hidden=32, context=16, batch=8, rows=8),
    "odd hidden": dict(width=6, heads=1, hidden=7, context=5),
    "llama": dict(block="llama", width=12, heads=2, hidden=7, context=5),
}
FIVE = np.random.default_rng(0).dirichlet(np.ones(3), 5)


def check_members(corpus, shape, steps, members=range(5)):
    "The promise of `train`: five members of a stack and of other stacks against each alone."
    how = {**dict(steps=steps, depth=1, batch=3, progress=False), **shape}
    full, pairs = train(corpus, FIVE, stack=5, **how), train(corpus, FIVE, stack=2, **how)
    L = losses(full, corpus, tokens=256)
    assert distance(full, pairs) < 1e-4
    for i in members:
        alone = train(corpus, FIVE[i], **how)
        assert distance(full[i], alone) < 1e-4
        assert np.abs(losses(alone, corpus, tokens=256) - L[i]).max() < 1e-3
        assert np.array_equal(alone.sampled[0], full.sampled[i])


@pytest.mark.parametrize("shape", ODD.values(), ids=ODD)
def test_member_is_what_it_is_alone_up_to_rounding(letters, shape):
    check_members(letters, shape, 20, [0, 3, 4])


@pytest.mark.parametrize("capability, threads", [("default", 1), ("avx2", 2)])
def test_member_is_what_it_is_alone_under_other_instructions(capability, threads):
    code = (
        f"import sys, torch; sys.path.insert(0, {os.path.dirname(__file__)!r}); torch.set_num_threads({threads})\n"
        "from test_train import ODD, Letters, check_members\n"
        "for shape in ODD.values(): check_members(Letters(), shape, 4, [0, 4])\n"
    )
    env = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_WAIT_POLICY": "PASSIVE"}  # a busy machine: no spinning
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr[-2000:]


def test_default_shape_in_company_and_alone(corpus):
    together = train(corpus, W, steps=20, progress=False)
    L = losses(together, corpus)
    for i in (0, 2):
        alone = train(corpus, W[i], steps=20, progress=False)
        assert distance(together[i], alone) < 1e-4 and np.abs(losses(alone, corpus) - L[i]).max() < 1e-3


def test_what_goes_into_a_member_is_equal_to_the_last_bit(letters):
    "First numbers, batches and learning rates: no sums, so no company."
    seeds = [3, 1, 3, 2]
    first = train(letters, W, stop=0, seed=seeds, **SMALL)
    dealt = list(batches(letters, W, seeds, 3, 16, 0, 20))
    for i, seed in enumerate(seeds):
        assert same_bits(train(letters, W[i], stop=0, seed=seed, **SMALL), first[i])
        alone = list(batches(letters, W[i], [seed], 3, 16, 0, 20))
        assert all(torch.equal(a[0][0], t[0][i]) and np.array_equal(a[1][0], t[1][i]) for a, t in zip(alone, dealt))
    assert not torch.equal(first.params["embed"][0], first.params["embed"][1])


def test_the_same_stack_gives_the_same_bits(letters):
    one, two = (train(letters, FIVE, steps=12, **SMALL) for _ in range(2))
    assert same_bits(one, two) and np.array_equal(one.curve, two.curve)
    assert np.array_equal(losses(one, letters), losses(two, letters))


def test_members_may_have_seeds_of_their_own(letters):
    seeds = [3, 1, 3, 2]
    mixed = train(letters, W, steps=8, seed=seeds, **SMALL)
    assert mixed.seeds.tolist() == seeds
    for i, s in enumerate(seeds):
        assert distance(mixed[i], train(letters, W[i], steps=8, seed=s, **SMALL)) < 1e-4


# ---- the loop, in plain torch ------------------------------------------------------------------------------------------
def plain_loop(corpus, w, seed, c):
    "One model: autograd's derivatives, torch's AdamW and clipping, the schedule in closed form."
    model = proxy(c)
    params = {k: v.requires_grad_() for k, v in init(model, [seed]).items()}
    gains = [p for k, p in params.items() if k in ("embed", "smear") or "norm" in k]
    matrices = [p for k, p in params.items() if k not in ("embed", "smear") and "norm" not in k]
    groups = [{"params": matrices, "weight_decay": c["weight_decay"]}, {"params": gains, "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=1.0, betas=c["betas"], eps=1e-8)
    curve, warm = [], max(1, round(c["warmup"] * c["steps"]))
    for s, (tokens, _) in enumerate(batches(corpus, w, [seed], c["batch"], c["context"], 0, c["steps"])):
        loss = token_losses(params, tokens[..., :-1], model, tokens[..., 1:], fused=False)
        loss.mean().backward()
        curve.append(loss.sum().item() / corpus.token_bytes[tokens[..., 1:].numpy()].sum())
        torch.nn.utils.clip_grad_norm_(params.values(), c["clip"])
        past = (s - warm) / (c["steps"] - warm) if c["steps"] > warm else 0
        share = {"linear": 1 - past, "cosine": (1 + np.cos(np.pi * past)) / 2, "constant": 1.0}[c["schedule"]]
        for group in opt.param_groups:
            group["lr"] = c["lr"] * ((s + 1) / warm if s < warm else share)
        opt.step()
        opt.zero_grad()
    return {k: v.detach() for k, v in params.items()}, np.array(curve)


@pytest.mark.parametrize(
    "how",
    [
        {}, dict(clip=0.02), dict(betas=(0.5, 0.7)), dict(weight_decay=4.0), dict(schedule="cosine"), dict(schedule="constant"),
        dict(warmup=0.5), dict(warmup=0), dict(lr=0.03), dict(batch=4, rows=2), dict(block="llama", weight_decay=2.0),
    ],
    ids=str,
)
def test_training_is_the_plain_loop(letters, how):
    how = {**SMALL, "steps": 8, "lr": 1e-3, "batch": 2, **how}
    stack = train(letters, W[[0, 2]], seed=[4, 5], **how)
    how.pop("progress")
    for i, w, seed in ((0, W[0], 4), (1, W[2], 5)):
        params, curve = plain_loop(letters, w, seed, configuration(letters, **how))
        assert np.allclose(stack.curve[i], curve, atol=1e-4)
        for k, v in params.items():
            assert (stack.params[k][i] - v[0]).norm() < 2e-3 * (v[0] - init(proxy(stack.config), [seed])[k][0]).norm(), k


@pytest.mark.parametrize(
    "setting, value",
    [
        ("lr", 1e-3), ("clip", 1e-3), ("betas", (0.5, 0.6)), ("weight_decay", 50.0), ("schedule", "cosine"), ("warmup", 0.9),
        ("batch", 4), ("context", 8), ("steps", 7), ("width", 8), ("depth", 2), ("heads", 2), ("hidden", 16), ("block", "llama"),
    ],
)
def test_every_setting_changes_the_run(letters, setting, value):
    base = {**SMALL, "steps": 8, "lr": 6e-3, "batch": 2}
    one, other = train(letters, W[0], stop=6, **base), train(letters, W[0], stop=6, **{**base, setting: value})
    kept = other.config[setting]
    assert kept == (list(value) if setting == "betas" else value) != one.config[setting]
    assert np.abs(losses(one, letters, tokens=64) - losses(other, letters, tokens=64)).max() > 1e-6


def test_seed_and_scale_change_the_run(letters):
    short = dict(stop=2, progress=False)
    one, two = train(letters, W[0], seed=0, **short), train(letters, W[0], seed=1, **short)
    assert not np.array_equal(one.curve, two.curve)
    assert configuration(letters, "small")["width"] == 160 and configuration(letters)["width"] == 64


def test_rows_of_a_batch_are_only_memory(letters):
    how = {**SMALL, "batch": 4, "steps": 30}
    a, b = (train(letters, W[0], rows=r, **how) for r in (2, 4))
    assert np.allclose(a.curve, b.curve, atol=1e-4) and distance(a, b) < 1e-4


def test_mixtures_and_nothing_else_decide_what_is_read(letters):
    out = train(letters, W, steps=25, **SMALL)
    drawn = np.concatenate([d for _, d in batches(letters, W, [0] * 4, 2, 16, 0, 25)], axis=1)
    expected = (drawn[..., None] == np.arange(3)).mean(1)
    assert np.allclose(out.sampled, expected) and np.abs(out.sampled - W).max() < 0.06
    assert {split for _, split in letters.read} == {"train"}


# ---- the parts of a step -----------------------------------------------------------------------------------------------
def test_clipping_is_torchs_for_each_member():
    g = torch.Generator().manual_seed(0)
    grads = [torch.randn(3, 5, 2, generator=g) * torch.tensor([1e-3, 1.0, 50.0]).view(3, 1, 1), torch.randn(3, 4, generator=g)]
    expected = [[t[i].clone().requires_grad_() for t in grads] for i in range(3)]
    for i, parameters in enumerate(expected):
        for p, t in zip(parameters, grads):
            p.grad = t[i].clone()
        torch.nn.utils.clip_grad_norm_(parameters, 2.5)
    engine._clip(grads, 2.5)
    for i, parameters in enumerate(expected):
        assert all(torch.allclose(p.grad, t[i], rtol=1e-5) for p, t in zip(parameters, grads))
    zero = [torch.zeros(2, 3)]
    engine._clip(zero, 1.0)
    assert not zero[0].any(), "a gradient of zero stays zero"


def test_matrices_and_the_head_decay_embeddings_and_gains_do_not():
    params = {k: v.requires_grad_() for k, v in init(Proxy(vocab=8, width=8, heads=1, hidden=8, depth=1), [0]).items()}
    for v in params.values():
        v.data.fill_(1.0)
        v.grad = torch.zeros_like(v)
    engine._adamw(params, dict(weight_decay=0.1, lr=0.5, betas=(0.9, 0.95)), None).step()
    after = {k: v.flatten()[0].item() for k, v in params.items()}
    assert after == pytest.approx({"embed": 1, "smear": 1, "0.in": 0.95, "0.out": 0.95, "head": 0.95})


def test_learning_rates_in_closed_form():
    c = dict(lr=2.0, warmup=0.1, steps=100)
    rates = lambda schedule, **how: [learning_rate({**c, **how, "schedule": schedule}, s) for s in (0, 4, 9, 10, 55, 99)]
    assert rates("linear") == pytest.approx([0.2, 1, 2, 2, 1, 2 / 90])
    assert rates("cosine") == pytest.approx([0.2, 1, 2, 2, 1, 1 + np.cos(np.pi * 89 / 90)])
    assert rates("constant") == pytest.approx([0.2, 1, 2, 2, 2, 2])
    assert rates("linear", warmup=0.0)[0] == 2 and rates("linear", warmup=1.0)[-1] == 2
    for schedule in ("linear", "cosine", "constant"):
        late = [learning_rate({**c, "schedule": schedule}, s) for s in (99, 100, 170)]
        assert late[0] == late[1] == late[2] > 0, "after the last step its rate stays"
    for step in (-1, 2.5, True):
        with pytest.raises(ValueError, match="step is"):
            learning_rate({**c, "schedule": "linear"}, step)


def test_who_has_diverged(letters):
    c = configuration(letters)
    fine, params = np.full(40, 2.0), {"w": torch.ones(1, 3)}
    limit = 1.05 * np.log(8) + 0.5
    assert engine._status(fine, params, 0, c) == "ok"
    assert engine._status(np.r_[fine, [limit - 0.01] * 4], params, 0, c) == "ok"
    assert engine._status(np.r_[fine, [limit + 0.01] * 4], params, 0, c) == "diverged"
    assert engine._status(np.r_[[99.0] * 4, fine], params, 0, c) == "ok", "the end decides"
    assert engine._status(np.r_[fine, np.nan, fine], params, 0, c) == "diverged"
    assert engine._status(fine, {"w": torch.tensor([[1.0, np.inf]])}, 0, c) == "diverged"
    assert engine._status(np.zeros(0), params, 0, c) == "ok"


# ---- switches of the whole process ---------------------------------------------------------------------------------------
def overlapping(context, look):
    "Two threads: A enters, B enters, A leaves, B looks and leaves. What B saw, and what is left."
    a_in, b_in, a_out, seen = threading.Event(), threading.Event(), threading.Event(), []

    def first():
        with context():
            a_in.set()
            b_in.wait(9)
        a_out.set()

    def second():
        a_in.wait(9)
        with context():
            b_in.set()
            a_out.wait(9)
            seen.append(look())

    threads = [threading.Thread(target=f) for f in (first, second)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return seen[0], look()


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch has no such switch")
def test_fast_products_holds_its_switch_for_all_threads_and_puts_it_back(monkeypatch):
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    monkeypatch.setattr(engine, "_onednn_is_exact", lambda: True)
    assert overlapping(fast_products, lambda: switch.fp32_precision) == ("bf16", before)
    with pytest.raises(KeyError), fast_products(), fast_products():
        raise KeyError
    assert switch.fp32_precision == before
    monkeypatch.setattr(engine, "_onednn_is_exact", lambda: False)
    assert overlapping(fast_products, lambda: switch.fp32_precision) == (before, before)


def test_training_in_threads_is_training(letters):
    from concurrent.futures import ThreadPoolExecutor

    switch = getattr(torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision=None))
    before, alone = switch.fp32_precision, train(letters, W, steps=5, **SMALL)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(train, letters, W, steps=5, **SMALL) for _ in range(4)]
    assert all(distance(j.result(), alone) < 1e-5 for j in jobs) and switch.fp32_precision == before


def test_products_are_as_exact_as_single_precision_allows():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(3, 40, 96, generator=g), torch.randn(3, 96, 50, generator=g)
    with fast_products():
        c = torch.bmm(a, b)
    bound = torch.bmm(a.abs().double(), b.abs().double()) * 2.0**-24 * (96 + 1)
    assert ((c - torch.bmm(a.double(), b.double())).abs() <= bound).all()


# ---- stop, resume, start -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", [1, 7, 19])
def test_stop_and_resume(letters, stop):
    how = dict(steps=20, **SMALL)
    whole = train(letters, W, keep_optimizer=True, **how)
    again = train(letters, W, resume=train(letters, W, stop=stop, keep_optimizer=True, **how), **how)
    assert same_bits(whole, again) and np.array_equal(whole.curve, again.curve), "the same stacks, the same bits"
    for k, state in whole.optimizer.items():
        assert k == "step" or all(torch.equal(t, again.optimizer[k][a]) for a, t in state.items())
    assert np.array_equal(whole.sampled, again.sampled) and whole.step == again.step == whole.optimizer["step"] == 20
    half = train(letters, W, stop=stop, keep_optimizer=True, stack=3, **how)
    assert half.step == stop and half.curve.shape == (4, stop)
    rest = train(letters, W, resume=half, stack=2, **how)
    assert distance(whole, rest) < 1e-4 and np.allclose(whole.curve, rest.curve, atol=1e-4)


def test_optimizer_is_kept_where_asked(letters):
    assert train(letters, W[0], steps=2, **SMALL).optimizer is None
    kept = train(letters, W[:2], steps=2, keep_optimizer=True, **SMALL).optimizer
    assert kept["step"] == 2 and kept["head"]["exp_avg"].shape == (2, 16, 8) and kept["head"]["exp_avg_sq"].min() >= 0


def test_start_from_one_seed_model(letters):
    seed = train(letters, W[3], steps=15, keep_optimizer=True, **SMALL)
    how = dict(steps=10, schedule="constant", **SMALL)
    branches = train(letters, W[:2], start=seed, **how)
    assert distance(branches[1], train(letters, W[1], start=seed, **how)) < 1e-4
    cold = train(letters, W[:2], start=train(letters, W[3], steps=15, **SMALL), **how)
    assert distance(cold, branches) > 1e-4, "the kept state matters"
    still = train(letters, W[:2], start=seed, stop=0, **how)
    assert all(torch.equal(v[i], seed.params[k][0]) for k, v in still.params.items() for i in range(2))


@pytest.mark.parametrize("stop", [0, 4])
def test_stop_and_resume_after_a_seed_model(letters, stop):
    seed = train(letters, W[3], steps=15, keep_optimizer=True, **SMALL)
    how = dict(steps=10, schedule="constant", keep_optimizer=True, **SMALL)
    whole = train(letters, W[:2], start=seed, **how)
    rest = train(letters, W[:2], resume=train(letters, W[:2], start=seed, stop=stop, **how), **how)
    assert same_bits(whole, rest)
    assert whole.optimizer["step"] == rest.optimizer["step"] == 25, "AdamW corrects its bias by all steps it took"


def test_branches_in_a_store_go_on_from_their_seed_model(letters, corpus, tmp_path):
    store, how = RunStore(tmp_path), dict(workers=0, **SMALL)
    key = sweep(corpus, W[3:], store=store, steps=15, keep="optimizer", **how)["run", "key"][0]
    table = sweep(corpus, W[:3], store=store, start=key, steps=10, schedule="constant", **how)
    kept, seed = restore([store.get(k) for k in table["run", "key"]]), restore([store.get(key)])
    direct = train(corpus, W[:3], start=seed, steps=10, schedule="constant", **SMALL)
    assert distance(direct, kept) < 1e-4 and seed.optimizer["step"] == seed.step == 15
    assert np.allclose(kept.W, W[:3]) and np.allclose(kept.sampled, direct.sampled) and kept.names == corpus.names
    assert not set(table["run", "key"]) & set(sweep(corpus, W[:3], store=store, steps=10, schedule="constant", **how)["run", "key"])
    bare = sweep(corpus, W[:1], store=store, steps=5, keep="none", **how)["run", "key"][0]
    with pytest.raises(ValueError, match=f"{bare[:12]} was kept without"):
        restore([store.get(bare)])
    with pytest.raises(KeyError, match="no run 'nowhere'"):
        sweep(corpus, W[:1], store=store, start="nowhere", **how)


# ---- members that go wrong -------------------------------------------------------------------------------------------------
def test_exploding_member_is_reported_and_touches_nobody(letters):
    calm = train(letters, W, steps=25, **SMALL)
    start = train(letters, W, steps=1, stop=0, **SMALL)
    start.params["0.in"][2] = 1e30
    wild = train(letters, W, steps=25, start=start, **SMALL)
    assert wild.status == ["ok", "ok", "diverged", "ok"]
    assert all(torch.equal(v[[0, 1, 3]], calm.params[k][[0, 1, 3]]) for k, v in wild.params.items())


def test_learning_rate_too_large_diverges(letters):
    assert set(train(letters, W, steps=60, lr=50.0, clip=1e9, **SMALL).status) == {"diverged"}


# ---- losses ----------------------------------------------------------------------------------------------------------------
def by_hand(stack, corpus, split, tokens, targets):
    "(N, targets) nats per byte, in NumPy, from the logits of one window at a time."
    from mixlab.proxy import forward

    out, T = np.zeros((len(stack), len(targets))), stack.config["context"]
    for j, domain in enumerate(targets):
        text = corpus.text[domain, split].astype(int)
        R = min(-(-tokens // T), (len(text) - 1) // T)
        starts = [i * (len(text) - 1 - T) // max(1, R - 1) for i in range(R)]
        nats, nbytes = np.zeros(len(stack)), 0
        for s in starts:
            x, y = text[s : s + T], text[s + 1 : s + T + 1]
            logits = forward(stack.params, torch.from_numpy(x)[None, None], proxy(stack.config), False)[:, 0].double().numpy()
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            nats -= log_p[:, np.arange(T), y].sum(1)
            nbytes += corpus.token_bytes[y].sum()
        out[:, j] = nats / nbytes
    return out


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("tokens, targets", [(40, None), (300, ["c", "out"]), (10**6, "b")])
def test_losses_by_hand(letters, split, tokens, targets):
    "In nats per byte, not per token; the split asked for and no other."
    stack = train(letters, W[:3], steps=6, **SMALL)
    letters.read.clear()
    got = losses(stack, letters, split, tokens=tokens, targets=targets)
    names = letters.targets if targets is None else [targets] if isinstance(targets, str) else targets
    assert np.allclose(got, by_hand(stack, letters, split, tokens, names), atol=1e-5)
    assert set(letters.read) == {(d, split) for d in names}


def test_losses_are_of_validation_text_unless_asked(letters):
    stack = train(letters, W[:2], steps=6, **SMALL)
    assert np.array_equal(losses(stack, letters), losses(stack, letters, "valid", tokens=8192, device="cpu"))
    L = {split: losses(stack, letters, split) for split in ("train", "valid", "test")}
    assert min(np.abs(L["valid"] - L[s]).min() for s in ("train", "test")) > 1e-3
    assert losses(stack, letters).shape == (2, 4)


def test_windows_are_evenly_spaced():
    line = SimpleNamespace(targets=("a",), tokens=lambda domain, split: np.arange(101 if split == "valid" else 51, dtype=np.uint16))
    assert windows(line, "a", "valid", 10, 30)[:, 0].tolist() == [0, 45, 90]
    assert windows(line, "a", "test", 10, 30)[:, 0].tolist() == [0, 20, 40]
    assert windows(line, "a", "valid", 10, 21).shape == (3, 11) and windows(line, "a", "valid", 10, 20).shape == (2, 11)
    assert windows(line, "a", "valid", 10, 10**9)[:, 0].tolist() == list(range(0, 100, 10)), "all of it, nothing twice"
    assert windows(line, "a", "valid", 500, 30).tolist() == [list(range(101))], "a split shorter than a context"
    assert (np.diff(windows(line, "a", "valid", 7, 50), axis=1) == 1).all()


def test_nats_per_byte_do_not_depend_on_how_text_is_cut(folder, tmp_path):
    "A uniform model costs log V per token: with BPE, fewer tokens stand for the same bytes."
    bpe = train_bpe([p.read_text() for p in sorted(folder.rglob("*.txt"))], 300)
    corpus = from_folder(folder, heldout=("out",), tokenizer=bpe, context=32, cache=tmp_path)
    blank = train(corpus, W[0], steps=1, stop=0, progress=False)  # the head is zero: log V everywhere
    got = losses(blank, corpus)[0]
    for d, l in zip(corpus.targets, got):
        w = windows(corpus, d, "valid", blank.config["context"], 8192)[:, 1:]
        assert l == pytest.approx(np.log(corpus.vocab) * w.size / corpus.token_bytes[w].sum(), rel=1e-5)
    assert (got < np.log(corpus.vocab)).all()
    with pytest.raises(ValueError, match="corpus has .* tokens, trained knows 8"):
        losses(train(Letters(), W[0], steps=1, **SMALL), corpus)


# ---- random numbers and batches --------------------------------------------------------------------------------------------
def splitmix(*parts):
    "splitmix64, chained, in Python's whole numbers."
    mask, h = 2**64 - 1, 0x9E3779B97F4A7C15
    for p in parts:
        h = ((h ^ (p & mask)) + 0x9E3779B97F4A7C15) & mask
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & mask
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & mask
        h ^= h >> 31
    return h


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
def test_hash_is_splitmix64(parts):
    assert int(counter_hash(*parts)) == splitmix(*parts)


def test_hash_broadcasts_and_never_changes():
    assert int(counter_hash(1, 2, 3)) == 5246500226706903259
    table = counter_hash(7, np.arange(3)[:, None], np.arange(2))
    assert table.shape == (3, 2) and table.dtype == np.uint64 and int(table[2, 1]) == splitmix(7, 2, 1)
    for wrong in (2.5, True, "abc", [1.0], None):
        with pytest.raises(ValueError, match=r"parts\[1\] is .* expected whole numbers"):
            counter_hash(1, wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**63 - 1))
def test_shuffle_is_a_permutation(deck, key):
    assert np.array_equal(np.sort(shuffled(np.arange(deck), deck, key)), np.arange(deck))


def test_shuffle_never_changes():
    assert shuffled(np.arange(10), 10, 1).tolist() == [9, 5, 1, 0, 3, 2, 7, 6, 4, 8]
    assert shuffled(np.arange(10), 10, 2).tolist() == [8, 6, 9, 4, 1, 0, 5, 3, 2, 7]
    mixed = shuffled(np.array([3, 3]), np.array([10, 4]), np.array([1, 2]))
    assert mixed[0] == 0 and mixed[1] == shuffled(3, 4, 2)
    for wrong in (dict(card=10), dict(card=-1), dict(deck=0), dict(card=1.5), dict(key="x")):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            shuffled(**{**dict(card=3, deck=10, key=1), **wrong})


def test_domains_drawn_by_hand():
    "B points a step, one in each B-th of [0, 1), moved by the golden ratio; the first domain whose cumulative share lies above."
    w, golden = [[0.2, 0.3, 0.5], [0.6, 0, 0.4]], (np.sqrt(5) - 1) / 2
    got = domain_draws(np.array(w), np.array([4, 9]), np.array([0, 3]), 4)
    for i, s in enumerate((0, 3)):
        for n, seed in enumerate((4, 9)):
            shift = ((splitmix(seed, 0) >> 11) / 2**53 + s * golden) % 1
            for b in range(4):
                u = (b + shift) / 4
                assert got[i, n, b] == (0 if u < w[n][0] else 1 if u < sum(w[n][:2]) else 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda w: sum(w) > 0.1), st.integers(0, 2**31), st.integers(1, 5))
def test_drawn_shares_track_the_weights(w, seed, B):
    w, S = np.array([w]) / sum(w), 400
    share = (domain_draws(w, np.array([seed]), np.arange(S), B)[:, 0][..., None] == np.arange(w.shape[1])).mean((0, 1))
    assert abs(share - w).max() < 12 / (S * B) ** 0.9  # independent draws: about 0.5 / sqrt(S * B)
    assert (share[w[0] == 0] == 0).all()


def deal_by_hand(corpus, w, seed, B, T, steps):
    "Windows of one member, row by row: the n-th row of a domain is window n of its deck, shuffled anew and moved in each epoch."
    drawn, rows = {d: 0 for d in corpus.names}, []
    domains = domain_draws(w[None], np.array([seed]), np.arange(steps), B)[:, 0]
    for step in range(steps):
        for k in domains[step]:
            name = corpus.names[k]
            text = corpus.text[name, "train"]
            deck = (len(text) - 1) // T
            epoch, n = divmod(drawn[name], deck)
            key = splitmix(seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"), epoch)
            start = int(shuffled(n, deck, np.uint64(key))) * T + key % (len(text) - 1 - deck * T + 1)
            rows.append(text[start : start + T + 1])
            drawn[name] += 1
    return np.array(rows, np.int64).reshape(steps, B, T + 1)


@pytest.mark.parametrize("B, T", [(3, 16), (1, 70)])
def test_batches_by_hand(letters, B, T):
    "Several epochs of each domain; the windows of an epoch cover it once."
    got = [t for t, _ in batches(letters, W[[0, 2]], [5, 6], B, T, 0, 120)]
    for n, (w, seed) in enumerate(((W[0], 5), (W[2], 6))):
        assert np.array_equal(torch.stack([t[n] for t in got]).numpy(), deal_by_hand(letters, w, seed, B, T, 120))
    assert got[0].dtype == torch.int64 and len(got) == 120


def test_a_domain_is_read_through_before_any_of_it_comes_again():
    one = SimpleNamespace(names=("a",), tokens=lambda d: np.arange(161, dtype=np.uint8))  # ten windows of 16
    first = torch.cat([t[0] for t, _ in batches(one, np.ones((1, 1)), [0], 2, 16, 0, 10)])[:, 0]
    assert len(set(first[:10].tolist())) == len(set(first[10:].tolist())) == 10 and not torch.equal(first[:10], first[10:])
    other = torch.cat([t[0] for t, _ in batches(one, np.ones((1, 1)), [1], 2, 16, 0, 10)])[:, 0]
    assert not torch.equal(first, other), "another seed deals in another order"


def test_names_decide_what_is_dealt_not_places(letters):
    turned = Letters()
    turned.names = ("c", "a", "b")
    a = [t for t, _ in batches(letters, [{"a": 0, "b": 1, "c": 0}], [0], 2, 16, 0, 5)]
    b = [t for t, _ in batches(turned, [{"a": 0, "b": 1, "c": 0}], [0], 2, 16, 0, 5)]
    assert all(map(torch.equal, a, b))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 70))
def test_batches_do_not_depend_on_where_they_begin(corpus, first, n, block):
    whole = list(batches(corpus, W, range(4), 2, 16, 0, first + n))[first:]
    part = list(batches(corpus, W[[2]], [2], 2, 16, first, first + n, block=block))
    assert all(torch.equal(a[0][2], b[0][0]) and np.array_equal(a[1][2], b[1][0]) for a, b in zip(whole, part)) and len(part) == n


def test_a_block_of_batches_is_bounded_by_its_bytes(letters, monkeypatch):
    whole = list(batches(letters, FIVE, [0] * 5, 32, 100, 0, 130))
    drawn, real = [], engine._domain_draws
    monkeypatch.setattr(engine, "_domain_draws", lambda W, s, steps, b: drawn.append(len(steps)) or real(W, s, steps, b))
    monkeypatch.setattr(engine, "_BLOCK_BYTES", 5 * 32 * (101 + 130) * 3)
    small = list(batches(letters, FIVE, [0] * 5, 32, 100, 0, 130))
    assert max(drawn) == 3 and sum(drawn) == 130
    assert all(torch.equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(whole, small))


def test_domain_too_short_is_named_before_anything_is_trained(letters, monkeypatch):
    monkeypatch.setattr(engine, "_train_stack", lambda *a: pytest.fail("trained"))
    letters.text["b", "train"] = letters.text["b", "train"][:16]
    with pytest.raises(ValueError, match="'b' has 16 training tokens, fewer than a context of 16"):
        train(letters, [[1, 0, 0], [0, 1, 0]], stack=1, **SMALL)
    with pytest.raises(ValueError, match="'b' has 16 training tokens"):
        batches(letters, [0, 1, 0], [0], 1, 16, 0, 1)
    assert len(list(batches(letters, [1, 0, 0], [0], 1, 16, 0, 2))) == 2, "a domain of weight zero may be short"
    letters.text["b", "train"] = np.arange(17, dtype=np.uint8) % 8
    assert [t.flatten().tolist() for t, _ in batches(letters, [0, 1, 0], [0], 1, 16, 0, 2)] == [list(np.arange(17) % 8)] * 2, "one window"


# ---- at the door -------------------------------------------------------------------------------------------------------------
def test_names_decide_which_share_is_whose(letters):
    turned, expected = {"c": 0.5, "b": 0.3, "a": 0.2}, train(letters, W[0], steps=3, **SMALL)
    forms = [turned, Mixture(turned), pd.Series(turned), pd.DataFrame([turned]), [turned], [Mixture(turned)], list(W[0])]
    for form in forms:
        got = train(letters, form, steps=3, **SMALL)
        assert np.array_equal(got.W, W[:1]) and same_bits(got, expected) and got.names == letters.names
    for wrong in (Mixture({"x": 0.2, "y": 0.3, "z": 0.5}), {"a": 0.5, "b": 0.5}):
        with pytest.raises(ValueError, match="W has"):
            train(letters, wrong, steps=3, **SMALL)
    assert engine.as_corpus(letters, "hash") is letters and engine.as_member(None) is None
    assert engine.as_member(expected) is expected
    with pytest.raises(ValueError, match="corpus is 3, expected a Corpus"):
        engine.as_corpus(3)
    with pytest.raises(ValueError, match="start: one member is expected, got 2"):
        engine.as_member(train(letters, np.eye(3)[:2], steps=1, **SMALL))


@pytest.mark.parametrize(
    "setting, wrong",
    [(n, v) for n in ("steps", "batch", "rows", "context", "width", "depth", "heads", "hidden") for v in (0, -1, 2.0, "2", True, 10**9)]
    + [("lr", v) for v in ("abc", -1, 0, np.nan, np.inf, True)]
    + [("clip", v) for v in (-1, 0, "x", np.inf)] + [("weight_decay", v) for v in (-0.1, "x", np.nan)]
    + [("warmup", v) for v in (-0.1, 1.1, "x")] + [("betas", v) for v in ((0.9,), (0.9, 1.0), (-0.1, 0.9), "ab", 0.9, (0.9, "x"))]
    + [("schedule", "wsd"), ("schedule", 1), ("block", "gpt"), ("width", 6), ("seed", 0.9), ("seed", -1), ("seed", True), ("scale", "huge"), ("depht", 3)],
)
def test_settings_are_checked(letters, setting, wrong):
    heads = {"heads": 2} if setting == "width" else {}
    with pytest.raises(ValueError, match=setting):
        configuration(letters, **{**heads, setting: wrong})


def test_settings_come_as_any_number(letters):
    given = dict(steps=np.int64(7), batch=np.int32(4), lr=np.float64(0.01), warmup=0, betas=np.array([0.8, 0.9]), clip=2, seed=np.int64(3))
    c = configuration(letters, **given)
    assert c == configuration(letters, steps=7, batch=4, lr=0.01, warmup=0.0, betas=(0.8, 0.9), clip=2.0, seed=3)
    assert {k: type(c[k]) for k in given} == dict(steps=int, batch=int, lr=float, warmup=float, betas=list, clip=float, seed=int)
    assert configuration(letters, steps=None) == configuration(letters), "None leaves a setting as it is"
    assert configuration(letters)["betas"] == [0.9, 0.95] and configuration(letters)["vocab"] == 8
    assert configuration(letters, "regmix-1m")["vocab"] == 50432 and configuration(letters)["engine"] == engine.ENGINE
    assert [configuration(letters, batch=b)["rows"] for b in (1, 2, 3, 4)] == [1, 2, 1, 2]
    with pytest.raises(ValueError, match="rows is 2, expected a divisor of batch = 3"):
        configuration(letters, batch=3, rows=2)


REGMIX = dict(vocab=50432, context=2048, batch=512, rows=2, steps=1000, lr=4e-4, schedule="cosine", warmup=0.1, block="llama", heads=8)


@pytest.mark.parametrize(
    "scale, expected",
    [
        ("tiny", dict(width=64, depth=2, heads=2, hidden=256, context=64, batch=2, rows=2, steps=1600, lr=6e-3, schedule="linear")),
        ("small", dict(width=160, depth=4, heads=5, hidden=640, context=128, batch=4, rows=4, steps=1200, lr=3e-3)),
        ("base", dict(width=384, depth=8, heads=12, hidden=1536, context=256, batch=16, rows=16, steps=8000, lr=2e-3)),
        ("regmix-1m", dict(width=256, depth=2, hidden=512, **REGMIX)),
        ("regmix-60m", dict(width=768, depth=10, hidden=1536, **REGMIX)),
    ],
)
def test_scales(letters, scale, expected):
    c = configuration(letters, scale)
    assert {k: c[k] for k in expected} == expected
    assert (c["weight_decay"], c["betas"], c["clip"]) == (0.1, [0.9, 0.95], 1.0)


def refused(match, *args, **how):
    with pytest.raises(ValueError, match=match):
        train(*args, **{**SMALL, "steps": 20, **how})


def test_starts_and_stops_are_checked_before_the_work(letters, monkeypatch):
    half = train(letters, W, steps=20, stop=5, keep_optimizer=True, **SMALL)
    bare = train(letters, W, steps=20, stop=5, **SMALL)
    seed = train(letters, W[0], steps=2, **SMALL)
    monkeypatch.setattr(engine, "_train_stack", lambda *a: pytest.fail("trained"))
    refused("optimizer's state is missing; stop with keep_optimizer=True", letters, W, resume=bare)
    refused("start and resume are both given", letters, W, resume=half, start=seed)
    refused("resume was trained with lr=0.006, expected 0.01", letters, W, resume=half, lr=0.01)
    refused("resume was trained with steps=20, expected 30", letters, W, resume=half, steps=30)
    refused("resume was trained on other mixtures", letters, W[::-1], resume=half)
    refused("resume was trained on other mixtures", letters, W[:2], resume=half)
    refused("resume was trained with seeds", letters, W, resume=half, seed=1)
    refused("stop is 4, expected at least 5", letters, W, resume=half, stop=4)
    refused("start has the shape .*width=16.* this run has .*width=32", letters, W, start=seed, width=32)
    refused("start has 4 members, expected 1 or 3", letters, W[:3], start=half)
    refused("start is .* expected a Trained", letters, W, start="seed")
    refused("resume is .* expected a Trained", letters, W, resume=3)
    refused("stop is -1", letters, W, stop=-1)
    refused("stack is 0", letters, W, stack=0)
    refused("device is 'tpu'", letters, W, device="tpu")
    refused("device is 'cuda:99'", letters, W, device="cuda:99")
    refused("seed has 3 entries", letters, W, seed=[1, 2, 3])
    refused(r"seed\[1\] is 0.9", letters, W, seed=[1, 0.9, 2, 3])
    refused("keep_optimizer is 1", letters, W, keep_optimizer=1)
    refused("progress is 'no'", letters, W, progress="no")
    refused("corpus is .* expected a Corpus", "letters", W)
    refused("unknown setting 'learning_rate'; known: .*lr", letters, W, learning_rate=1)
    turned = Letters()
    turned.names = ("c", "b", "a")
    refused("resume was trained on a, b, c, expected c, b, a", turned, W, resume=half)


def test_stop_after_the_end_is_the_end(letters):
    assert train(letters, W[0], steps=3, stop=10**9, **SMALL).step == 3


def test_what_does_not_fit_into_memory_is_refused_at_once(letters, monkeypatch):
    monkeypatch.setattr(engine, "_train_stack", lambda *a: pytest.fail("trained"))
    monkeypatch.setattr(engine, "free_memory", lambda: 10**6)
    one = size(proxy(configuration(letters, **{k: v for k, v in SMALL.items() if k != "progress"}))) * 4
    fits = int(0.8 * 10**6 / one)
    with pytest.raises(MemoryError, match=f"{fits + 1} members need .* keep='none'"):
        train(letters, np.tile(W[:1], (fits + 1, 1)), **SMALL)
    with pytest.raises(MemoryError, match="members need"):
        train(letters, np.tile(W[:1], (fits // 2, 1)), keep_optimizer=True, **SMALL)
    c = configuration(letters, **{**{k: v for k, v in SMALL.items() if k != "progress"}, "context": 400, "batch": 64, "rows": 64})
    least = 16 * size(proxy(c)) + 4 * 64 * 400 * (8 + 1 * 1 * 400)
    monkeypatch.setattr(engine, "free_memory", lambda: least)
    engine._check_memory(1, c, torch.device("cpu"), False)
    monkeypatch.setattr(engine, "free_memory", lambda: least - 1)
    with pytest.raises(MemoryError, match="a step of one member needs more than"):
        train(letters, W[0], **{**SMALL, "context": 400, "batch": 64, "rows": 64})


def test_losses_and_windows_are_checked(letters):
    stack = train(letters, W[0], steps=1, **SMALL)
    for wrong, match in (
        (dict(split="dev"), "split is 'dev'"), (dict(tokens=0), "tokens is 0"), (dict(tokens=2.5), "tokens is 2.5"),
        (dict(device="tpu"), "device is 'tpu'"), (dict(targets=[]), "targets is empty"), (dict(targets=["x"]), "targets is 'x'"),
        (dict(trained=3), "trained is 3"), (dict(corpus=3), "corpus is 3"),
    ):
        with pytest.raises(ValueError, match=match):
            losses(**{**dict(trained=stack, corpus=letters), **wrong})
    for wrong in (dict(domain="x"), dict(split="dev"), dict(context=0), dict(tokens=-1)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            windows(**{**dict(corpus=letters, domain="a", split="valid", context=4, tokens=8), **wrong})
    letters.text["a", "valid"] = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="'a' has 1 tokens in split 'valid'"):
        losses(stack, letters)


# ---- stacks as values ----------------------------------------------------------------------------------------------------------
def test_members_of_a_stack(letters):
    stack = train(letters, W, steps=2, seed=[5, 6, 7, 8], keep_optimizer=True, **SMALL)
    for index, expected in (
        (1, [1]), (-1, [3]), (np.int64(2), [2]), (slice(1, 3), [1, 2]), ([3, 0], [3, 0]), (np.array([0, 2]), [0, 2]),
        ([True, False, True, False], [0, 2]), (stack.W[:, 0] < 0.3, [0, 2]), ([-1, 1], [3, 1]), ([], []),
    ):
        part = stack[index]
        assert part.seeds.tolist() == [5 + i for i in expected] and np.array_equal(part.W, W[expected])
        assert torch.equal(part.params["head"], stack.params["head"][expected]) and len(part) == len(expected)
        assert torch.equal(part.optimizer["head"]["exp_avg"], stack.optimizer["head"]["exp_avg"][expected])
        assert np.array_equal(part.curve, stack.curve[expected]) and np.array_equal(part.sampled, stack.sampled[expected])
        assert len(part.status) == len(expected) and part.optimizer["step"] == 2
    assert [member.seeds[0] for member in stack] == [5, 6, 7, 8]
    for index, error in ((4, IndexError), ([0, 9], IndexError), (-5, IndexError), ("a", TypeError), (True, TypeError), (0.5, TypeError), ([True], TypeError)):
        with pytest.raises(error, match="i "):
            stack[index]
    assert repr(stack) == f"Trained(4 × {size(proxy(stack.config)):,} parameters, 2 steps, {stack.status.count('diverged')} diverged)"


def test_join_is_the_opposite_of_taking_apart(letters):
    stack = train(letters, W, steps=2, seed=[5, 6, 7, 8], keep_optimizer=True, **SMALL)
    again = join([stack[:1], stack[1:3], stack[3]])
    assert same_bits(again, stack) and np.array_equal(again.seeds, stack.seeds) and np.array_equal(again.curve, stack.curve)
    assert torch.equal(again.optimizer["0.in"]["exp_avg_sq"], stack.optimizer["0.in"]["exp_avg_sq"]) and again.optimizer["step"] == 2
    assert np.array_equal(again.W, W) and np.array_equal(again.sampled, stack.sampled) and again.status == stack.status
    with pytest.raises(ValueError, match=r"parts\[1\] has the shape"):
        join([stack, train(letters, W, steps=2, **{**SMALL, "width": 8})])
    with pytest.raises(ValueError, match=r"parts\[1\] has a curve of 3 steps"):
        join([stack, train(letters, W, steps=3, **SMALL)])
    with pytest.raises(ValueError, match="parts is list"):
        join([])


def test_size_of_a_stack(letters):
    c = configuration(letters)
    assert stack_size(c, memory=1e12) == 5 * 2**20 // ((3 * 64 + 256) * 2 * 64 * 4)
    rows = c["rows"] * c["context"]
    need = 16 * size(proxy(c)) + 4 * rows * max(3 * c["vocab"], 8 * 64 + 4 * 256) * (2 + c["depth"])
    assert [stack_size(c, memory=m * need) for m in (0.5, 1, 3.5)] == [1, 1, 3]
    assert stack_size(c) == stack_size(c, "cpu", memory=0.5 * engine.free_memory())
    for wrong in (dict(memory=-1), dict(memory=np.nan), dict(config={}), dict(device="tpu")):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            stack_size(**{**dict(config=c), **wrong})


def test_progress_bar(capsys):
    assert tqdm_or_not(False, total=3).disable and not tqdm_or_not(True, total=3).disable


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu(corpus):
    a, b = (losses(train(corpus, W, steps=200, device=d, progress=False), corpus, device="cpu") for d in ("cpu", "cuda"))
    assert np.abs(a - b).max() < 0.1 and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99
