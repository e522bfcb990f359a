"""Adadelta."""

from __future__ import annotations

from typing import Any

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.transforms import add_decayed_weights, scale_by_adadelta, scale_by_learning_rate


def adadelta(
    learning_rate: Hyper,
    rho: Hyper = 0.9,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
) -> chain:
    r"""Adadelta: gradients times the root mean square of past updates over that of past gradients.

    $$p_t = p_{t-1} - \eta_t\, u_t$$

    with $u_t$ that of `scale_by_adadelta`.

    Args:
        learning_rate: $\eta$. `torch.optim.Adadelta`, and the paper, have 1.
        rho: $\rho$, how much of the means is kept at each step.
        eps: $\varepsilon$.
        weight_decay: $\lambda$, an L2 penalty: $g_t + \lambda\, p_{t-1}$ takes the place of $g_t$.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`; None for all.

    Reference: Zeiler, "Adadelta: An Adaptive Learning Rate Method", 2012, <https://arxiv.org/abs/1212.5701>; optax,
        `adadelta`; `torch.optim.Adadelta`, whose numbers these arguments give.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adadelta(1.0, eps=1e-2)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -5.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.6844, 1.3156])}
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )
