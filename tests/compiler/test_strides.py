"""A `view` that eager code refuses for the strides of a leaf is refused by `fuse`, which has all leaves contiguous."""

import pytest
import torch

import optfx
from optfx import tree

VIEWS = {
    "of a transpose": (lambda x: x.t().view(24).view(4, 6), False),
    "of a number of it": (lambda x: (x.t() * 2).view(24).view(4, 6), False),
    "of a part": (lambda x: x[:, :3].view(12).sum() + x, False),
    "like a transpose": (lambda x: torch.ones_like(x.t()).view(4, 6), False),
    "of rows": (lambda x: x * x.view(3, -1).sum(1, True).expand(3, 8).view(4, 6), False),
    "of equal numbers": (lambda x: x.view(2, 2, 6).sum(1, True).expand(2, 2, 6).view(4, 6), False),
    "of rows, as they are": (lambda x: x * x.sum(1, True).expand(4, 6).view(4, 6), True),
    "of what is made of rows": (lambda x: x * (x.view(3, -1).sum(1, True).expand(3, 8) + 1).view(4, 6), True),
    "reshape": (lambda x: x.t().reshape(24).view(4, 6), True),
    "contiguous": (lambda x: x.t().contiguous().view(24).view(4, 6), True),
    "there and back": (lambda x: x.t().t().view(24).view(4, 6), True),
    "of ones": (lambda x: x.t().unsqueeze(0).squeeze(0).t().view(4, 6), True),
    "of bits": (lambda x: x.view(torch.int32).view(torch.float32), True),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    f, allowed = VIEWS[name]
    tx = optfx.stateless(lambda updates, params: tree.map(f, updates))
    params = {"w": torch.arange(24.0).reshape(4, 6)}
    grads = {"w": params["w"].cos()}
    opt = optfx.fuse(tx)
    new, state = opt.init(params)
    if not allowed:
        for step in (lambda: tx.update(grads, tx.init(params), params), lambda: opt.step(grads, state, new)):
            with pytest.raises(RuntimeError, match="view size is not compatible"):
                step()
        return
    updates, _ = tx.update(grads, tx.init(params), params)
    new, _ = opt.step(grads, state, new)
    torch.testing.assert_close(new["w"], params["w"] + updates["w"])
