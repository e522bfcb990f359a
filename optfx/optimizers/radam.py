"""RAdam."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import scale_by_learning_rate, scale_by_radam


@hinted
def radam(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    threshold: Hyper = 5.0,
    *,
    nesterov: bool = False,
    eps_before_correction: bool = False,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Rectified Adam: momentum alone at first, then Adam, rectified for the variance of its step size.

    $$p_t = p_{t-1} - \eta_t\, u_t, \qquad u_t = \frac{r_t\, \hat m_t}{\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon}
    \;\text{ or, before } \rho_t \ge \theta, \text{ } \hat m_t$$

    with $r_t$ and $\rho_t$ as in `scale_by_radam`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        threshold: $\theta$.
        nesterov: look ahead, see `scale_by_adam`.
        eps_before_correction: add $\varepsilon$ before the mean of squares is corrected (torch).
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.RAdam`; None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2019,
        <https://arxiv.org/abs/1908.03265>; optax, `radam`; `torch.optim.RAdam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.radam(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.5000, 1.0100])}
    """
    return chain(
        *l2_penalty(weight_decay, mask),
        scale_by_radam(
            b1,
            b2,
            eps,
            eps_root,
            threshold,
            nesterov=nesterov,
            eps_before_correction=eps_before_correction,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )
