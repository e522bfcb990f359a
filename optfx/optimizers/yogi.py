"""Yogi."""

from __future__ import annotations

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_learning_rate, scale_by_yogi


@hinted
def yogi(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Yogi: Adam with a mean of squares that moves by no more than the square that comes in.

    $$p_t = p_{t-1} - \eta_t\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \varepsilon}, \qquad
    v_t = v_{t-1} - (1 - \beta_2) \operatorname{sign}(v_{t-1} - g_t^2)\, g_t^2$$

    with $m_t$ as in `adam`, and $m_0 = v_0 = 10^{-6}$.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$; a share of $1 - \beta_2$ of each square goes into $v$.
        eps: $\varepsilon$, added to the root.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Zaheer et al., "Adaptive Methods for Nonconvex Optimization", 2018,
        <https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization>; optax, `yogi`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.yogi(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.0944])}
    """
    return chain(
        scale_by_yogi(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype), scale_by_learning_rate(learning_rate)
    )
