"""Weight decay."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative, select
from optfx.tree import Tree


def decay(u: Tensor, p: Tensor, weight_decay) -> Tensor:
    return u + weight_decay * p


def decayed(updates: Tree, params: Tree, weight_decay: Any, mask: Any, who: str) -> Tree:
    """The updates with weight decay, where the mask of the transform `who` has it."""
    if mask is None:
        return tree.elementwise(decay, updates, params, weight_decay=weight_decay)
    keep = select.resolve(mask, params, bool, who)
    kept, rest = tree.split(updates, keep)
    kept = tree.elementwise(decay, kept, tree.split(params, keep)[0], weight_decay=weight_decay)
    return tree.merge(kept, rest)


@tree.record
class add_decayed_weights(core.Stateless):
    r"""Add a multiple of each parameter to its update. Needs params.

    $$u_t = g_t + \lambda\, p_t$$

    After a preconditioner and before the learning rate this is decoupled weight decay (AdamW); before the
    preconditioner it is an L2 penalty on the parameters (`weight_decay` of `torch.optim.SGD` and `torch.optim.Adam`).

    Args:
        weight_decay: $\lambda$.
        mask: which parameters decay: a selector (`select.ndim(min=2)`), a function `params -> tree of bools`, or a
            tree of bools or prefix of one; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, <https://arxiv.org/abs/1711.05101>;
        optax, `add_decayed_weights`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.add_decayed_weights(0.1, mask=optfx.select.ndim(min=2))
        >>> params = {"w": torch.ones(1, 1), "b": torch.ones(1)}
        >>> tx.update({"w": torch.zeros(1, 1), "b": torch.zeros(1)}, tx.init(params), params)[0]
        {'w': tensor([[0.1000]]), 'b': tensor([0.])}
    """

    needs_params = True
    weight_decay: NonNegative = 0.0
    mask: Any = None

    def apply(self, updates: Tree, params: Tree, weight_decay: Any) -> Tree:
        return decayed(updates, params, weight_decay, self.mask, "add_decayed_weights")
