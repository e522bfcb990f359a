"""SM3."""

from __future__ import annotations

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_learning_rate, scale_by_sm3


@hinted
def sm3(
    learning_rate: Hyper,
    momentum: Hyper = 0.9,
    *,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""SM3: Adagrad in little memory, with one sum of squares for each row and each column, and momentum.

    $$m_t = \mu\, m_{t-1} + (1 - \mu) \frac{g_t}{\sqrt{v_t + \varepsilon}}, \qquad p_t = p_{t-1} - \eta_t\, m_t$$

    with $v_t$ as in `scale_by_sm3`, and $\varepsilon = 10^{-8}$.

    Args:
        learning_rate: $\eta$.
        momentum: $\mu$.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        accumulator_dtype: the dtype of the sums; None for that of the parameters.

    Reference: Anil et al., "Memory-Efficient Adaptive Optimization", 2019, <https://arxiv.org/abs/1901.11150>; optax,
        `sm3`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.sm3(0.1, momentum=0.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        scale_by_sm3(momentum, mu_dtype=mu_dtype, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
