"""Adan."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import proximal_weight_decay, scale_by_adan


@hinted
def adan(
    learning_rate: Hyper,
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adan: Adam with Nesterov's momentum in differences of gradients, and proximal weight decay.

    $$p_t = \frac{p_{t-1} - \eta_t\, u_t}{1 + \eta_t \lambda}, \qquad
    u_t = \frac{\hat m_t + \beta_2 \hat v_t}{\sqrt{\hat n_t + \bar\varepsilon} + \varepsilon}$$

    with the means of `scale_by_adan`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean of gradients is kept at each step.
        b2: $\beta_2$, how much of the mean of changes is kept, and how far to look ahead.
        b3: $\beta_3$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root; 0 in the paper.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$, $v$ and the last gradient; None for that of the parameters.
        nu_dtype: the dtype of $n$; None for that of the parameters.

    optax looks ahead by $1 - \beta_2$, and decays as `adamw` does. For that decay, chain `scale_by_adan`,
    `add_decayed_weights` and `scale_by_learning_rate`.

    Reference: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2022,
        <https://arxiv.org/abs/2208.06677>; optax, `adan`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adan(0.1, weight_decay=1.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, 0.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8182, 0.9091])}
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        proximal_weight_decay(learning_rate, weight_decay, mask=mask),
    )
