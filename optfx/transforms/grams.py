"""Grams: the direction of the gradient, with the size that another rule has found."""

from __future__ import annotations

from torch import Tensor

from optfx import core, tree
from optfx.transforms.scaling import sign
from optfx.tree import Tree


def with_sign(u: Tensor, g: Tensor) -> Tensor:
    return u.abs() * sign(g)


@tree.record
class take_sign_of_grad(core.Stateless):
    r"""Keep the size of each element of the updates, and take the sign of the gradient. The state is empty.

    $$u = |\hat u| \cdot \operatorname{sign}(g)$$

    After a rule with momentum, no element moves up its gradient, and one without a gradient stays. `chain` hands on the
    gradient that came into it.

    Raises:
        ValueError: no `grad`, outside of a chain.

    Reference: Cao et al., "Grams: Gradient Descent with Adaptive Momentum Scaling", 2024,
        <https://arxiv.org/abs/2412.17107>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.trace(0.9), optfx.take_sign_of_grad())
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> _, state = tx.update({"w": torch.tensor([2.0, 2.0])}, state)
        >>> tx.update({"w": torch.tensor([1.0, -1.0])}, state)[0]
        {'w': tensor([ 2.8000, -0.8000])}
    """

    needs = ("grad",)

    def apply(self, updates: Tree, params: Tree, grad: Tree) -> Tree:
        return tree.elementwise(with_sign, updates, grad)
