"""Sharpness-aware minimization: the gradient is taken where the loss is worst nearby."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.combinators.master import in_dtypes_of
from optfx.core import GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


class SamState(NamedTuple):
    """The state of `sam`."""

    count: Tensor  # () int64, gradients seen
    since: Tensor  # () int64, those since the last step
    origin: Tree  # like params, where they were before they climbed; () if they never do
    inner: Tree  # the state of the optimizer inside


def by_size(g: Tensor, p: Tensor) -> Tensor:
    return p.abs() * g


def climb(g: Tensor, p: Tensor, radius, adaptive: bool) -> Tensor:
    return radius * (p * p * g if adaptive else g)


def leave(u: Tensor, p: Tensor, origin: Tensor, rise: Tensor, due) -> Tensor:
    return torch.where(due, origin + u - p, rise)


@tree.record
class sam(core.Wrapper):
    r"""Take steps with the gradient from uphill, $\rho$ away, so that flat minima are preferred. It needs params.

    $$e = \rho\, \frac{g}{\lVert g \rVert}, \qquad u = \operatorname{inner}(\nabla f(p + e))$$

    or, adaptive to the size of each parameter (ASAM), $e = \rho\, p^2 g / \lVert\, |p|\, g\, \rVert$. The norms are
    over all parameters.

    There are two ways to the second gradient. `update(grads, state, params, grad_fn=grad_fn)` takes it, and makes a
    step each time. With `sync_period=2`, nothing but gradients is needed: the first update leads up to $p + e$, the
    second from there to $p + u$. Where the params are up in between, `eval_params` gives those before.

    Args:
        inner: an optimizer, with its learning rate.
        rho: $\rho$, how far to climb.
        adaptive: climb in proportion to the parameters.
        sync_period: how many updates make a step: all but the last climb. None for one, with `grad_fn`.

    Raises:
        ValueError: no params; no `grad_fn` where there is no `sync_period`.

    Reference: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2020,
        <https://arxiv.org/abs/2010.01412>; Kwon et al., "ASAM", 2021, <https://arxiv.org/abs/2102.11600>; optax,
        `contrib.sam` (whose `opaque_mode` is that with `grad_fn`).

    Example:
        >>> import torch, optfx
        >>> def grad_fn(params):
        ...     return {"w": 2 * params["w"]}
        >>> tx, params = optfx.sam(optfx.sgd(0.5), rho=0.1), {"w": torch.tensor([3.0, 4.0])}
        >>> tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]
        {'w': tensor([-3.0600, -4.0800])}
    """

    needs_params, final = True, True
    inner: GradientTransformation
    rho: NonNegative = 0.05
    adaptive: bool = False
    sync_period: Hyper | None = None

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("grad_fn",) if self.sync_period is None else ()

    def begin(self, params: Tree) -> SamState:
        zero = core.counter(params)
        origin = () if self.sync_period is None else tree.copy(params)
        return SamState(zero, zero.clone(), origin, self.inner.begin(params))

    def rise(self, updates: Tree, params: Tree, rho: Tensor) -> Tree:
        """The way uphill."""
        size = tree.norm(tree.elementwise(by_size, updates, params) if self.adaptive else updates).to(rho)
        # the inner where keeps the derivative finite where there is no way up
        radius = torch.where(size > 0, rho / torch.where(size > 0, size, 1.0), 0.0)
        return tree.elementwise(climb, updates, params, radius=radius, adaptive=self.adaptive)

    def step(self, updates: Tree, state: Any, params: Tree, grad_fn: Any = None, **extra: Any) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        rise = self.rise(updates, params, now["rho"])
        if self.sync_period is None:
            grads = in_dtypes_of(updates, grad_fn(core.apply_updates(params, rise)))
            updates, inner = self.inner.run(grads, state.inner, params, extra | {"grad": grads, "grad_fn": grad_fn})
            return updates, SamState(count, state.since, (), inner)
        since = state.since + 1
        due = since >= now["sync_period"]
        origin = tree.where(state.since == 0, params, state.origin)
        updates, inner = self.inner.run(updates, state.inner, origin, extra)
        updates = tree.elementwise(leave, updates, params, origin, rise, due=due)
        since = torch.where(due, 0, since)
        return updates, SamState(count, since, origin, tree.where(due, inner, state.inner))

    def eval_params(self, state: Any, params: Tree) -> Tree:
        if self.sync_period is not None:
            params = tree.where(state.since == 0, params, state.origin)
        return self.inner.eval_params(state.inner, params)
