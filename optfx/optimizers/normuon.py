"""Muon with second moments: NorMuon by row, AdaMuon by element."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, partition
from optfx.core import GradientTransformation, Hyper
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.optimizers.muon import MATRICES
from optfx.transforms import (
    add_decayed_weights,
    ema,
    orthogonalize,
    renormalize,
    scale_by_learning_rate,
    scale_by_muon,
    scale_by_rms,
    scale_by_row_rms,
    scale_by_shape,
    scale_by_sign,
)
from optfx.transforms.matrix.newton_schulz import SIMPLE
from optfx.transforms.matrix.orthogonalize import Method


@hinted
def normuon(
    learning_rate: Hyper,
    beta: Hyper = 0.95,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    consistent_rms: Hyper | None = None,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    ns_steps: int = 5,
    ns_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    others: GradientTransformation | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""NorMuon: Muon whose rows are divided by their running root mean squares. For all that is no matrix, AdamW.

    $$P_t = P_{t-1} - \eta_t \left(\sqrt{\max(1,\; \text{rows} / \text{columns})}\;
    \frac{\lVert O_t \rVert}{\lVert \hat O_t \rVert}\, \hat O_t + \lambda\, P_{t-1}\right), \qquad
    \hat O_{t,ij} = \frac{O_{t,ij}}{\sqrt{v_{t,i}} + \varepsilon}$$

    with the nearly orthogonal $O_t$ of `scale_by_muon`, and the running mean squares $v_t$ of its rows as in
    `scale_by_row_rms`.

    Args:
        learning_rate: $\eta$.
        beta: how much of the mean of the gradients is kept at each step.
        b2: how much of the mean squares of rows is kept.
        eps: $\varepsilon$, also added to the norm of the mean.
        weight_decay: $\lambda$.
        weight_decay_mask: which matrices decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of the means; None for that of the parameters.
        nesterov: look ahead.
        consistent_rms: give updates this root mean square whatever their shape, see `scale_by_shape`; 0.2 in the
            paper. None for the formula above, its code.
        ns_coeffs: the coefficients of the Newton-Schulz steps, or one triple for each.
        ns_steps: how many of those steps.
        ns_dtype: the dtype of those steps; None for that of the parameters.
        nu_dtype: the dtype of the mean squares; None for that of the parameters.
        others: the optimizer of what is no matrix; None for `adamw(learning_rate)`.
        labels: which leaves are matrices (`"muon"`), and which are not (`"adam"`), as in `muon`.

    No mean is corrected for having begun at zero.

    Reference: Li et al., "NorMuon: Making Muon more efficient and scalable", 2025, <https://arxiv.org/abs/2510.05491>;
        pytorch_optimizer, `NorMuon` (which orthogonalizes in bfloat16).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.normuon(0.1)
        >>> params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
        >>> optfx.hyperparams(tx, tx.init(params))["muon.1.decay"]
        tensor(0.9500, dtype=torch.float64)
    """
    matrices = chain(
        scale_by_muon(
            ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov=nesterov, bias_correction=False, ns_dtype=ns_dtype
        ),
        scale_by_row_rms(b2, eps, nu_dtype=nu_dtype),
        scale_by_shape(consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    if others is None:
        others = adamw(learning_rate, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return partition({"muon": matrices, "adam": others}, labels)


@hinted
def adamuon(
    learning_rate: Hyper,
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: torch.dtype | None = None,
    *,
    consistent_rms: Hyper | None = 0.2,
    of_sign: bool = True,
    method: Method = SIMPLE,
    dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    others: GradientTransformation | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""AdaMuon: Muon whose elements are divided by their running root mean squares. For all that is no matrix, AdamW.

    $$O_t = \operatorname{orthogonalize}(\operatorname{sign}(M_t)), \qquad
    \hat O_t = \frac{O_t}{\sqrt{V_t / (1 - \beta_2^t)} + \varepsilon}, \qquad
    P_t = P_{t-1} - \eta_t \left(\sigma \frac{\sqrt{\text{rows} \cdot \text{columns}}}{\lVert \hat O_t \rVert}\,
    \hat O_t + \lambda\, P_{t-1}\right)$$

    with the running means $M_t$ of the gradient and $V_t$ of $O_t^2$.

    Args:
        learning_rate: $\eta$.
        b1: how much of the mean of the gradients is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$.
        weight_decay: $\lambda$.
        weight_decay_mask: which matrices decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        consistent_rms: $\sigma$, the root mean square of the updates; None for the form of `scale_by_shape` without it.
        of_sign: False to orthogonalize $M_t$ itself.
        method: as in `orthogonalize`.
        dtype: the dtype to orthogonalize in; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.
        others: the optimizer of what is no matrix; None for `adamw(learning_rate)`.
        labels: which leaves are matrices (`"muon"`), and which are not (`"adam"`), as in `muon`.

    Reference: Si et al., "AdaMuon: Adaptive Muon Optimizer", 2025, <https://arxiv.org/abs/2507.11005>;
        pytorch_optimizer, `AdaMuon` (which takes no sign, and orthogonalizes in bfloat16).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adamuon(0.1)
        >>> params = {"w": torch.ones(2, 2)}
        >>> updates, state = tx.update({"w": torch.tensor([[1.0, -2.0], [3.0, 4.0]])}, tx.init(params), params)
        >>> updates["w"].norm() / 2
        tensor(0.0200)
    """
    matrices = chain(
        ema(b1, debias=False, accumulator_dtype=mu_dtype),
        *([scale_by_sign()] if of_sign else []),
        orthogonalize(method, eps, dtype=dtype),
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True, nu_dtype=nu_dtype),
        renormalize(eps),
        scale_by_shape(consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    if others is None:
        others = adamw(learning_rate, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return partition({"muon": matrices, "adam": others}, labels)
