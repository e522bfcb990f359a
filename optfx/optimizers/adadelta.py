"""Adadelta."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, scale_by_adadelta, scale_by_learning_rate


@hinted
def adadelta(
    learning_rate: Hyper | None = None,
    rho: Hyper = 0.9,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
    *,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adadelta: the gradient in the units of the parameters, by a running root mean square of past updates.

    $$v_t = \rho\, v_{t-1} + (1 - \rho)\, g_t^2, \qquad
    u_t = \frac{\sqrt{x_{t-1} + \varepsilon}}{\sqrt{v_t + \varepsilon}}\, g_t, \qquad
    x_t = \rho\, x_{t-1} + (1 - \rho)\, u_t^2, \qquad p_t = p_{t-1} - \eta_t\, u_t$$

    Args:
        learning_rate: $\eta$; None for 1, as in the paper and in `torch.optim.Adadelta`.
        rho: $\rho$, how much of the means is kept at each step.
        eps: $\varepsilon$.
        weight_decay: $\lambda$, an L2 penalty: $g_t + \lambda\, p_{t-1}$ takes the place of $g_t$.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`; None for all.
        accumulator_dtype: the dtype of $v$ and $x$; None for that of the parameters.

    Reference: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, <https://arxiv.org/abs/1212.5701>; optax,
        `adadelta`; `torch.optim.Adadelta`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adadelta(rho=0.75)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9980, 1.0020])}
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(1.0 if learning_rate is None else learning_rate),
    )
