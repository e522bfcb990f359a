"""StableAdamW."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_learning_rate, scale_by_stable_adam


@hinted
def stableadamw(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 1e-2,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""StableAdamW: AdamW with a rate that drops, leaf by leaf, where the gradient is larger than it used to be.

    $$p_t = p_{t-1} - \frac{\eta_t}{\max(1, \rho_t)} \left(\frac{\hat m_t}{\sqrt{\hat v_t} + \varepsilon}
    + \lambda\, p_{t-1}\right), \qquad
    \rho_t = \sqrt{\operatorname{mean}\!\left(\frac{g_t^2}{\max(\hat v_t, \varepsilon^2)}\right)}$$

    with $\hat m_t = m_t / (1 - \beta_1^t)$ and $\hat v_t = v_t / (1 - \beta_2^t)$ of `adam`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023,
        <https://arxiv.org/abs/2304.13013>; optimi, `StableAdamW`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.stableadamw(0.1, weight_decay=0.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        scale_by_stable_adam(b1, b2, eps, weight_decay, mask, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
