"""Smaller steps once the loss has stopped falling."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, NonNegative
from optfx.tree import Tree


class ReduceOnPlateauState(NamedTuple):
    """The state of `reduce_on_plateau`."""

    count: Tensor  # () int64, steps taken
    scale: Tensor  # () float64, what the updates are multiplied by
    best_value: Tensor  # () float64, the best mean value so far
    plateau_count: Tensor  # () int64, mean values in a row without an improvement
    cooldown_count: Tensor  # () int64, mean values still to be ignored
    avg_value: Tensor  # () float64, the mean of the values accumulated so far
    avg_count: Tensor  # () int64, how many have been accumulated


@tree.record
class reduce_on_plateau(GradientTransformation):
    r"""Multiply the updates by a factor that falls when a value has stopped improving.

    Pass the value at each step: `tx.update(grads, state, params, value=loss)`. A value improves on the best so far if
    $v < v_\text{best} - \text{rtol}\, |v_\text{best}| - \text{atol}$. After more than `patience` values in a
    row that do not,

    $$s \leftarrow \max(s \cdot \text{factor},\ \text{min\_scale}), \qquad u_t = s\, g_t$$

    It counts as `torch.optim.lr_scheduler.ReduceLROnPlateau` does with `eps=0`, whose `threshold` is `rtol` in mode
    "rel", and `atol` (with `rtol=0`) in mode "abs"; but torch takes the margin of a negative best for the other side of
    it, where nothing is ever an improvement. A new scale takes effect in the very step whose value led to it.

    For the loss of a validation after each epoch, give `batches` and pass the last one at each step; before there is
    one, any number. It is read once an epoch, by the first step of the next, so `patience` and `cooldown` count epochs.

    The state says what the updates are multiplied by, `scale`, and `optfx.hyperparams` shows it with the numbers.

    Args:
        factor: what the scale is multiplied by.
        patience: how many values without improvement are tolerated; the next one reduces the scale.
        rtol: the relative improvement required.
        atol: the absolute improvement required.
        cooldown: how many values are ignored after a reduction.
        accumulation_size: how many values are averaged before they are judged.
        min_scale: the lower bound of the scale.
        mode: "min" for a value that should fall, "max" for one that should rise:
            $v > v_\text{best} + \text{rtol}\, |v_\text{best}| + \text{atol}$.
        batches: how many steps in a row get the same value, at least 1: the updates in an epoch, as for
            `schedules.per_epoch`, if the value is that of the last epoch.

    Raises:
        ValueError: no `value`, or one that is not a number or () tensor; another `mode`; fewer than one batch.

    Reference: `torch.optim.lr_scheduler.ReduceLROnPlateau`; optax, `contrib.reduce_on_plateau` (whose patience ends
        one value earlier).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.reduce_on_plateau(factor=0.5, patience=0))
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> for loss in (2.0, 1.0, 1.0):
        ...     updates, state = tx.update({"w": torch.ones(1)}, state, value=loss)
        >>> updates
        {'w': tensor([-0.5000])}
        >>> optfx.hyperparams(tx, state)["1.scale"]
        tensor(0.5000, dtype=torch.float64)
    """

    needs, shows = ("value",), ("scale",)
    factor: NonNegative = 0.1
    patience: NonNegative = 10
    rtol: NonNegative = 1e-4
    atol: NonNegative = 0.0
    cooldown: NonNegative = 0
    accumulation_size: NonNegative = 1
    min_scale: NonNegative = 0.0
    mode: Literal["min", "max"] = "min"
    batches: NonNegative = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("min", "max"):
            raise ValueError(f"reduce_on_plateau: mode is {self.mode!r}, expected 'min' or 'max'")
        if isinstance(self.batches, (int, float)) and self.batches < 1:
            raise ValueError(f"reduce_on_plateau: batches is {self.batches!r}, expected at least 1")

    def begin(self, params: Tree) -> ReduceOnPlateauState:
        count = core.counter(params)
        one = torch.ones_like(count, dtype=tree.scalar_dtype(count.device))
        worst = one * (float("inf") if self.mode == "min" else float("-inf"))
        return ReduceOnPlateauState(
            count, one, worst, count.clone(), count.clone(), torch.zeros_like(one), count.clone()
        )

    def step(self, updates: Tree, state: Any, params: Tree, *, value: Any) -> tuple[Tree, Any]:
        value, now = self._checked_value(value, state.avg_value), self.at(state.count)

        step = state.count.to(value.dtype)
        new_value = (step >= now["batches"] - 1) & (step % now["batches"] < 1)  # the first step of a later epoch
        avg_count = state.avg_count + 1
        avg = state.avg_value + (value - state.avg_value) / avg_count
        judge = new_value & (avg_count >= now["accumulation_size"])

        part = now["rtol"] * state.best_value.sign()  # a product with the best itself would be NaN while it is infinite
        if self.mode == "min":
            better = avg < (1 - part) * state.best_value - now["atol"]
        else:
            better = avg > (1 + part) * state.best_value + now["atol"]
        cooling = state.cooldown_count > 0
        bad = torch.where(better | cooling, 0, state.plateau_count + 1)
        reduce = judge & (bad > now["patience"])

        scale = torch.where(reduce, (state.scale * now["factor"]).clamp(min=now["min_scale"]), state.scale)
        best = torch.where(judge & better, avg, state.best_value)
        plateau = torch.where(reduce, 0, torch.where(judge, bad, state.plateau_count))
        left = torch.where(judge & cooling, state.cooldown_count - 1, state.cooldown_count)
        left = torch.where(reduce, now["cooldown"], left).to(torch.int64)
        avg = torch.where(judge, 0.0, torch.where(new_value, avg, state.avg_value))
        avg_count = torch.where(judge, 0, torch.where(new_value, avg_count, state.avg_count))
        new = ReduceOnPlateauState(state.count + 1, scale, best, plateau, left, avg, avg_count)
        return tree.elementwise(torch.mul, updates, other=scale), new

    def _checked_value(self, value: Any, like: Tensor) -> Tensor:
        value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
        if value.ndim:
            raise ValueError(f"reduce_on_plateau: value has the shape {tuple(value.shape)}, expected a () tensor")
        return value.detach()  # it is only compared, and must not keep the graph of the loss alive
