"""LAMB, LARS and Fromage: steps in proportion to the parameters, leaf by leaf."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, masked
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import (
    add_decayed_weights,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_trust_ratio,
    step_and_shrink,
    trace,
)


@hinted
def lamb(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    mask: Any = None,
    *,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""LAMB: AdamW for large batches, each leaf's step in proportion to its parameter.

    $$r_t = \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}
    + \lambda\, p_{t-1}, \qquad
    p_t = p_{t-1} - \eta_t\, \frac{\lVert p_{t-1} \rVert}{\lVert r_t \rVert}\, r_t$$

    with $m_t$ and $v_t$ as in `adam`. Where one of the norms is zero, their ratio counts as 1.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root: for derivatives through the update.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    torch_optimizer and pytorch_optimizer limit $\lVert p \rVert$ to 10, and do not correct the means for having begun
    at zero, as the paper's third version did not; here it is its last one.

    Reference: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2019,
        <https://arxiv.org/abs/1904.00962>; optax, `lamb`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.lamb(0.1)
        >>> params = {"w": torch.tensor([3.0, 4.0]), "b": torch.zeros(1)}
        >>> grads = {"w": torch.tensor([1.0, 0.0]), "b": torch.ones(1)}
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([2.5000, 4.0000]), 'b': tensor([-0.1000])}
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@hinted
def lars(
    learning_rate: Hyper,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: Hyper = 0.001,
    eps: Hyper = 0.0,
    trust_ratio_mask: Any = True,
    momentum: Hyper = 0.9,
    nesterov: bool = False,
    *,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""LARS: momentum for large batches, each leaf's gradient in proportion to its parameter.

    $$r_t = g_t + \lambda\, p_{t-1}, \qquad
    m_t = \mu\, m_{t-1} + \eta_t\, \tau\, \frac{\lVert p_{t-1} \rVert}{\lVert r_t \rVert + \varepsilon}\, r_t, \qquad
    p_t = p_{t-1} - m_t$$

    Where one of the norms is zero, the whole factor beside $\eta_t$ is 1.

    Args:
        learning_rate: $\eta$.
        weight_decay: $\lambda$.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`.
        trust_coefficient: $\tau$.
        eps: $\varepsilon$.
        trust_ratio_mask: which parameters have the factor; usually those with `select.ndim(min=2)`.
        momentum: $\mu$.
        nesterov: look ahead.
        accumulator_dtype: the dtype of $m$; None for that of the parameters.

    The paper divides by $\lVert g_t \rVert + \lambda \lVert p_{t-1} \rVert$, and so do torch_optimizer and
    pytorch_optimizer; optax, and this, by the norm of the sum. Those two also multiply by the rate after the momentum,
    where the paper's Algorithm 1 does so before it, and leave out decay and factor for leaves with fewer than two
    dimensions.

    Reference: You et al., "Large Batch Training of Convolutional Networks", 2017, <https://arxiv.org/abs/1708.03888>;
        optax, `lars`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.lars(1.0, trust_coefficient=0.1)
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> updates, state = tx.update({"w": torch.tensor([0.01, 0.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([2.5000, 4.0000])}
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov, accumulator_dtype),
    )


@hinted
def fromage(learning_rate: Hyper, min_norm: Hyper = 1e-6) -> chain:
    r"""Fromage: each leaf's step is a fraction of its parameter, which is then shrunk so that it does not grow.

    $$p_t = \frac{1}{\sqrt{1 + \eta_t^2}} \left(p_{t-1} - \eta_t\, \frac{\lVert p_{t-1} \rVert}{\lVert g_t \rVert}\,
    g_t\right)$$

    Args:
        learning_rate: $\eta$; the paper has 0.01.
        min_norm: the least of either norm, so that a parameter can leave zero.

    Reference: Bernstein et al., "On the distance between two neural networks and the stability of learning", 2020,
        <https://arxiv.org/abs/2002.03432>; optax, `fromage`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.fromage(0.75)
        >>> params = {"w": torch.tensor([5.0, 0.0])}
        >>> updates, state = tx.update({"w": torch.tensor([0.0, 2.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([ 4.0000, -3.0000])}
    """
    return chain(scale_by_trust_ratio(min_norm), step_and_shrink(learning_rate))
