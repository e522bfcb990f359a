"""Lookahead: slow weights that follow a fast optimizer, by an optimizer of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, Hyper
from optfx.tree import Tree


class LookaheadState(NamedTuple):
    """The state of `lookahead`."""

    count: Tensor  # () int64, steps taken
    since: Tensor  # () int64, steps since the slow weights moved
    slow: Tree  # like params, the slow weights
    inner: Tree  # the state of the fast optimizer
    outer: Tree  # the state of the slow one


def behind(u: Tensor, p: Tensor, slow: Tensor) -> Tensor:
    return slow - (p + u)


def sync(u: Tensor, slow: Tensor, p: Tensor, move: Tensor, due) -> tuple[Tensor, Tensor]:
    new = slow + move
    return torch.where(due, new - p, u), torch.where(due, new, slow)


@tree.record
class lookahead(core.Wrapper):
    r"""Let an optimizer run ahead, then move slow weights after it, from where it starts again. It needs params.

    Every $k$ steps, with $\theta$ the params after the step and $\phi$ the slow weights,

    $$d = \phi - \theta, \qquad \phi \leftarrow \phi + \operatorname{outer}(d), \qquad \theta \leftarrow \phi$$

    With `outer=sgd(a)` this is Lookahead, $\phi \leftarrow \phi + a\, (\theta - \phi)$. With Nesterov's momentum,
    `outer=sgd(0.7, momentum=0.9, nesterov=True)`, it is the outer step of DiLoCo, MuLoCo and Snoo, for one worker.

    The slow weights are `slow` of the state, and what `eval_params` gives: evaluate the model with them.

    Args:
        inner: the optimizer of the params, with its learning rate.
        every: $k$, how many of its steps there are for a slow one.
        outer: the optimizer of the slow weights, whose gradient is $d$, the way they have been left behind.

    Raises:
        ValueError: no params.

    Reference: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019,
        <https://arxiv.org/abs/1907.08610>; Kallusky et al., "SNOO: Step-K Nesterov Outer Optimizer", 2025,
        <https://arxiv.org/abs/2510.15830>; optax, `lookahead` (whose params are a pair).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.lookahead(optfx.sgd(1.0), every=1, outer=optfx.sgd(0.5))
        >>> params = {"w": torch.tensor([1.0])}
        >>> updates, state = tx.update({"w": torch.tensor([4.0])}, tx.init(params), params)
        >>> updates, tx.eval_params(state, params)
        ({'w': tensor([-2.])}, {'w': tensor([-1.])})
    """

    needs_params, final = True, True
    holds = ("inner", "outer")
    inner: GradientTransformation
    every: Hyper
    outer: GradientTransformation

    def begin(self, params: Tree) -> LookaheadState:
        zero, slow = core.counter(params), tree.copy(params)
        return LookaheadState(zero, zero.clone(), slow, self.inner.begin(params), self.outer.begin(slow))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        since = state.since + 1
        due = since >= self.at(state.count)["every"]
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        gap = tree.elementwise(behind, updates, params, state.slow)
        move, outer = self.outer.run(gap, state.outer, state.slow, extra | {"grad": gap})
        updates, slow = tree.elementwise(sync, updates, state.slow, params, move, outs=2, due=due)
        outer, since = tree.where(due, outer, state.outer), torch.where(due, 0, since)
        return updates, LookaheadState(state.count + 1, since, slow, inner, outer)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return state.slow
