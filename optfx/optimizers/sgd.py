"""Gradient descent, with momentum or without, with noise or without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import add_noise, scale_by_learning_rate, trace


@hinted
def sgd(
    learning_rate: Hyper,
    momentum: Hyper | None = None,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
    *,
    dampening: Hyper | None = None,
    weight_decay: Hyper | None = None,
    mask: Any = None,
) -> chain:
    r"""Stochastic gradient descent, with momentum.

    $$m_t = \mu\, m_{t-1} + w_t\, (g_t + \lambda\, p_{t-1}), \qquad w_1 = 1, \quad w_t = 1 - \tau$$

    $$p_t = p_{t-1} - \eta_t\, m_t$$

    With Nesterov's lookahead $g_t + \lambda\, p_{t-1} + \mu\, m_t$ takes the place of the last $m_t$.

    Args:
        learning_rate: $\eta$.
        momentum: $\mu$; None for none.
        nesterov: look ahead; it needs a momentum.
        accumulator_dtype: the dtype of $m$; None for that of the parameters.
        dampening: $\tau$, as in `torch.optim.SGD`; None for none. It needs a momentum.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.SGD`; None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: `nesterov` or `dampening` without a momentum, `mask` without a weight decay.

    Reference: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013,
        <http://proceedings.mlr.press/v28/sutskever13.pdf>; optax, `sgd`; `torch.optim.SGD`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.sgd(0.1, momentum=0.9)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.ones(2)}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 0.9000])}
    """
    steps = l2_penalty(weight_decay, mask)
    if momentum is not None:
        steps.append(trace(momentum, nesterov, accumulator_dtype, dampening))
    elif nesterov or dampening is not None:
        raise ValueError(f"sgd: {'nesterov' if nesterov else 'dampening'} without a momentum")
    return chain(*steps, scale_by_learning_rate(learning_rate))


@hinted
def noisy_sgd(learning_rate: Hyper, eta: Hyper = 0.01, gamma: Hyper = 0.55, *, key: int | Tensor) -> chain:
    r"""Gradient descent with Gaussian noise whose variance decays.

    $$p_t = p_{t-1} - \eta_t \left(g_t + \sqrt{\eta / t^\gamma}\; \xi_t\right), \qquad \xi_t \sim \mathcal N(0, 1)$$

    Args:
        learning_rate: $\eta_t$.
        eta: $\eta$, the variance of the noise at the first step.
        gamma: $\gamma$, how fast the variance falls.
        key: an int, or a key from `optfx.random.key`, see `add_noise`.

    Reference: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015,
        <https://arxiv.org/abs/1511.06807>; optax, `noisy_sgd`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.noisy_sgd(0.1, eta=1.0, key=0)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.zeros(2)}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([1.2223, 0.8992])}
    """
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))
