"""Run a transform at some steps, and not at others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


class WhenState(NamedTuple):
    """The state of `when`."""

    count: Tensor  # () int64, steps taken, those without the transform inside included
    inner: Tree  # the state of the transform inside


@tree.record
class when(core.Wrapper):
    """Run a transform at the steps where a predicate holds. At others its state stays as it was.

    Args:
        predicate: count -> () bool, with the steps taken before this one, () int64.
        inner: a transform. Its schedules count its own steps.
        otherwise: the updates at other steps: "pass" lets them through, "zero" makes them zero.

    Raises:
        ValueError: another value of `otherwise`.

    Reference: optax, `conditionally_transform` and `conditionally_mask`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.when(lambda count: count >= 1, optfx.scale(10.0))
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": torch.ones(1)}, state)
        ...     print(updates)
        {'w': tensor([1.])}
        {'w': tensor([10.])}
    """

    predicate: Callable[[Tensor], Tensor]
    inner: GradientTransformation
    otherwise: Literal["pass", "zero"] = "pass"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.otherwise not in ("pass", "zero"):
            raise ValueError(f"when: otherwise is {self.otherwise!r}, expected 'pass' or 'zero'")

    def begin(self, params: Tree) -> WhenState:
        return WhenState(core.counter(params), self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        holds = self.predicate(state.count)
        new, inner = self.inner.run(updates, state.inner, params, extra)
        if self.otherwise == "zero":
            new, inner = core.skip_unless(holds, new, inner, state.inner)
        else:
            new, inner = tree.where(holds, (new, inner), (updates, state.inner))
        return new, WhenState(state.count + 1, inner)
