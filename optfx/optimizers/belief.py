"""AdaBelief, and ACProp, which divides by AdaBelief's root of the step before."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, scale_by_acprop, scale_by_belief, scale_by_learning_rate


@hinted
def adabelief(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""AdaBelief: Adam with the gradient's distance from its mean in place of the gradient, under the root.

    $$p_t = p_{t-1} - \eta_t\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{s_t / (1 - \beta_2^t)} + \varepsilon}, \qquad
    s_t = \beta_2 s_{t-1} + (1 - \beta_2)\, (g_t - m_t)^2 + \bar\varepsilon$$

    with $m_t$ as in `adam`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added to $s$ at each step, and kept in it.
        nesterov: look ahead, see `scale_by_adam`.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $s$; None for that of the parameters.

    Reference: Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", 2020,
        <https://arxiv.org/abs/2010.07468>; optax, `adabelief`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adabelief(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8889, 1.1111])}
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@hinted
def acprop(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""ACProp: the gradient over AdaBelief's root of the step before, with decoupled weight decay.

    $$p_t = p_{t-1} - \eta_t \left(\frac{g_t}{\sqrt{\hat s_{t-1}} + \varepsilon} + \lambda\, p_{t-1}\right), \qquad
    \hat s_{t-1} = \frac{s_{t-1}}{1 - \beta_2^{t-1}}, \quad \hat s_0 = 1$$

    with $s_t$ as in `adabelief`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added to $s$ at each step, and kept in it.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of $s$; None for that of the parameters.

    Reference: Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient Methods", 2021,
        <https://arxiv.org/abs/2110.05454>; optax, `contrib.acprop`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.acprop(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.5000, 1.0100])}
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
