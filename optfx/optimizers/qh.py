"""Quasi-hyperbolic momentum, alone and in Adam."""

from __future__ import annotations

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_learning_rate, scale_by_qhadam, scale_by_qhm


@hinted
def qhm(learning_rate: Hyper, momentum: Hyper = 0.999, nu: Hyper = 0.7, mu_dtype: torch.dtype | None = None) -> chain:
    r"""QHM: descent along a mixture of the gradient and its running mean.

    $$p_t = p_{t-1} - \eta_t \left((1 - \nu)\, g_t + \nu\, m_t\right), \qquad
    m_t = \beta\, m_{t-1} + (1 - \beta)\, g_t$$

    Args:
        learning_rate: $\eta$, that of `sgd` with a momentum $\mu$ divided by $1 - \mu$: $m$ is a mean here, no sum.
        momentum: $\beta$, how much of the mean is kept at each step.
        nu: $\nu$, the share of the mean in the step.
        mu_dtype: the dtype of $m$; None for that of the parameters.

    Reference: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2018,
        <https://arxiv.org/abs/1810.06801>; the package qhoptim.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.qhm(0.1, momentum=0.5, nu=0.75)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([4.0, -0.8])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.7500, 1.0500])}
    """
    return chain(scale_by_qhm(momentum, nu, mu_dtype), scale_by_learning_rate(learning_rate))


@hinted
def qhadam(
    learning_rate: Hyper,
    b1: Hyper = 0.995,
    b2: Hyper = 0.999,
    nu1: Hyper = 0.7,
    nu2: Hyper = 1.0,
    eps: Hyper = 1e-8,
    mu_dtype: torch.dtype | None = None,
    *,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""QHAdam: Adam with a mixture of each mean and what comes into it.

    $$p_t = p_{t-1} - \eta_t\, \frac{(1 - \nu_1)\, g_t + \nu_1 \hat m_t}
    {\sqrt{(1 - \nu_2)\, g_t^2 + \nu_2 \hat v_t} + \varepsilon}$$

    with $\hat m_t = m_t / (1 - \beta_1^t)$ and $\hat v_t = v_t / (1 - \beta_2^t)$ as in `adam`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        nu1: $\nu_1$, the share of the mean in the numerator.
        nu2: $\nu_2$, the share of the mean of squares under the root.
        eps: $\varepsilon$, added to the root.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2018,
        <https://arxiv.org/abs/1810.06801>; the package qhoptim.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.qhadam(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        scale_by_qhadam(b1, b2, nu1, nu2, eps, mu_dtype, nu_dtype=nu_dtype), scale_by_learning_rate(learning_rate)
    )
