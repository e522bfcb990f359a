"""Steps of one length: along the sign of the gradient, or of its running mean."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, ema, scale_by_learning_rate, scale_by_sign


@hinted
def sign_sgd(learning_rate: Hyper) -> chain:
    r"""Gradient descent by the sign of each element.

    $$p_t = p_{t-1} - \eta_t \operatorname{sign}(g_t)$$

    Args:
        learning_rate: $\eta$.

    Reference: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018,
        <https://arxiv.org/abs/1802.04434>; optax, `sign_sgd`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.sign_sgd(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@hinted
def signum(learning_rate: Hyper, beta: Hyper = 0.9, accumulator_dtype: torch.dtype | None = None) -> chain:
    r"""The sign of a momentum: `sign_sgd` with the running mean of the gradient in its place.

    $$p_t = p_{t-1} - \eta_t \operatorname{sign}(m_t), \qquad m_t = \beta\, m_{t-1} + (1 - \beta)\, g_t$$

    Args:
        learning_rate: $\eta$.
        beta: $\beta$, how much of the mean is kept at each step.
        accumulator_dtype: the dtype of $m$; None for that of the parameters.

    Reference: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018,
        <https://arxiv.org/abs/1802.04434>; optax, `signum`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.signum(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    mean = ema(beta, debias=False, accumulator_dtype=accumulator_dtype)
    return chain(mean, scale_by_sign(), scale_by_learning_rate(learning_rate))


@hinted
def tiger(
    learning_rate: Hyper,
    beta: Hyper = 0.965,
    weight_decay: Hyper = 0.01,
    mask: Any = None,
    *,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""Tiger: `signum` with decoupled weight decay; `lion` with one $\beta$ for both.

    $$p_t = p_{t-1} - \eta_t \left(\operatorname{sign}(m_t) + \lambda\, p_{t-1}\right), \qquad
    m_t = \beta\, m_{t-1} + (1 - \beta)\, g_t$$

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        beta: $\beta$, how much of the mean is kept at each step.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        accumulator_dtype: the dtype of $m$; None for that of the parameters.

    Reference: Su, "Tiger: A Tight-fisted Optimizer", 2023, <https://github.com/bojone/tiger>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.tiger(0.1, weight_decay=1.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8000, 1.0000])}
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
