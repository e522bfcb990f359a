"""NAdam."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import scale_by_adam, scale_by_learning_rate, scale_by_nadam


def nadam(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyper | None = None,
    weight_decay: Hyper | None = None,
    mask: Any = None,
) -> chain:
    r"""NAdam: Adam with Nesterov's lookahead.

    $$p_t = p_{t-1} - \eta_t\, u_t$$

    with $u_t$ that of `scale_by_adam(nesterov=True)` or, with a momentum decay, of `scale_by_nadam`.

    Args:
        learning_rate: $\eta$. `torch.optim.NAdam` has 2e-3.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nesterov: False for Adam.
        momentum_decay: $\psi$, see `scale_by_nadam`; None for a momentum that is $\beta_1$ from the start (optax).
            `torch.optim.NAdam` has 4e-3.
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.NAdam`: $g_t + \lambda\, p_{t-1}$ takes the place of
            $g_t$. None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: `mask` without a weight decay; `momentum_decay` without `nesterov`, or with `mu_dtype`.

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016, <https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ>;
        optax, `nadam`; `torch.optim.NAdam`, whose numbers `momentum_decay=4e-3` gives.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.nadam(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8526, 1.1474])}
    """
    if momentum_decay is None:
        scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    elif not nesterov or mu_dtype is not None:
        raise ValueError("nadam: momentum_decay needs nesterov, and no mu_dtype")
    else:
        scaled = scale_by_nadam(b1, b2, eps, eps_root, momentum_decay)
    return chain(*l2_penalty(weight_decay, mask), scaled, scale_by_learning_rate(learning_rate))
