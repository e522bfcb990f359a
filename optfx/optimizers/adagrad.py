"""Adagrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.schedules import inverse_time_decay
from optfx.transforms import scale_by_learning_rate, scale_by_rss, scale_by_schedule


@hinted
def adagrad(
    learning_rate: Hyper,
    initial_accumulator_value: Hyper = 0.1,
    eps: Hyper = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    lr_decay: float | Tensor | None = None,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adagrad: gradients divided by the root of the sum of their squares so far.

    $$s_t = s_{t-1} + g_t^2, \qquad u_t = \frac{g_t}{\sqrt{s_t + \varepsilon}}
    \;\text{ or }\; \frac{g_t}{\sqrt{s_t} + \varepsilon}, \qquad
    p_t = p_{t-1} - \frac{\eta_t}{1 + (t - 1)\, d}\, u_t$$

    Args:
        learning_rate: $\eta$.
        initial_accumulator_value: $s_0$; a schedule is read at step 0. `torch.optim.Adagrad` has 0.
        eps: $\varepsilon$. `torch.optim.Adagrad` has 1e-10.
        eps_in_sqrt: add $\varepsilon$ under the root (optax); False adds it to the root (torch).
        lr_decay: $d$, as in `torch.optim.Adagrad`; None for none.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.Adagrad`: $g_t + \lambda\, p_{t-1}$ takes the place
            of $g_t$. None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        accumulator_dtype: the dtype of $s$; None for that of the parameters.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Duchi et al., "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011,
        <https://jmlr.org/papers/v12/duchi11a.html>; optax, `adagrad`; `torch.optim.Adagrad`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adagrad(0.1, initial_accumulator_value=0.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    decay = [] if lr_decay is None else [scale_by_schedule(inverse_time_decay(lr_decay))]
    return chain(
        *l2_penalty(weight_decay, mask),
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt, accumulator_dtype=accumulator_dtype),
        *decay,
        scale_by_learning_rate(learning_rate),
    )
