"""Limits on attention logits, by the weights that queries and keys are made with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative
from optfx.transforms.clipping import shrink
from optfx.tree import Tree
from optfx.tree.holes import broadcast


def shrink_heads(u: Tensor, p: Tensor, s: Tensor, tau, power) -> Tensor:
    by_head = (p + u).reshape(s.numel(), p.numel() // s.numel())
    factor = shrink(s.reshape(-1, 1), tau) ** power
    return u + (by_head * (factor - 1)).reshape(p.shape)


@tree.record
class qk_clip(core.Stateless):
    r"""Shrink the weights of those attention heads whose logits are too large. Needs params; put it last in a chain.

    $$W_h \leftarrow \gamma_h^\alpha\, W_h, \qquad \gamma_h = \min\!\left(1, \frac{\tau}{S_h}\right)$$

    $W_h$ are the rows of a head in the weights that the step leads to, and $S_h$ is its largest logit in the forward
    pass. With $\alpha = \tfrac12$ for queries and for keys, their products shrink by $\gamma_h$. Muon with it is
    MuonClip.

    Args:
        tau: $\tau$, the largest logit that is let be.
        power: $\alpha$. For latent attention (MLA) it is 1 for the queries with a rotary embedding, whose keys are
            shared by all heads and left alone.

    It is for the weights of queries and keys alone: put it in `masked`. The extra argument `max_logits` holds $S$, one
    tensor for each leaf, (heads,) or () for one head: a tree like the params, or a prefix of one, such as a tensor for
    each attention layer. Keys that are shared by several queries have the largest of these.

    Raises:
        ValueError: no params; no `max_logits`, or some that do not fit the params, naming the path; rows of a leaf that
            are no multiple of its heads.

    Reference: Kimi Team, "Kimi K2: Open Agentic Intelligence", 2025, <https://arxiv.org/abs/2507.20534>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(0.1), optfx.masked(optfx.qk_clip(tau=100.0), optfx.select.path("*.[qk]")))
        >>> params = {"attn": {"q": torch.ones(2, 1), "k": torch.ones(2, 1), "v": torch.ones(2, 1)}}
        >>> zeros, logits = optfx.tree.zeros_like(params), {"attn": torch.tensor([50.0, 400.0])}
        >>> updates, _ = tx.update(zeros, tx.init(params), params, max_logits=logits)
        >>> updates["attn"]["q"].T, updates["attn"]["v"].T
        (tensor([[ 0.0000, -0.5000]]), tensor([[0., 0.]]))
    """

    needs_params = True
    needs = ("max_logits",)
    tau: NonNegative = 100.0
    power: NonNegative = 0.5

    def apply(self, updates: Tree, params: Tree, max_logits: Tree, **numbers: Any) -> Tree:
        found = broadcast(max_logits, params)
        for path, p, s in zip(tree.paths(params), tree.leaves(params), found, strict=True):
            if (p.shape[0] if p.ndim else 1) % max(s.numel(), 1):
                raise ValueError(f"qk_clip: the parameter at {path!r} of shape {tuple(p.shape)} has {s.numel()} heads")
        logits = tree.unflatten_like(params, found)
        return tree.leafwise(shrink_heads, updates, params, logits, same_shapes=False, **numbers)
