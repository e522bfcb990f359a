"""Averaged SGD."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import params_average, scale_by_asgd


@hinted
def asgd(
    learning_rate: Hyper,
    lambd: Hyper = 1e-4,
    alpha: Hyper = 0.75,
    t0: Hyper = 1e6,
    *,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    dtype: torch.dtype | None = None,
) -> chain:
    r"""Averaged SGD: gradient descent with a decaying rate, and a mean of the parameters kept beside it.

    $$p_t = (1 - \lambda\, \eta_t)\, p_{t-1} - \eta_t\, g_t, \qquad
    \eta_{t+1} = \frac{\gamma_t}{(1 + \lambda\, \gamma_t\, t)^\alpha}, \qquad
    a_t = a_{t-1} + \frac{p_t - a_{t-1}}{\max(1,\; t - 1 - t_0)}$$

    The mean $a_t$ is what `eval_params` gives: evaluate the model with it.

    Args:
        learning_rate: $\gamma$.
        lambd: $\lambda$, the decay of the parameters.
        alpha: $\alpha$, the power of time by which the rate decays.
        t0: $t_0$, the number of steps before the mean begins.
        weight_decay: an L2 penalty as in `torch.optim.ASGD`; None for none.
        mask: which parameters have the penalty, see `add_decayed_weights`; None for all.
        dtype: the dtype of the mean $a$; None for that of the parameters.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; `torch.optim.ASGD`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.asgd(0.1, t0=0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.5000, 1.0100])}
    """
    return chain(
        *l2_penalty(weight_decay, mask), scale_by_asgd(learning_rate, lambd, alpha), params_average(t0, dtype=dtype)
    )
