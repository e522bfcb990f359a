"""What a `torch.amp.GradScaler` leaves to an optimizer that can do it on the device."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


@tree.record
class unscaled(core.Wrapper):
    """Divide gradients by the scale of the loss, and skip steps in which one was infinite or NaN.

    The updates of such a step are zero, and the state stays as it was. The host does not wait to be told.

    Args:
        inner: a transform, which sees gradients as they would be without a scale.

    Reference: Micikevicius et al., "Mixed Precision Training", 2017, <https://arxiv.org/abs/1710.03740>; what
        `torch.optim.AdamW(fused=True)` does with `grad_scale` and `found_inf`.
    """

    inner: GradientTransformation
    takes = ("found_inf", "grad_scale")

    def states(self, state: Any) -> dict[str, Any]:
        return {"": state}

    def begin(self, params: Tree) -> Any:
        return self.inner.begin(params)

    def step(
        self, updates: Tree, state: Any, params: Tree, *, found_inf: Tensor, grad_scale: Tensor, **extra: Any
    ) -> tuple[Tree, Any]:
        plain = lambda t: tree.scale(1.0 / grad_scale, t)
        if "grad" in extra:
            extra["grad"] = plain(extra["grad"])
        new, inner = self.inner.run(plain(updates), state, params, extra)
        return core.skip_unless(found_inf == 0, new, inner, state)


def told(optimizer: Any) -> dict[str, Tensor]:
    """What a `GradScaler` has told an optimizer about the step to come; nothing where there is none."""
    found = getattr(optimizer, "found_inf", None)
    if found is None:
        return {}
    scale = getattr(optimizer, "grad_scale", None)
    return {"found_inf": found, "grad_scale": found.new_ones(()) if scale is None else scale}
