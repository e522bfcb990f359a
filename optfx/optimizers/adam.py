"""Adam, AdamW and AMSGrad."""

from __future__ import annotations

from typing import Any, Literal

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import add_decayed_weights, scale_by_adam, scale_by_amsgrad, scale_by_learning_rate


@hinted
def adam(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adam: a running mean of the gradient, divided by a running root mean square of it.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$p_t = p_{t-1} - \eta_t\, \frac{m_t / (1 - \beta_1^t)}
    {\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}$$

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nesterov: look ahead (NAdam), see `scale_by_adam`.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.Adam`: $g_t + \lambda\, p_{t-1}$ takes the place of
            $g_t$. None for none. For decoupled decay, see `adamw`.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, <https://arxiv.org/abs/1412.6980>;
        optax, `adam`; `torch.optim.Adam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adam(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        *l2_penalty(weight_decay, mask),
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@hinted
def adamw(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Hyper = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adam with decoupled weight decay: the decay is added to Adam's step, not to the gradient.

    $$p_t = p_{t-1} - \eta_t \left(\frac{m_t / (1 - \beta_1^t)}
    {\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon} + \lambda\, p_{t-1}\right)$$

    with $m_t$ and $v_t$ as in `adam`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        weight_decay: $\lambda$. `torch.optim.AdamW` has 1e-2.
        mask: which parameters decay, such as `select.ndim(min=2)`, see `add_decayed_weights`; None for all.
        nesterov: look ahead (NAdamW), see `scale_by_adam`.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, <https://arxiv.org/abs/1711.05101>;
        optax, `adamw`; `torch.optim.AdamW`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adamw(0.1, weight_decay=1.0, mask=optfx.select.ndim(min=2))
        >>> params = {"w": torch.ones(1, 1), "b": torch.ones(1)}
        >>> updates, state = tx.update(params, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([[0.8000]]), 'b': tensor([0.9000])}
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@hinted
def nadamw(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: Hyper = 1e-4,
    mask: Any = None,
    *,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""NAdam with decoupled weight decay: `adamw` with Nesterov's lookahead.

    $$p_t = p_{t-1} - \eta_t \left(\frac{\hat m_t}{\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}
    + \lambda\, p_{t-1}\right), \qquad
    \hat m_t = \frac{\beta_1 m_t}{1 - \beta_1^{t+1}} + \frac{(1 - \beta_1)\, g_t}{1 - \beta_1^t}$$

    with $m_t$ and $v_t$ as in `adam`.

    Args:
        learning_rate: $\eta$; it multiplies the decay too.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        weight_decay: $\lambda$.
        mask: which parameters decay, such as `select.ndim(min=2)`, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016,
        <https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ>; optax, `nadamw`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.nadamw(0.1, weight_decay=0.0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8526, 1.1474])}
    """
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=True, nu_dtype=nu_dtype)


@hinted
def amsgrad(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool | Literal["after_max"] = True,
    *,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""AMSGrad: Adam with the largest mean of squares so far.

    $$p_t = p_{t-1} - \eta_t\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon}, \qquad
    \hat v_t = \max_{s \le t} \frac{v_s}{1 - \beta_2^s}$$

    with $m_t$ and $v_t$ as in `adam`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        bias_correction_mu: False leaves $m_t$ uncorrected, as in the paper.
        bias_correction_nu: True corrects $v$ before the maximum, `"after_max"` after it (torch), False not at all (the
            paper), see `scale_by_amsgrad`.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.Adam`; None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: another value of `bias_correction_nu`, `mask` without a weight decay.

    Reference: Reddi et al., "On the Convergence of Adam and Beyond", 2018, <https://openreview.net/forum?id=ryQu7f-RZ>;
        optax, `amsgrad`; `torch.optim.Adam(amsgrad=True)`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.amsgrad(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(
        *l2_penalty(weight_decay, mask),
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
