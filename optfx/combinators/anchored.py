"""An anchor: a place that parameters are seen from, in place of zero."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation
from optfx.tree import Tree


class AnchoredState(NamedTuple):
    """The state of `anchored`."""

    count: Tensor  # () int64, steps taken
    anchor: Tree  # like params, the place that they are seen from
    inner: Tree  # the state of the inner transform


@tree.record
class anchored(core.Wrapper):
    r"""Show a transform the parameters as seen from an anchor: their start, or a running mean of them. Needs params.

    $$a_t = \mu\, a_{t-1} + (1 - \mu)\, p_{t-1}, \qquad a_0 = p_0$$

    The inner transform is given $p_{t-1} - a_t$ for params. So every weight decay inside pulls towards the anchor and
    not towards zero.

    Args:
        inner: a weight decay, or another transform that goes by the size of the params.
        decay: $\mu$, how much of the anchor is kept at each step; at 1 it stays at the start.
        dtype: the dtype of the anchor; None for that of the parameters.

    Raises:
        ValueError: no params.

    Reference: Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", 2018,
        <https://arxiv.org/abs/1802.01483>; Kumar et al., "Maintaining Plasticity in Continual Learning via Regenerative
        Regularization", 2023, <https://arxiv.org/abs/2308.11958> (both: the start); HeavyBall, `weight_decay_to_init`,
        `weight_decay_to_ema`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.anchored(optfx.add_decayed_weights(0.1)), optfx.scale_by_learning_rate(1.0))
        >>> state = tx.init({"w": torch.tensor([5.0])})
        >>> tx.update({"w": torch.tensor([0.0])}, state, {"w": torch.tensor([7.0])})[0]
        {'w': tensor([-0.2000])}
    """

    needs_params = True
    inner: GradientTransformation
    decay: Decay = 1.0
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> AnchoredState:
        anchor = tree.cast(tree.copy(params), self.dtype)
        return AnchoredState(core.counter(params), anchor, self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        anchor = tree.elementwise(tree.mean, state.anchor, params, b=self.at(state.count)["decay"])
        updates, inner = self.inner.run(updates, state.inner, tree.sub(params, anchor), extra)
        return updates, AnchoredState(state.count + 1, anchor, inner)
