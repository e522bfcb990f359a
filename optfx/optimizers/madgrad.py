"""MADGRAD."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, scale_by_madgrad


@hinted
def madgrad(
    learning_rate: Hyper,
    momentum: Hyper = 0.9,
    weight_decay: Hyper = 0.0,
    eps: Hyper = 1e-6,
    *,
    mask: Any = None,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""MADGRAD: dual averaging, with the cube root of the sum of squares, and momentum.

    $$z_t = p_0 - \frac{s_t}{\sqrt[3]{v_t} + \varepsilon}, \qquad p_t = \mu\, p_{t-1} + (1 - \mu)\, z_t$$

    with the weighted sums $s_t$ of the gradient and $v_t$ of its square as in `scale_by_madgrad`.

    Args:
        learning_rate: $\eta$.
        momentum: $\mu$, how much of the parameters is kept at each step.
        weight_decay: $\lambda$, an L2 penalty: $g_t + \lambda\, p_{t-1}$ takes the place of $g_t$. The authors advise
            less than for SGD, or none.
        eps: $\varepsilon$.
        mask: which parameters have the penalty, see `add_decayed_weights`; None for all.
        accumulator_dtype: the dtype of $s$ and $v$; None for that of the parameters.

    Reference: Defazio and Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
        Method for Stochastic Optimization", 2021, <https://arxiv.org/abs/2101.11075>; their package, `madgrad`; optax,
        `contrib.madgrad`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.madgrad(1.0, momentum=0.5, eps=0.0)
        >>> params = {"w": torch.tensor([0.0, 1.0])}
        >>> updates, state = tx.update({"w": torch.tensor([8.0, -8.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([-1.0000,  2.0000])}
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_madgrad(learning_rate, momentum, eps, accumulator_dtype=accumulator_dtype),
    )
