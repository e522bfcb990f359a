"""RMSProp."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import scale_by_learning_rate, scale_by_rms, scale_by_stddev, trace


@hinted
def rmsprop(
    learning_rate: Hyper,
    decay: Hyper = 0.9,
    eps: Hyper = 1e-8,
    initial_scale: Hyper = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Hyper | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    momentum_after_lr: bool = True,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    nu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""RMSProp: gradients divided by a running root mean square of them, with momentum.

    $$v_t = \rho\, v_{t-1} + (1 - \rho)\, g_t^2, \qquad u_t = \frac{g_t}{\sqrt{v_t + \varepsilon}}
    \;\text{ or }\; \frac{g_t}{\sqrt{v_t} + \varepsilon}$$

    $$m_t = \mu\, m_{t-1} + \eta_t\, u_t, \quad p_t = p_{t-1} - m_t \qquad\text{or}\qquad
    m_t = \mu\, m_{t-1} + u_t, \quad p_t = p_{t-1} - \eta_t\, m_t$$

    Args:
        learning_rate: $\eta$.
        decay: $\rho$, how much of the mean of squares is kept at each step. `torch.optim.RMSprop` has 0.99.
        eps: $\varepsilon$.
        initial_scale: $v_0$; a schedule is read at step 0.
        eps_in_sqrt: add $\varepsilon$ under the root (optax); False adds it to the root (torch).
        centered: divide by the standard deviation instead, see `scale_by_stddev`.
        momentum: $\mu$; None for none.
        nesterov: look ahead, see `trace`; it needs a momentum.
        bias_correction: correct the mean of squares for the value it began with.
        momentum_after_lr: the first form of $m_t$ (optax, TensorFlow), in which a step in flight keeps the rate it
            was taken with; False for the second (torch). They are equal while the rate is constant.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.RMSprop`: $g_t + \lambda\, p_{t-1}$ takes the place
            of $g_t$. None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$, and of the mean of the gradient if centered; None for that of the parameters.
        accumulator_dtype: the dtype of $m$; None for that of the parameters.

    Raises:
        ValueError: `nesterov` without a momentum, `mask` without a weight decay.

    Reference: Hinton, "Overview of mini-batch gradient descent", 2012,
        <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>; Graves, "Generating Sequences With
        Recurrent Neural Networks", 2013, <https://arxiv.org/abs/1308.0850>; optax, `rmsprop`; `torch.optim.RMSprop`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.rmsprop(0.1, decay=0.75)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8000, 1.2000])}
    """
    if nesterov and momentum is None:
        raise ValueError("rmsprop: nesterov without a momentum")
    root = scale_by_stddev if centered else scale_by_rms
    moving = [] if momentum is None else [trace(momentum, nesterov, accumulator_dtype)]
    rate = [scale_by_learning_rate(learning_rate)]
    return chain(
        *l2_penalty(weight_decay, mask),
        root(decay, eps, initial_scale, eps_in_sqrt, bias_correction, nu_dtype=nu_dtype),
        *(rate + moving if momentum_after_lr else moving + rate),
    )
