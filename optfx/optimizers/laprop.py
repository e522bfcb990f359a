"""LaProp."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, scale_by_laprop, scale_by_learning_rate


@hinted
def laprop(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-15,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""LaProp: the mean of the divided gradient, where Adam divides the mean; with decoupled weight decay.

    $$p_t = p_{t-1} - \eta_t \left(\frac{m_t}{1 - \beta_1^t} + \lambda\, p_{t-1}\right), \qquad
    m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \varepsilon}$$

    with $v_t$ as in `adam`.

    Args:
        learning_rate: $\eta$, 4e-4 in the paper; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Ziyin et al., "LaProp: Separating Momentum and Adaptivity in Adam", 2020,
        <https://arxiv.org/abs/2002.04839>; HeavyBall, `LaProp`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.laprop(0.1, weight_decay=1.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8000, 1.0000])}
    """
    return chain(
        scale_by_laprop(b1, b2, eps, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
