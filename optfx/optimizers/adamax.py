"""Adamax, with an L2 penalty or with decoupled weight decay."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import add_decayed_weights, scale_by_adamax, scale_by_learning_rate


@hinted
def adamax(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    *,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adamax: Adam with a decaying maximum in place of the mean of squares.

    $$p_t = p_{t-1} - \eta_t\, \frac{m_t}{(1 - \beta_1^t)\, v_t}, \qquad
    v_t = \max(\beta_2 v_{t-1},\; |g_t| + \varepsilon)$$

    with $m_t$ as in `adam`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the maximum is kept.
        eps: $\varepsilon$.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.Adamax`; None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, <https://arxiv.org/abs/1412.6980>;
        optax, `adamax`; `torch.optim.Adamax`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adamax(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        *l2_penalty(weight_decay, mask),
        scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@hinted
def adamaxw(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-4,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adamax with decoupled weight decay: the decay is added to Adamax's step, not to the gradient.

    $$p_t = p_{t-1} - \eta_t \left(\frac{m_t}{(1 - \beta_1^t)\, v_t} + \lambda\, p_{t-1}\right)$$

    with $m_t$ and $v_t$ as in `adamax`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the maximum is kept.
        eps: $\varepsilon$.
        weight_decay: $\lambda$.
        mask: which parameters decay, such as `select.ndim(min=2)`, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, <https://arxiv.org/abs/1711.05101>;
        optax, `adamaxw`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adamaxw(0.1, weight_decay=1.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8000, 1.0000])}
    """
    return chain(
        scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
