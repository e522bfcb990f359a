"""Adam with an arc tangent in place of the division."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, scale_by_adam_atan2, scale_by_learning_rate


@hinted
def adam_atan2(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    angle_scale: Hyper = 1.27,
    root_scale: Hyper = 1.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adam-atan2: Adam without an epsilon, with decoupled weight decay.

    $$p_t = p_{t-1} - \eta_t \left(a\, \operatorname{atan2}\left(\frac{m_t}{1 - \beta_1^t},\;
    b\, \sqrt{\frac{v_t}{1 - \beta_2^t}}\right) + \lambda\, p_{t-1}\right)$$

    with $m_t$ and $v_t$ as in `adam`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        angle_scale: $a$, the factor of the angle, see `scale_by_adam_atan2`.
        root_scale: $b$, the factor of the root.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024,
        <https://arxiv.org/abs/2407.05872>; the package adam-atan2-pytorch.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adam_atan2(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9003, 1.0997])}
    """
    return chain(
        scale_by_adam_atan2(b1, b2, angle_scale, root_scale, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
