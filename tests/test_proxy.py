"The model: against transformers' Llama, against attention written in NumPy, against autograd, and at the door."
import numpy as np
import pytest
import torch

from mixlab.proxy import (
    FusedLoss,
    FusedMix,
    FusedNorm,
    Proxy,
    as_device,
    embed,
    forward,
    free_memory,
    init,
    mix_tokens,
    norm,
    regmix_1m,
    regmix_60m,
    rotate,
    rotation,
    shapes,
    size,
    token_losses,
)

LLAMA = Proxy(vocab=23, width=24, depth=2, heads=3, hidden=10, block="llama")
PARALLEL = Proxy(vocab=23, width=24, depth=2, heads=3, hidden=10)


def noisy(model, seeds=(0,), dtype=torch.float64):
    "A stack in which nothing is zero or one."
    generator = torch.Generator().manual_seed(9)
    params = init(model, seeds, dtype)
    return {k: v + 0.3 * torch.randn(v.shape, generator=generator, dtype=torch.float64).to(dtype) for k, v in params.items()}


def tokens(model, N=1, B=2, T=7, seed=0):
    return torch.randint(0, model.vocab, (N, B, T), generator=torch.Generator().manual_seed(seed))


# ---- RegMix's block is Llama's ---------------------------------------------------------------------------------------
def hugging_face(model, params):
    """transformers' Llama with the numbers of the only member of `params`.

    It turns channel j with channel j + d/2 of a head, ours j = 2i with 2i + 1, so the columns of q and k change places."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=model.vocab, hidden_size=model.width, intermediate_size=model.hidden, num_hidden_layers=model.depth,
        num_attention_heads=model.heads, num_key_value_heads=model.heads, rms_norm_eps=1e-6, rope_theta=10000.0,
        max_position_embeddings=64, tie_word_embeddings=False, attention_bias=False, mlp_bias=False, hidden_act="silu",
    )
    config._attn_implementation = "sdpa"
    network = LlamaForCausalLM(config).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(to_hugging_face(model, params, name))
    return network


def halves(model):
    "Our channel at each of Llama's places: the even ones of a head, then the odd ones."
    head = np.arange(model.width).reshape(model.heads, -1)
    return np.concatenate([np.concatenate([h[::2], h[1::2]]) for h in head])


def to_hugging_face(model, params, name):
    "The tensor of ours that transformers calls `name`."
    p = {k: v[0] for k, v in params.items()}
    whole = {"model.embed_tokens.weight": p["embed"], "model.norm.weight": p["norm"], "lm_head.weight": p["head"].T}
    if name in whole:
        return whole[name]
    block, kind = name.split(".")[2], name.split(".")[-2]
    q, k, v = p[f"{block}.qkv"].chunk(3, dim=1)
    return {
        "q_proj": q[:, halves(model)].T,
        "k_proj": k[:, halves(model)].T,
        "v_proj": v.T,
        "o_proj": p[f"{block}.proj"].T,
        "gate_proj": p[f"{block}.gate"].T,
        "up_proj": p[f"{block}.up"].T,
        "down_proj": p[f"{block}.down"].T,
        "input_layernorm": p[f"{block}.norm1"],
        "post_attention_layernorm": p[f"{block}.norm2"],
    }[kind]


@pytest.mark.parametrize("fused", [True, False])
def test_llama_is_transformers_llama(fused):
    "Outputs, loss and every gradient in double precision; transformers computes norms and angles in single precision."
    pytest.importorskip("transformers")
    params = {k: v.requires_grad_() for k, v in noisy(LLAMA).items()}
    network, x, y = hugging_face(LLAMA, params), tokens(LLAMA), tokens(LLAMA, seed=1)
    theirs = network(input_ids=x[0]).logits
    ours = forward(params, x, LLAMA, fused)[0]
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5) and theirs.std() > 0.5
    token_losses(params, x, LLAMA, y, fused).sum().backward()
    torch.nn.functional.cross_entropy(theirs.flatten(0, 1), y.flatten(), reduction="sum").backward()
    grads = {k: v.grad for k, v in params.items()}
    for name, parameter in network.named_parameters():
        expected = to_hugging_face(LLAMA, grads, name)
        assert (parameter.grad - expected).norm() < 1e-5 * expected.norm(), name


# ---- the parallel block, in NumPy ------------------------------------------------------------------------------------
def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(model, p, row):
    "Logits (T, V) of one row of tokens, in float64 and loops."
    D, H, T = model.width, model.heads, len(row)
    d = D // H
    rms = lambda h: h / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-6)
    angle = np.arange(T)[:, None] / 10000.0 ** (2 * np.arange(d // 2) / d)

    def turn(z):
        out = np.empty_like(z)
        out[:, ::2] = z[:, ::2] * np.cos(angle) - z[:, 1::2] * np.sin(angle)
        out[:, 1::2] = z[:, ::2] * np.sin(angle) + z[:, 1::2] * np.cos(angle)
        return out

    h = p["embed"][row].copy()
    h[1:] += p["smear"] * p["embed"][row[:-1]]
    for b in range(model.depth):
        z = rms(h) @ p[f"{b}.in"]
        heads = []
        for i in range(H):
            q, k, v = (z[:, j * D + i * d : j * D + (i + 1) * d] for j in range(3))
            score = turn(q) @ turn(k).T / np.sqrt(d)
            score[np.triu_indices(T, 1)] = -np.inf
            heads.append(softmax(score) @ v)
        h = h + np.concatenate([*heads, np.maximum(z[:, 3 * D :], 0) ** 2], 1) @ p[f"{b}.out"]
    return rms(h) @ p["head"]


@pytest.mark.parametrize("fused", [True, False])
def test_parallel_block_by_hand(fused):
    params, x = noisy(PARALLEL, (0, 1)), tokens(PARALLEL, N=2)
    got = forward(params, x, PARALLEL, fused).numpy()
    for n in range(2):
        p = {k: v[n].numpy() for k, v in params.items()}
        for b in range(2):
            assert np.allclose(got[n, b], by_hand(PARALLEL, p, x[n, b].numpy()), atol=1e-10)


@pytest.mark.parametrize("model", [LLAMA, PARALLEL], ids=lambda m: m.block)
@pytest.mark.parametrize("fused", [True, False])
def test_loss_is_minus_log_softmax(model, fused):
    params, x, y = noisy(model, (0, 1)), tokens(model, N=2), tokens(model, N=2, seed=1)
    logits = forward(params, x, model, fused).numpy()
    expected = -np.log(np.take_along_axis(softmax(logits), y.numpy()[..., None], -1))[..., 0]
    assert np.allclose(token_losses(params, x, model, y, fused).numpy(), expected, atol=1e-12)


def test_one_batch_for_all_members():
    params, x, y = noisy(PARALLEL, (0, 1, 2)), tokens(PARALLEL), tokens(PARALLEL, seed=1)
    shared = token_losses(params, x, PARALLEL, y)
    repeated = token_losses(params, x.expand(3, -1, -1), PARALLEL, y.expand(3, -1, -1))
    assert torch.equal(shared, repeated) and shared.shape == (3, 2, 7)


@pytest.mark.parametrize("model", [LLAMA, PARALLEL], ids=lambda m: m.block)
@pytest.mark.parametrize("fused", [True, False])
def test_no_position_sees_the_future_and_no_member_another(model, fused):
    params, x = noisy(model, (0, 1)), tokens(model, N=2)
    before, later = forward(params, x, model, fused), x.clone()
    later[:, :, 4] = (later[:, :, 4] + 1) % model.vocab
    change = (forward(params, later, model, fused) - before).abs().amax((0, 1, 3))
    assert (change[:4] == 0).all() and (change[4:] > 0).all()
    other = {k: torch.stack([v[0], v[1] * 1.5]) for k, v in params.items()}
    change = (forward(other, x, model, fused) - before).abs().amax((1, 2, 3))
    assert change[0] == 0 < change[1]


def test_smear_adds_a_share_of_the_token_before():
    params = {"embed": torch.arange(12.0).view(1, 4, 3), "smear": torch.tensor([[1.0, 0.5, 0.0]])}
    h = embed(params, torch.tensor([[[2, 1], [3, 0]]]))
    assert h.tolist() == [[[6, 7, 8], [3 + 6, 4 + 3.5, 5], [9, 10, 11], [0 + 9, 1 + 5, 2]]]
    assert torch.equal(embed({"embed": params["embed"]}, torch.tensor([[[2, 1]]])), params["embed"][:, [2, 1]])


# ---- positions -------------------------------------------------------------------------------------------------------
def test_rotation_by_hand():
    turn = rotation(5, 4, torch.float64, "cpu")
    assert turn.shape == (5, 2) and turn.dtype == torch.complex128
    for t in range(5):
        assert turn[t, 0].item() == pytest.approx(complex(np.cos(t), np.sin(t)))
        assert turn[t, 1].item() == pytest.approx(complex(np.cos(t / 100), np.sin(t / 100)))
    assert rotation(5, 4, torch.float32, "cpu").dtype == torch.complex64


def test_products_of_turned_vectors_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, k = (rotate(v.expand(9, 1, 6)) for v in (q, k))
    products = (q[:, 0] @ k[:, 0].T).numpy()
    assert np.allclose(np.diag(products, 2), products[0, 2]) and abs(products[0, 2] - products[2, 0]) > 1e-3
    assert rotate(torch.ones(3, 1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_tables_are_kept_as_plain_tensors():
    "Whoever asks first: a transform of a transform, or a block in inference mode."
    model = Proxy(vocab=5, width=4, depth=1, heads=1, hidden=2)
    params, x = noisy(model), tokens(model, T=11)
    loss = lambda head: token_losses({**params, "head": head}, x, model, x, fused=False).sum()
    rows = [torch.func.jacrev(torch.func.grad(loss))(params["head"]) for _ in range(2)]
    assert torch.equal(*rows)
    with torch.inference_mode():
        token_losses(params, x[..., :6], model, x[..., :6], fused=False)
        token_losses(params, x[..., :6], model, x[..., :6], fused=True)
    for fused in (False, True):
        q = {k: v.clone().requires_grad_() for k, v in params.items()}
        token_losses(q, x[..., :6], model, x[..., :6], fused=fused).sum().backward()
        assert q["0.in"].grad.abs().sum() > 0


# ---- derivatives written by hand -------------------------------------------------------------------------------------
def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)


def test_norm_and_its_derivative():
    x = random(3, 5)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(FusedNorm.apply(x), expected, atol=1e-14) and torch.allclose(norm(x), expected, atol=1e-14)
    assert torch.autograd.gradcheck(FusedNorm.apply, (x,))


def test_loss_and_its_derivative():
    logits, y = random(2, 3, 5), torch.tensor([[0, 4, 2], [1, 1, 3]])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(2, 3)
    assert torch.allclose(FusedLoss.apply(logits, y), expected, atol=1e-14)
    g = random(2, 3).detach()
    ours, theirs = (torch.autograd.grad(l, logits, g)[0] for l in (FusedLoss.apply(logits, y), expected))
    assert torch.allclose(ours, theirs, atol=1e-14)


def test_loss_of_an_impossible_token_is_capped():
    "A probability of zero costs what the smallest normal number costs, not infinity."
    loss = FusedLoss.apply(torch.tensor([[200.0, 0.0]]), torch.tensor([1])).item()
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny), rel=1e-5)


@pytest.mark.parametrize("D, H, M, T", [(12, 6, 4, 5), (10, 1, 2, 4), (24, 3, 40, 1), (8, 2, 7, 3), (6, 3, 6, 4), (8, 2, 0, 3)])
def test_attention_beside_feed_forward_and_its_derivative(D, H, M, T):
    "Head width 2, one head, context 1, odd and no hidden channels."
    z = random(2, 3 * T, 3 * D + M)
    ours = lambda z: FusedMix.apply(z, 3, D, H)
    assert torch.allclose(ours(z), mix_tokens(z, 3, D, H), atol=1e-12)
    assert torch.autograd.gradcheck(ours, (z,), fast_mode=True)


@pytest.mark.parametrize("model", [LLAMA, PARALLEL, Proxy(vocab=5, width=8, depth=1, heads=2, hidden=3)])
def test_gradients_of_the_whole_model(model):
    x, y, grads = tokens(model, N=2), tokens(model, N=2, seed=1), []
    for fused in (True, False):
        params = {k: v.requires_grad_() for k, v in noisy(model, (0, 1)).items()}
        token_losses(params, x, model, y, fused).sum().backward()
        grads.append(torch.cat([v.grad.flatten() for v in params.values()]))
    assert (grads[0] - grads[1]).norm() < 1e-12 * grads[0].norm()


def test_second_derivatives_of_the_hand_written_parts_are_refused():
    params = {k: v.requires_grad_() for k, v in noisy(PARALLEL).items()}
    x = tokens(PARALLEL)
    with pytest.raises(RuntimeError, match="fused=False"):
        torch.autograd.grad(token_losses(params, x, PARALLEL, x, True).sum(), params["head"], create_graph=True)
    loss = token_losses(params, x, PARALLEL, x, False).sum()
    first = torch.autograd.grad(loss, params["head"], create_graph=True)[0]
    assert torch.autograd.grad(first.square().sum(), params["0.in"])[0].abs().sum() > 0


# ---- numbers of a model ----------------------------------------------------------------------------------------------
def test_number_of_parameters():
    assert size(Proxy(vocab=7, width=4, depth=3, heads=2, hidden=5)) == 2 * 7 * 4 + 4 + 3 * (4 * 17 + 9 * 4)
    assert size(regmix_1m, embedding=False) == 2 * (4 * 256 * 256 + 3 * 256 * 512 + 2 * 256) + 256
    assert size(regmix_1m) == size(regmix_1m, embedding=False) + 2 * 50432 * 256
    assert size(regmix_60m, embedding=False) == 10 * (4 * 768**2 + 3 * 768 * 1536 + 2 * 768) + 768
    assert list(shapes(PARALLEL))[:3] == ["embed", "smear", "0.in"] and shapes(LLAMA)["1.down"] == (10, 24)


def test_first_numbers():
    "Standard deviations of GPT-2 for Llama's block; for ours residual outputs and head start at zero."
    llama = init(Proxy(vocab=64, width=64, depth=8, heads=2, hidden=64, block="llama"), [0])
    for name, std in (("embed", 0.02), ("head", 0.02), ("3.qkv", 0.02), ("3.gate", 0.02), ("3.up", 0.02)):
        assert llama[name].std().item() == pytest.approx(std, rel=0.06), name
    for name in ("0.proj", "7.down"):
        assert llama[name].std().item() == pytest.approx(0.02 / 16**0.5, rel=0.06), name
    assert all((llama[name] == 1).all() for name in ("norm", "0.norm1", "0.norm2"))
    ours = init(Proxy(vocab=64, width=64, depth=1), [0])
    assert ours["embed"].std().item() == pytest.approx(3, rel=0.05)
    assert ours["0.in"].std().item() == pytest.approx(1 / 8, rel=0.05)
    assert (ours["smear"] == 0.5).all() and not ours["head"].any() and not ours["0.out"].any()
    uniform = token_losses(ours, tokens(Proxy(), T=5) % 64, Proxy(vocab=64, width=64, depth=1), tokens(Proxy(), T=5) % 64)
    assert torch.allclose(uniform, torch.tensor(64.0).log())


def test_a_members_first_numbers_come_from_its_seed_alone():
    company, alone = init(PARALLEL, [5, 3, 5]), init(PARALLEL, [3])
    assert all(torch.equal(company[k][1], alone[k][0]) and torch.equal(company[k][0], company[k][2]) for k in alone)
    assert not torch.equal(company["embed"][0], company["embed"][1])
    assert init(PARALLEL, [3], torch.float64)["embed"].dtype == torch.float64
    assert torch.equal(init(PARALLEL, [3], torch.float64)["embed"].float(), alone["embed"])


@pytest.mark.parametrize("model", [LLAMA, PARALLEL], ids=lambda m: m.block)
def test_the_path_of_a_gpu_keeps_to_one_device(model):
    "Shapes without numbers: a tensor made on the wrong device would raise."
    params = {k: v.requires_grad_() for k, v in init(model, [0, 1], torch.bfloat16, "meta").items()}
    x = tokens(model, N=2).to("meta")
    loss = token_losses(params, x, model, x)
    assert loss.device.type == "meta" and loss.dtype == torch.float32 and loss.shape == (2, 2, 7)
    loss.sum().backward()
    assert all(v.grad.device.type == "meta" for v in params.values())


# ---- at the door -----------------------------------------------------------------------------------------------------
def test_numpy_integers_are_whole_numbers():
    model = Proxy(width=np.int64(64), heads=np.int32(4))
    assert model == Proxy(heads=4) and all(type(getattr(model, k)) is int for k in ("vocab", "width", "depth", "heads", "hidden"))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(width=True), "Proxy.width is True"),
        (dict(width=64.0), "Proxy.width is 64.0"),
        (dict(depth=0), "Proxy.depth is 0"),
        (dict(vocab="256"), "Proxy.vocab is '256'"),
        (dict(hidden=-4), "Proxy.hidden is -4"),
        (dict(heads=10**9), "Proxy.heads is 1000000000"),
        (dict(width=6, heads=2), "Proxy.width is 6, expected a multiple of 2·heads = 4"),
        (dict(block="gpt"), "Proxy.block is 'gpt', expected one of 'parallel', 'llama'"),
    ],
)
def test_shape_that_cannot_be_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Proxy(**wrong)


def test_tokens_that_the_model_does_not_know_are_refused():
    "They would read the next member's embeddings."
    params, x = noisy(PARALLEL, (0, 1)), tokens(PARALLEL, N=2)
    for wrong in (23, -1):
        y = x.clone()
        y[0, 0, 0] = wrong
        for call in (lambda: forward(params, y, PARALLEL), lambda: embed(params, y)):
            with pytest.raises(ValueError, match="x holds tokens from .* expected 0 to 22"):
                call()
        with pytest.raises(ValueError, match="y holds tokens"):
            token_losses(params, x, PARALLEL, y)


def test_tensors_that_do_not_fit_are_named():
    params, x = noisy(PARALLEL, (0, 1)), tokens(PARALLEL, N=2)
    with pytest.raises(ValueError, match="params lacks 'head'"):
        forward({k: v for k, v in params.items() if k != "head"}, x, PARALLEL)
    with pytest.raises(ValueError, match=r"params\['0.in'\] has shape .* expected \(2, 24, 82\)"):
        forward({**params, "0.in": params["0.in"][:1]}, x, PARALLEL)
    with pytest.raises(ValueError, match=r"x has shape \(3, 2, 7\), expected \(2, B, T\) or \(1, B, T\)"):
        forward(params, tokens(PARALLEL, N=3), PARALLEL)
    with pytest.raises(ValueError, match="y has shape"):
        token_losses(params, x, PARALLEL, x[..., :3])
    with pytest.raises(ValueError, match="x is of shape .* of torch.float"):
        forward(params, x.double(), PARALLEL)
    with pytest.raises(ValueError, match="z has shape"):
        mix_tokens(torch.ones(1, 5, 30), 2, 8, 2)


def test_devices_and_memory():
    assert as_device("cpu").type == "cpu" and as_device("meta", meta=True).type == "meta" and free_memory() > 2**20
    for wrong in ("abc", "cuda:99", "meta", 1.5, ""):
        with pytest.raises(ValueError, match="device is"):
            as_device(wrong)
    with pytest.raises(MemoryError, match="need"):
        init(Proxy(vocab=2**20, width=2**16, hidden=2), [0])
