"""Lion."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, scale_by_learning_rate, scale_by_lion


@hinted
def lion(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Hyper = 1e-3,
    mask: Any = None,
) -> chain:
    r"""Lion: the sign of a momentum, with decoupled weight decay.

    $$p_t = p_{t-1} - \eta_t \left(\operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1)\, g_t)
    + \lambda\, p_{t-1}\right), \qquad m_t = \beta_2 m_{t-1} + (1 - \beta_2)\, g_t$$

    Args:
        learning_rate: $\eta$, by the paper a tenth to a third of AdamW's; it multiplies the decay too.
        b1: $\beta_1$, the share of the mean in the step.
        b2: $\beta_2$, how much of the mean is kept at each step.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        weight_decay: $\lambda$, by the paper three to ten times AdamW's.
        mask: which parameters decay, such as `select.ndim(min=2)`, see `add_decayed_weights`; None for all.

    Reference: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, <https://arxiv.org/abs/2302.06675>;
        optax, `lion`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.lion(0.1, weight_decay=1.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8000, 1.0000])}
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
