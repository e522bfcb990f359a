"""NovoGrad."""

from __future__ import annotations

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_learning_rate, scale_by_novograd


@hinted
def novograd(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.25,
    eps: Hyper = 1e-6,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""NovoGrad: momentum of gradients that are divided by the running norm of their leaf.

    $$v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, \lVert g_t \rVert^2, \qquad
    m_t = \beta_1 m_{t-1} + \frac{g_t}{\sqrt{v_t + \bar\varepsilon} + \varepsilon} + \lambda\, p_{t-1}, \qquad
    p_t = p_{t-1} - \eta_t\, m_t$$

    and $v_1 = \lVert g_1 \rVert^2$.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the sum is kept at each step.
        b2: $\beta_2$, how much of the mean of squared norms is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        weight_decay: $\lambda$.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
        Networks", 2019, <https://arxiv.org/abs/1905.11286>; optax, `novograd`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.novograd(0.5)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.7000, 0.6000])}
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay, mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
