"""The weight decay of `torch.optim`'s coupled optimizers: an L2 penalty, added to the gradient before all else."""

from __future__ import annotations

from typing import Any

from optfx.core import GradientTransformation, Hyper
from optfx.transforms import add_decayed_weights


def l2_penalty(weight_decay: Hyper | None, mask: Any) -> list[GradientTransformation]:
    """The first steps of a chain: none without a weight decay."""
    if weight_decay is None:
        if mask is not None:
            raise ValueError("a mask says which parameters decay, and there is no weight_decay")
        return []
    return [add_decayed_weights(weight_decay, mask)]
