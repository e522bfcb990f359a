"""Rprop."""

from __future__ import annotations

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.transforms import scale, scale_by_rprop


def rprop(
    learning_rate: Hyper,
    eta_minus: Hyper = 0.5,
    eta_plus: Hyper = 1.2,
    min_step_size: Hyper = 1e-6,
    max_step_size: Hyper = 50.0,
) -> chain:
    r"""Rprop: a step size for each element, which grows while the sign of the gradient stays. For full batches.

    $$p_t = p_{t-1} - \delta_t \operatorname{sign} g_t$$

    with $\delta_t$ as in `scale_by_rprop`.

    Args:
        learning_rate: $\delta_0$, the first step size. `torch.optim.Rprop` has 1e-2.
        eta_minus: $\eta^-$, what a step size is multiplied by where the sign has changed.
        eta_plus: $\eta^+$, and where it has not.
        min_step_size: the smallest step size.
        max_step_size: the largest.

    Reference: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
        algorithm", 1993; `torch.optim.Rprop`, whose numbers these are (optax's `rprop` is a step late).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.rprop(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))
