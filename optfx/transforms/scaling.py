"""Multiply the updates by a number, take their sign, or drop them: transforms without memory of past gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Hyper, NonNegative, select
from optfx.tree import Tree


@tree.record
class identity(core.Stateless):
    """Leave the updates as they are. The state is empty.

    Reference: optax, `identity`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.identity()
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        ({'w': tensor([1.])}, ())
    """

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return updates


@tree.record
class set_to_zero(core.Stateless):
    """Replace the updates by zeros, infinite ones and NaNs too. The state is empty.

    Reference: optax, `set_to_zero`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.set_to_zero()
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        ({'w': tensor([0.])}, ())
    """

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return tree.elementwise(torch.zeros_like, updates)


@tree.record
class freeze(core.Stateless):
    """Freeze some parameters: their updates become zero. It needs params. The state is empty.

    Args:
        mask: which parameters to freeze: a selector (`select.path("encoder.*")`), a function
            `params -> tree of bools`, or a tree of bools or prefix of one.

    Put it last in a chain. It does not save the cost of the gradients or the state of frozen parameters. To save both,
    leave them out of `params`; to save the state, also put the optimizer in `masked` with the opposite mask.

    Reference: optax, `freeze`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(0.1), optfx.freeze(optfx.select.path("body")))
        >>> params = {"body": torch.ones(1), "head": torch.ones(1)}
        >>> tx.update(params, tx.init(params), params)[0]
        {'body': tensor([0.]), 'head': tensor([-0.1000])}
    """

    needs_params = True
    mask: Any

    def apply(self, updates: Tree, params: Tree) -> Tree:
        frozen, rest = tree.split(updates, select.resolve(self.mask, params, bool, "freeze"))
        return tree.merge(tree.elementwise(torch.zeros_like, frozen), rest)


@tree.record
class stateless(core.Stateless):
    """A function of updates and parameters as a transform. The state is empty.

    Args:
        f: `(updates, params) -> updates`, on whole trees; params is None if the caller gives none.

    Reference: optax, `stateless`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.stateless(lambda updates, params: optfx.tree.mul(updates, params))
        >>> params = {"w": torch.tensor([2.0])}
        >>> tx.update({"w": torch.tensor([3.0])}, tx.init(params), params)[0]
        {'w': tensor([6.])}
    """

    f: Callable[[Tree, Tree], Tree]

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return self.f(updates, params)


@tree.record
class scale(core.Stateless):
    r"""Multiply the updates by a number.

    $$u_t = s_t\, g_t$$

    Args:
        step_size: the factor $s$. Unlike `scale_by_learning_rate`, it does not flip the sign.

    Reference: optax, `scale`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale(0.5)
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([0.5000])}
    """

    step_size: Hyper

    def apply(self, updates: Tree, params: Tree, step_size: Any) -> Tree:
        return tree.elementwise(torch.mul, updates, other=step_size)


@tree.record
class scale_by_schedule(core.Stateless):
    r"""Multiply the updates by the value of a schedule.

    $$u_t = s(t - 1)\, g_t, \qquad t = 1, 2, \dots$$

    This is `scale` under optax's second name: either takes a number or a schedule.

    Args:
        step_size_fn: count -> factor $s$, for counts 0, 1, 2, ...; it does not flip the sign.

    Reference: optax, `scale_by_schedule`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_schedule(lambda count: 1 / (1 + count))
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> updates, state = tx.update({"w": torch.ones(1)}, state)
        >>> updates, state = tx.update({"w": torch.ones(1)}, state)
        >>> updates
        {'w': tensor([0.5000])}
    """

    step_size_fn: Hyper

    def apply(self, updates: Tree, params: Tree, step_size_fn: Any) -> Tree:
        return tree.elementwise(torch.mul, updates, other=step_size_fn)


@tree.record
class scale_by_learning_rate(core.Stateless):
    r"""Multiply the updates by minus the learning rate: the one place where the sign is flipped.

    $$u_t = -\eta_t\, g_t$$

    Args:
        learning_rate: the step size $\eta$.
        flip_sign: False keeps the sign.

    Reference: optax, `scale_by_learning_rate`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_learning_rate(0.1)
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([-0.1000])}
    """

    is_rate = True
    learning_rate: NonNegative
    flip_sign: bool = dataclasses.field(default=True, kw_only=True)

    def apply(self, updates: Tree, params: Tree, learning_rate: Any) -> Tree:
        return tree.elementwise(torch.mul, updates, other=-learning_rate if self.flip_sign else learning_rate)


def sign(u: Tensor) -> Tensor:
    return torch.where(u.isnan(), u, u.sign())  # torch.sign turns a NaN into zero


@tree.record
class scale_by_sign(core.Stateless):
    r"""Keep only the sign of each element: -1, 0 or 1. The state is empty.

    $$u_t = \operatorname{sign}(g_t)$$

    A NaN stays a NaN. For a complex number, the signs of the real and imaginary parts are taken separately.

    Reference: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018,
        <https://arxiv.org/abs/1802.04434>; optax, `scale_by_sign`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_sign()
        >>> tx.update({"w": torch.tensor([-3.0, 0.0, 0.1])}, tx.init({"w": torch.zeros(3)}))[0]
        {'w': tensor([-1.,  0.,  1.])}
    """

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return tree.elementwise(sign, updates)
