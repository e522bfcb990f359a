"""Rprop."""

from __future__ import annotations

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale, scale_by_rprop


@hinted
def rprop(
    learning_rate: Hyper,
    eta_minus: Hyper = 0.5,
    eta_plus: Hyper = 1.2,
    min_step_size: Hyper = 1e-6,
    max_step_size: Hyper = 50.0,
) -> chain:
    r"""Rprop: each element moves against its gradient's sign, by a step that grows until the gradient turns.

    $$p_t = p_{t-1} - s_t \operatorname{sign}(g_t)$$

    with $s_t$ as in `scale_by_rprop`.

    Args:
        learning_rate: the first step size $s_0$; a schedule is read at step 0.
        eta_minus: the factor of $s$ where the gradient turned.
        eta_plus: the factor where it did not.
        min_step_size: the least $s$.
        max_step_size: the largest $s$.

    Reference: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
        algorithm", 1993, <https://doi.org/10.1109/ICNN.1993.298623>; `torch.optim.Rprop`; optax, `rprop`, whose
        updates come a step late.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.rprop(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))
