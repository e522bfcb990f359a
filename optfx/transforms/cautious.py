"""Caution: an update keeps only those elements that go down the gradient of this very step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative
from optfx.tree import Tree


def agreeing(u: Tensor, g: Tensor) -> Tensor:
    return torch.where(u * g <= 0, 0.0, u)  # a NaN agrees, so that it is seen


def enlarge(u: Tensor, min_share) -> Tensor:
    share = (u != 0).to(u.abs().dtype).sum() / max(u.numel(), 1)
    return u / share.clamp(min=min_share)


@tree.record
class cautious(core.Stateless):
    r"""Drop the elements of the updates that disagree in sign with the gradient, and enlarge the others of the leaf.

    $$u = \frac{m \odot u}{\max(\operatorname{mean}(m),\, \sigma)}, \qquad m = [u \odot g > 0]$$

    Put it behind a rule with a momentum, which may point against the gradient $g$ of the step, and before the learning
    rate, which turns the sign. A chain hands on the gradient that it was given.

    Args:
        min_share: $\sigma$, a lower bound on the share that is divided by; at 1 the others stay as they are.

    Raises:
        ValueError: no `grad`, outside of a chain.

    Reference: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024,
        <https://arxiv.org/abs/2411.16085>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.trace(0.9), optfx.cautious())
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> for g in (torch.tensor([1.0, 1.0]), torch.tensor([1.0, -0.5])):
        ...     updates, state = tx.update({"w": g}, state)
        >>> updates
        {'w': tensor([3.8000, 0.0000])}
    """

    needs = ("grad",)
    min_share: NonNegative = 1e-3

    def apply(self, updates: Tree, params: Tree, grad: Tree, min_share: Any) -> Tree:
        kept = tree.elementwise(agreeing, updates, grad)
        return tree.leafwise(enlarge, kept, min_share=min_share)
