"""Limits on the size of updates: of each element, each unit, each leaf, or all together."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, NonNegative
from optfx.tree import Tree


def shrink(size: Tensor, limit) -> Tensor:
    """The factor that brings `size` down to `limit`; 1 where it is not above it, NaN where it is NaN."""
    above = ~(size <= limit)
    # the inner where keeps the derivative finite where the division is unused
    return torch.where(above, limit / torch.where(above, size, 1.0), 1.0)


def clamp(u: Tensor, max_delta) -> Tensor:
    return u.clamp(-max_delta, max_delta)


@tree.record
class clip(core.Stateless):
    r"""Limit each element of the updates to $[-\delta, \delta]$.

    Args:
        max_delta: $\delta$.

    The real and imaginary parts of a complex number are limited separately.

    Reference: optax, `clip`; `torch.nn.utils.clip_grad_value_`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.clip(1.0)
        >>> tx.update({"w": torch.tensor([-3.0, 0.5])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([-1.0000,  0.5000])}
    """

    max_delta: NonNegative

    def apply(self, updates: Tree, params: Tree, max_delta: Any) -> Tree:
        return tree.elementwise(clamp, updates, max_delta=max_delta)


def limit_rms(u: Tensor, threshold) -> Tensor:
    mean_square = u.abs().square().sum() / max(u.numel(), 1)  # an empty leaf has none, and must not make a NaN
    return u * shrink(tree.safe_sqrt(mean_square), threshold)


@tree.record
class clip_by_block_rms(core.Stateless):
    r"""Shrink each leaf so that the root mean square of its elements is at most a threshold.

    $$u = g \cdot \min\!\left(1, \frac{\theta}{\operatorname{rms}(g)}\right)$$

    Args:
        threshold: $\theta$.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; optax, `clip_by_block_rms`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.clip_by_block_rms(1.0)
        >>> tx.update({"w": torch.tensor([3.0, -3.0])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 1., -1.])}
    """

    threshold: NonNegative

    def apply(self, updates: Tree, params: Tree, threshold: Any) -> Tree:
        return tree.leafwise(limit_rms, updates, threshold=threshold)


class ClipByGlobalNormState(NamedTuple):
    """The state of `clip_by_global_norm`."""

    count: Tensor  # () int64, steps taken
    norm: Tensor  # () float64, the norm of the last updates before clipping


@tree.record
class clip_by_global_norm(GradientTransformation):
    r"""Shrink the whole tree of updates so that its 2-norm is at most a limit.

    $$u = g \cdot \min\!\left(1, \frac{c}{\lVert g \rVert_2}\right)$$

    The norm before clipping is `norm` in the state; with `max_norm=float("inf")` the transform only measures it. An
    infinite or NaN gradient makes the norm and the updates infinite or NaN; see `apply_if_finite`.

    Args:
        max_norm: $c$.

    Reference: Pascanu et al., "On the difficulty of training Recurrent Neural Networks", 2012,
        <https://arxiv.org/abs/1211.5063>; optax, `clip_by_global_norm` (`torch.nn.utils.clip_grad_norm_` divides by
        the norm plus 1e-6).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.clip_by_global_norm(1.0)
        >>> updates, state = tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init({"w": torch.zeros(2)}))
        >>> updates, state.norm
        ({'w': tensor([0.6000, 0.8000])}, tensor(5., dtype=torch.float64))
    """

    max_norm: NonNegative

    def begin(self, params: Tree) -> ClipByGlobalNormState:
        count = core.counter(params)
        return ClipByGlobalNormState(count, torch.zeros_like(count, dtype=tree.scalar_dtype(count.device)))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        size = tree.norm(updates).to(state.norm)
        factor = shrink(size, self.at(state.count)["max_norm"])
        return tree.elementwise(torch.mul, updates, other=factor), ClipByGlobalNormState(state.count + 1, size)


def unit_norms(x: Tensor) -> Tensor:
    """The norm of each output unit of a layer: of x[i], or of all of a scalar or vector."""
    dims = tuple(range(1, x.ndim)) if x.ndim > 1 else tuple(range(x.ndim))
    return tree.safe_sqrt(x.abs().square().sum(dims, keepdim=True))


def limit_units(u: Tensor, p: Tensor, clipping, eps) -> Tensor:
    return u * shrink(unit_norms(u) / unit_norms(p).clamp(min=eps), clipping)


@tree.record
class adaptive_grad_clip(core.Stateless):
    r"""Limit the norm of each unit's update to a fraction of the norm of the unit's parameters. Needs params.

    $$u_i = g_i \cdot \min\!\left(1, \frac{\lambda \max(\lVert p_i \rVert, \varepsilon)}{\lVert g_i \rVert}\right)$$

    A unit $i$ is all that belongs to one output: in PyTorch's layout (out, in, ...) the norms are over all dimensions
    but the first. A scalar or vector is one unit.

    Args:
        clipping: $\lambda$.
        eps: $\varepsilon$, a lower bound on the norm of the parameters.

    Raises:
        ValueError: no params.

    Reference: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
        <https://arxiv.org/abs/2102.06171>; optax, `adaptive_grad_clip` (whose units lie along the last dimension, as
        in JAX's layout).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adaptive_grad_clip(0.1)
        >>> params = {"w": torch.tensor([[3.0, 4.0], [3.0, 4.0]])}
        >>> tx.update({"w": torch.tensor([[6.0, 8.0], [0.1, 0.0]])}, tx.init(params), params)[0]
        {'w': tensor([[0.3000, 0.4000],
                [0.1000, 0.0000]])}
    """

    needs_params = True
    clipping: NonNegative
    eps: NonNegative = 1e-3

    def apply(self, updates: Tree, params: Tree, clipping: Any, eps: Any) -> Tree:
        return tree.leafwise(limit_units, updates, params, clipping=clipping, eps=eps)
