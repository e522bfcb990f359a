"""CAME."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import (
    add_decayed_weights,
    clip_by_block_rms,
    scale_by_confidence,
    scale_by_factored_rms,
    scale_by_learning_rate,
)


@hinted
def came(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper = 0.9999,
    eps1: Hyper = 1e-30,
    eps2: Hyper = 1e-16,
    clipping_threshold: Hyper = 1.0,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""CAME: Adafactor with a mean of the updates that is divided by how far they are from it.

    $$U_t = \frac{G_t}{\sqrt{V_t}}, \qquad \hat U_t = \frac{U_t}{\max(1,\, \operatorname{rms}(U_t) / d)}, \qquad
    M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, \hat U_t$$

    $$p_t = p_{t-1} - \eta_t \left(\frac{M_t}{\sqrt{S_t}} + \lambda\, p_{t-1}\right)$$

    where $V_t$ is a running mean of $G_t^2 + \varepsilon_1$, and $S_t$ one of $(\hat U_t - M_t)^2 + \varepsilon_2$. Of
    a matrix both are kept by rows and by columns, see `scale_by_factored_rms` and `scale_by_confidence`. For a leaf
    with fewer dimensions, $S_t = 1$.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean of updates is kept at each step.
        b2: $\beta_2$, how much of the mean of squares $V$ is kept.
        b3: $\beta_3$, how much of the mean of squared residuals $S$ is kept.
        eps1: $\varepsilon_1$.
        eps2: $\varepsilon_2$.
        clipping_threshold: $d$.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $M$; None for that of the parameters.
        accumulator_dtype: the dtype of the means that make $V$ and $S$; None for that of the parameters.

    Reference: Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", 2023,
        <https://arxiv.org/abs/2307.02047>; their package, `came_pytorch`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.came(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -5.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9900, 1.0100])}
    """
    return chain(
        scale_by_factored_rms(
            "last", min_dim_size_to_factor=1, epsilon=eps1, accumulator_dtype=accumulator_dtype, decay=b2
        ),
        clip_by_block_rms(clipping_threshold),
        scale_by_confidence(b1, b3, eps2, mu_dtype=mu_dtype, accumulator_dtype=accumulator_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
