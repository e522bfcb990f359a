"""Weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative, select
from optfx.tree import Tree


def decay(u: Tensor, p: Tensor, weight_decay) -> Tensor:
    return u + weight_decay * p


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
        if self.mask is None:
            return tree.elementwise(decay, updates, params, weight_decay=weight_decay)
        keep = select.resolve(self.mask, params, bool, "add_decayed_weights")
        kept, rest = tree.split(updates, keep)
        kept = tree.elementwise(decay, kept, tree.split(params, keep)[0], weight_decay=weight_decay)
        return tree.merge(kept, rest)


def proximal(u: Tensor, p: Tensor, learning_rate, weight_decay) -> Tensor:
    return -learning_rate * decay(u, p, weight_decay) / (1 + learning_rate * weight_decay)


@tree.record
class proximal_decay(core.Stateless):
    r"""Take the step of a learning rate, and then shrink the parameters: weight decay as a proximal step. Needs params.

    $$u_t = \frac{p_t - \eta_t\, g_t}{1 + \eta_t \lambda} - p_t
    = -\eta_t\, \frac{g_t + \lambda\, p_t}{1 + \eta_t \lambda}$$

    It stands in a chain where `scale_by_learning_rate` would, and flips the sign. However large $\eta \lambda$ is, the
    decay leads no parameter across zero, as `add_decayed_weights` would beyond 1.

    Args:
        learning_rate: $\eta$.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Zhuang et al., "Understanding AdamW through Proximal Methods and Scale-Freeness", 2022,
        <https://arxiv.org/abs/2202.00089>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.proximal_decay(1.0, weight_decay=3.0)
        >>> params = {"w": torch.tensor([4.0])}
        >>> updates, _ = tx.update({"w": torch.zeros(1)}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([1.])}
    """

    needs_params, is_rate = True, True
    learning_rate: NonNegative
    weight_decay: NonNegative = 0.0
    mask: Any = None

    def apply(self, updates: Tree, params: Tree, learning_rate: Any, weight_decay: Any) -> Tree:
        keep = select.resolve(True if self.mask is None else self.mask, params, bool, "proximal_decay")
        kept, rest = tree.split(updates, keep)
        numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        kept = tree.elementwise(proximal, kept, tree.split(params, keep)[0], **numbers)
        return tree.merge(kept, tree.elementwise(torch.mul, rest, other=-learning_rate))
