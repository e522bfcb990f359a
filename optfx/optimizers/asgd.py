"""Averaged SGD."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.optimizers.penalty import l2_penalty
from optfx.schedules import robbins_monro
from optfx.transforms import add_decayed_weights, params_average, scale_by_learning_rate


def asgd(
    learning_rate: float | Tensor,
    lambd: float | Tensor = 1e-4,
    alpha: float | Tensor = 0.75,
    t0: Hyper = 1e6,
    *,
    weight_decay: Hyper | None = None,
    mask: Any = None,
) -> chain:
    r"""Averaged SGD: gradient steps that become smaller, and the mean of the parameters beside them.

    $$p_t = p_{t-1} - \eta_t\, (g_t + \lambda\, p_{t-1}), \qquad
    \eta_t = \frac{\eta}{(1 + \lambda\, \eta\, (t - 1))^\alpha}, \qquad
    a_t = a_{t-1} + \frac{p_t - a_{t-1}}{\max(1,\; t - 1 - t_0)}$$

    The mean $a_t$ is `average` of the state: evaluate the model with it.

    Args:
        learning_rate: $\eta$. `torch.optim.ASGD` has 1e-2.
        lambd: $\lambda$, the weight decay, which also sets how soon the rate falls.
        alpha: $\alpha$, the power with which it falls.
        t0: $t_0$, the step after which the mean begins.
        weight_decay: an L2 penalty, as in `torch.optim.ASGD`, beside $\lambda$; None for none.
        mask: which parameters have it, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; `torch.optim.ASGD`,
        whose numbers these arguments give.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.asgd(0.1, lambd=0.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -1.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.5000, 1.1000])}
    """
    return chain(
        *l2_penalty(weight_decay, mask),
        add_decayed_weights(lambd),
        scale_by_learning_rate(robbins_monro(learning_rate, lambd, alpha)),
        params_average(t0),
    )
