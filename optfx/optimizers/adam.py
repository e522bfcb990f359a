"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, masked
from optfx.core import Hyper
from optfx.transforms import add_decayed_weights, scale_by_adam, scale_by_learning_rate


def adam(learning_rate: Hyper, b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8, eps_root: Hyper = 0.0) -> chain:
    return chain(scale_by_adam(b1, b2, eps, eps_root), scale_by_learning_rate(learning_rate))


def adamw(learning_rate: Hyper, b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8, eps_root: Hyper = 0.0,
          mu_dtype: torch.dtype | None = None, weight_decay: Hyper = 1e-4, mask: Any = None) -> chain:
    decay = add_decayed_weights(weight_decay)
    return chain(scale_by_adam(b1, b2, eps, eps_root, mu_dtype), decay if mask is None else masked(decay, mask),
                 scale_by_learning_rate(learning_rate))
