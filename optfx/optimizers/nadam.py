"""NAdam."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.optimizers.adam import adam
from optfx.optimizers.penalty import l2_penalty
from optfx.transforms import scale_by_learning_rate, scale_by_nadam


@hinted
def nadam(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    momentum_decay: Hyper | None = None,
    weight_decay: Hyper | None = None,
    mask: Any = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""NAdam: Adam with Nesterov's lookahead.

    $$p_t = p_{t-1} - \eta_t\, \frac{\hat m_t}{\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}, \qquad
    \hat m_t = \frac{\beta_1 m_t}{1 - \beta_1^{t+1}} + \frac{(1 - \beta_1)\, g_t}{1 - \beta_1^t}$$

    with $m_t$ and $v_t$ as in `adam`. With a `momentum_decay`, a momentum that grows takes the place of $\beta_1$ in
    $\hat m_t$, see `scale_by_nadam`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        momentum_decay: $\psi$, 4e-3 in `torch.optim.NAdam`; None for none (optax).
        weight_decay: $\lambda$, an L2 penalty as in `torch.optim.NAdam`; None for none.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: `mask` without a weight decay.

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016,
        <https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ>; optax, `nadam`; `torch.optim.NAdam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.nadam(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.8526, 1.1474])}
    """
    if momentum_decay is None:
        options = {"weight_decay": weight_decay, "mask": mask, "nu_dtype": nu_dtype}
        return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=True, **options)
    return chain(
        *l2_penalty(weight_decay, mask),
        scale_by_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
