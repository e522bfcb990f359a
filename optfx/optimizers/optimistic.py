"""Optimistic descent: along the gradient and its change since the last step."""

from __future__ import annotations

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_adam, scale_by_learning_rate, scale_by_optimistic_gradient


@hinted
def optimistic_gradient_descent(
    learning_rate: Hyper,
    alpha: Hyper = 1.0,
    beta: Hyper = 1.0,
    *,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""Gradient descent for games: it goes into a saddle point, where plain descent circles around it.

    $$p_t = p_{t-1} - \eta_t \left(\alpha\, g_t + \beta\, (g_t - g_{t-1})\right), \qquad g_0 = g_1$$

    Args:
        learning_rate: $\eta$.
        alpha: $\alpha$, the factor of the gradient.
        beta: $\beta$, the factor of its change.
        accumulator_dtype: the dtype of the last gradient; None for that of the parameters.

    Reference: Mokhtari et al., "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods for Saddle Point
        Problems", 2019, <https://arxiv.org/abs/1901.08511>; optax, `optimistic_gradient_descent`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.optimistic_gradient_descent(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([4.0, -0.8])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.6000, 1.0800])}
    """
    optimistic = scale_by_optimistic_gradient(alpha, beta, accumulator_dtype=accumulator_dtype)
    return chain(optimistic, scale_by_learning_rate(learning_rate))


@hinted
def optimistic_adam_v2(
    learning_rate: Hyper,
    *,
    alpha: Hyper = 1.0,
    beta: Hyper = 1.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = True,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Optimistic Adam, for games: along Adam's update and its change since the last step.

    $$p_t = p_{t-1} - \eta_t \left(\alpha\, u_t + \beta\, (u_t - u_{t-1})\right), \qquad u_0 = u_1$$

    where $u_t$ is the update of `scale_by_adam`.

    Args:
        learning_rate: $\eta$.
        alpha: $\alpha$, the factor of the update.
        beta: $\beta$, the factor of its change.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of the mean and of the last update; None for that of the parameters.
        nesterov: look ahead, see `scale_by_adam`.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    The name is optax's, whose `optimistic_adam`, without the number, is deprecated.

    Reference: Daskalakis et al., "Training GANs with Optimism", 2017, <https://arxiv.org/abs/1711.00141>; optax,
        `optimistic_adam_v2`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.optimistic_adam_v2(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8526, 1.1474])}
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_optimistic_gradient(alpha, beta, accumulator_dtype=mu_dtype),
        scale_by_learning_rate(learning_rate),
    )
