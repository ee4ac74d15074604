"Rows of mixlab.proxy."
import torch

from calls import Call

WHY = "called by forward and token_losses, with tensors that they have checked"


def model(block="parallel"):
    from mixlab.proxy import Proxy

    return Proxy(vocab=16, width=8, depth=1, heads=2, hidden=6, block=block)


def stack():
    from mixlab.proxy import init

    return init(model(), [0, 1])


def tokens(seed=0):
    return torch.randint(0, 16, (2, 3, 5), generator=torch.Generator().manual_seed(seed))


ROWS = [
    Call("Proxy", lambda: dict(vocab=256, width=16, depth=1, heads=2, hidden=8, block="llama")),
    Call("regmix_1m", why="a value"),
    Call("regmix_60m", why="a value"),
    Call("shapes", lambda: dict(model=model())),
    Call("size", lambda: dict(model=model(), embedding=False)),
    Call("free_memory", lambda: {}, result=lambda free: free > 0),
    Call("as_device", lambda: dict(device="cpu", meta=False), result=str),
    Call("init", lambda: dict(model=model(), seeds=[0, 3], dtype=torch.float64, device="cpu")),
    Call("embed", lambda: dict(params=stack(), x=tokens())),
    Call("rotation", lambda: dict(T=4, width=6, dtype=torch.float64, device="cpu"), result=torch.view_as_real),
    Call("rotate", lambda: dict(x=torch.ones(4, 2, 6))),
    Call("mix_tokens", lambda: dict(z=torch.ones(2, 15, 3 * 8 + 6), B=3, D=8, H=2)),
    Call("norm", lambda: dict(h=torch.ones(2, 8))),
    Call("FusedNorm", why=WHY),
    Call("FusedLoss", why=WHY),
    Call("FusedMix", why=WHY),
    Call("forward", lambda: dict(params=stack(), x=tokens(), model=model(), fused=True)),
    Call("token_losses", lambda: dict(params=stack(), x=tokens(), model=model(), y=tokens(1), fused=False)),
]
