r"""Weight decay: a pull on the parameters, added to the updates.

What is added is one question, where it is added another. Every pull of this file can stand in every place:

| place in the chain | what it is |
|---|---|
| before the rule | a penalty on the loss, L2 for `add_decayed_weights`: the rule sees its gradient |
| after the rule, before the learning rate | decoupled decay (AdamW): multiplied by the rate and by nothing else |
| there, with the schedule $\lambda\, \eta_t / \max \eta$ as its `weight_decay` | corrected decay (AdamC) |
| after `scale_by_learning_rate(rate, flip_sign=False)`, with `scale(-1.0)` last | independent of the rate |
| inside `anchored` | towards the start, or towards a running mean of the parameters, and not towards zero |

`proximal_weight_decay` adds nothing: it takes the place of the learning rate, and shrinks what the step leads to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative, select
from optfx.tree import Tree


def decay_some(tx: Any, f: Callable[..., Tensor], updates: Tree, params: Tree, **numbers: Any) -> Tree:
    """`f(u, p, **numbers)` on the leaves that the mask of a transform selects."""
    if tx.mask is None:
        return tree.elementwise(f, updates, params, **numbers)
    keep = select.resolve(tx.mask, params, bool, type(tx).__name__)
    kept, rest = tree.split(updates, keep)
    return tree.merge(tree.elementwise(f, kept, tree.split(params, keep)[0], **numbers), rest)


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
    With the sign turned last, it stands after the rate, and does not depend on it:
    `chain(rule, scale_by_learning_rate(rate, flip_sign=False), add_decayed_weights(1e-4), scale(-1.0))`.

    Args:
        weight_decay: $\lambda$.
        mask: which parameters decay: a selector (`select.ndim(min=2)`), a function `params -> tree of bools`, or a
            tree of bools or prefix of one; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, <https://arxiv.org/abs/1711.05101>;
        Defazio, "Why Gradients Rapidly Increase Near the End of Training", 2025, <https://arxiv.org/abs/2506.02285>
        (a $\lambda$ in proportion to the rate); optax, `add_decayed_weights`.

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
        return decay_some(self, decay, updates, params, weight_decay=weight_decay)


def decay_along(u: Tensor, p: Tensor, weight_decay) -> Tensor:
    return torch.where(u * p < 0, u, u + weight_decay * p)


@tree.record
class cautious_weight_decay(core.Stateless):
    r"""Decay only those elements that the update brings nearer to zero as well. Needs params.

    $$u_t = g_t + \lambda\, [g_t \odot p_t \ge 0] \odot p_t$$

    So the decay never works against the rule. Put it after the rule; see `add_decayed_weights` for the places.

    Args:
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Chen et al., "Cautious Weight Decay", 2025, <https://arxiv.org/abs/2510.12402>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.cautious_weight_decay(0.1)
        >>> params = {"w": torch.tensor([1.0, 1.0])}
        >>> tx.update({"w": torch.tensor([2.0, -2.0])}, tx.init(params), params)[0]
        {'w': tensor([ 2.1000, -2.0000])}
    """

    needs_params = True
    weight_decay: NonNegative = 0.0
    mask: Any = None

    def apply(self, updates: Tree, params: Tree, weight_decay: Any) -> Tree:
        return decay_some(self, decay_along, updates, params, weight_decay=weight_decay)


def decay_sign(u: Tensor, p: Tensor, weight_decay) -> Tensor:
    return u + weight_decay * torch.sign(p)


@tree.record
class l1_weight_decay(core.Stateless):
    r"""Pull every parameter towards zero with the same force, whatever its size. Needs params.

    $$u_t = g_t + \lambda \operatorname{sign}(p_t)$$

    A parameter nearer to zero than a step steps over to the other side.

    Args:
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996,
        <https://doi.org/10.1111/j.2517-6161.1996.tb02080.x>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.l1_weight_decay(0.1)
        >>> params = {"w": torch.tensor([3.0, -0.5])}
        >>> tx.update({"w": torch.zeros(2)}, tx.init(params), params)[0]
        {'w': tensor([ 0.1000, -0.1000])}
    """

    needs_params = True
    weight_decay: NonNegative = 0.0
    mask: Any = None

    def apply(self, updates: Tree, params: Tree, weight_decay: Any) -> Tree:
        return decay_some(self, decay_sign, updates, params, weight_decay=weight_decay)


def decay_clamped(u: Tensor, p: Tensor, weight_decay, delta) -> Tensor:
    return u + weight_decay * p.clamp(-delta, delta)


@tree.record
class huber_weight_decay(core.Stateless):
    r"""Decay small parameters in proportion to their size, and large ones with a force that grows no further.

    $$u_t = g_t + \lambda \operatorname{clamp}(p_t, -\delta, \delta)$$

    It needs params. This is the derivative of Huber's function; AdamHD takes its proximal step, which is
    `proximal_weight_decay` with a `delta`.

    Args:
        weight_decay: $\lambda$.
        delta: $\delta$, the size from where the force is constant.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Guo and Fan, "AdamHD: Decoupled Huber Decay Regularization for Language Model Pre-Training", 2025,
        <https://arxiv.org/abs/2511.14721>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.huber_weight_decay(0.1, delta=1.0)
        >>> params = {"w": torch.tensor([3.0, -0.5])}
        >>> tx.update({"w": torch.zeros(2)}, tx.init(params), params)[0]
        {'w': tensor([ 0.1000, -0.0500])}
    """

    needs_params = True
    weight_decay: NonNegative
    delta: NonNegative
    mask: Any = None

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        return decay_some(self, decay_clamped, updates, params, **numbers)


def step_and_decay(u: Tensor, p: Tensor, learning_rate, weight_decay, delta) -> Tensor:
    u, strength = -learning_rate * u, learning_rate * weight_decay
    pull = (p + u) * strength / (1 + strength)
    return u - (pull if delta is None else pull.clamp(-strength * delta, strength * delta))


@tree.record
class proximal_weight_decay(core.Stateless):
    r"""Take the step of a learning rate, and decay the parameters that it leads to: a proximal step. Needs params.

    $$p_t = \frac{p_{t-1} - \eta_t\, g_t}{1 + \eta_t \lambda}$$

    It stands where `scale_by_learning_rate` would, and flips the sign as that does. The new parameters minimize
    $\tfrac12 \lVert p - (p_{t-1} - \eta_t\, g_t) \rVert^2 + \tfrac{\eta_t \lambda}2 \lVert p \rVert^2$, so no decay
    is too strong: none leads a parameter across zero, as `add_decayed_weights` does where $\eta_t \lambda$ is beyond 1.
    With a $\delta$ the second term is Huber's function, linear beyond $\delta$, and no element is pulled by more than
    $\eta_t \lambda\, \delta$.

    Args:
        learning_rate: $\eta$.
        weight_decay: $\lambda$.
        delta: $\delta$; None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: no params, or a mask that does not fit them, naming the path.

    Reference: Zhuang et al., "Understanding AdamW through Proximal Methods and Scale-Freeness", 2022,
        <https://arxiv.org/abs/2202.00089>; Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm", 2022,
        <https://arxiv.org/abs/2208.06677>; Guo and Fan, "AdamHD", 2025, <https://arxiv.org/abs/2511.14721> (with a
        $\delta$).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.proximal_weight_decay(1.0, weight_decay=3.0)
        >>> params = {"w": torch.tensor([4.0])}
        >>> updates, _ = tx.update({"w": torch.zeros(1)}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([1.])}
    """

    needs_params, is_rate = True, True
    learning_rate: NonNegative
    weight_decay: NonNegative = 0.0
    delta: NonNegative | None = None
    mask: Any = dataclasses.field(default=None, kw_only=True)

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        keep = select.resolve(True if self.mask is None else self.mask, params, bool, "proximal_weight_decay")
        kept, rest = tree.split(updates, keep)
        kept = tree.elementwise(step_and_decay, kept, tree.split(params, keep)[0], **numbers)
        return tree.merge(kept, tree.elementwise(torch.mul, rest, other=-numbers["learning_rate"]))
