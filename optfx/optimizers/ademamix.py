"""AdEMAMix, and its simplification."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import (
    add_decayed_weights,
    scale_by_ademamix,
    scale_by_learning_rate,
    scale_by_simplified_ademamix,
)


@hinted
def ademamix(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper = 0.9999,
    alpha: Hyper = 5.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""AdEMAMix: AdamW with a second mean of the gradient, which remembers it for thousands of steps.

    $$p_t = p_{t-1} - \eta_t \left(\frac{m^{(1)}_t / (1 - \beta_1^t) + \alpha\, m^{(2)}_t}
    {\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon} + \lambda\, p_{t-1}\right)$$

    with the means as in `scale_by_ademamix`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the fast mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        b3: $\beta_3$, how much of the slow mean is kept.
        alpha: $\alpha$, the weight of the slow mean.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        mu_dtype: the dtype of both means; None for that of the parameters.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    In the paper, $\alpha$ and $\beta_3$ grow during the whole training of $T$ steps, else early steps are too long:
    `b3=schedules.half_life_schedule(0.9, 0.9999, T)`, `alpha=schedules.linear_schedule(0.0, 5.0, T)`.

    Reference: Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
        <https://arxiv.org/abs/2409.03137>; optax, `contrib.ademamix`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.ademamix(0.1, b3=0.5, alpha=2.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8000, 1.2000])}
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@hinted
def simplified_ademamix(
    learning_rate: Hyper,
    b1: Hyper = 0.99,
    b2: Hyper = 0.95,
    alpha: Hyper = 0.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Simplified AdEMAMix: AdamW with a decaying sum of the gradient, mixed with the gradient itself.

    $$m_t = \beta_1 m_{t-1} + g_t, \qquad p_t = p_{t-1} - \eta_t \left(\frac{m_t + \alpha\, g_t}
    {\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon} + \lambda\, p_{t-1}\right)$$

    with $v_t$ as in `adam`.

    Args:
        learning_rate: $\eta$, $1 - \beta_1$ times Adam's; it multiplies the decay too.
        b1: $\beta_1$, how much of the sum is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        alpha: $\alpha$, the weight of the gradient beside the sum.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants",
        2025, <https://arxiv.org/abs/2502.02431>; optax, `contrib.simplified_ademamix`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.simplified_ademamix(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
