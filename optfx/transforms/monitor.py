"""Numbers about the updates, kept in the state to be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation
from optfx.hints import hinted
from optfx.tree import Tree


class MonitorState(NamedTuple):
    """The state of `monitor`."""

    count: Tensor  # () int64, steps taken
    measurements: dict[str, Tree]  # by name, what to read: the last ones, or their means
    ema: dict[str, Tree]  # the running means, uncorrected; empty without a decay


def as_dtype_of(x: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(x, device=like.device).to(like.dtype)


@tree.record
class monitor(GradientTransformation):
    r"""Measure the updates that come by, keep what is found in the state, and pass them on.

    Read it by name, `tree.get(state, "norm")`. With a decay the numbers are means that begin anew at 0 and are
    corrected for it,

    $$m_t = \mu\, m_{t-1} + (1 - \mu)\, x_t, \qquad \hat m_t = \frac{m_t}{1 - \mu^t}$$

    Put it where the updates are that you want to know of: before clipping, or after the learning rate.

    Args:
        measures: `{name: function of the updates}`, which gives a tensor, or a tree of tensors, of the same shapes and
            kinds each time. Before the first step, measurements are 0.
        decay: $\mu$, how much of the means is kept at each step; None for the last measurements themselves.
        debias: correct for the means having begun at zero.

    Reference: optax, `monitor` and `measure_with_ema` (whose measurements are not in the first state, so that a second
        step compiles anew).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.monitor({"norm": optfx.tree.norm}), optfx.clip_by_global_norm(1.0))
        >>> _, state = tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init({"w": torch.zeros(2)}))
        >>> optfx.tree.get(state, "measurements.norm")
        tensor(5.)
    """

    measures: dict[str, Callable[[Tree], Any]]
    decay: Beta | None = None
    debias: bool = True

    def begin(self, params: Tree) -> MonitorState:
        found = {name: tree.zeros_like(measure(params)) for name, measure in self.measures.items()}
        if self.decay is None:
            return MonitorState(core.counter(params), found, {})
        found = tree.map(lambda x: x.to(torch.promote_types(x.dtype, torch.float32)), found)
        return MonitorState(core.counter(params), found, tree.zeros_like(found))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        found = {name: measure(updates) for name, measure in self.measures.items()}
        found, ema, count = tree.map(as_dtype_of, found, state.measurements), {}, state.count + 1
        if self.decay is not None:
            decay = self.at(state.count)["decay"]
            ema = tree.elementwise(tree.mean, state.ema, found, b=decay)
            correction = core.bias_correction(decay, count) if self.debias else 1.0
            found = tree.elementwise(torch.div, ema, other=correction)
        return updates, MonitorState(count, found, ema)


@hinted
def snapshot(measure_name: str, measure: Callable[[Tree], Any]) -> monitor:
    """Keep one measurement of the updates in the state, and pass them on: `monitor` of a single one.

    Args:
        measure_name: by which it is read.
        measure: function of the updates, which gives a tensor or a tree of tensors.

    Reference: optax, `snapshot`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.snapshot("largest", optfx.tree.max)
        >>> _, state = tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init({"w": torch.zeros(2)}))
        >>> optfx.tree.get(state, "largest")
        tensor(4.)
    """
    return monitor({measure_name: measure})
