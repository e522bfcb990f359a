"""Muown: Muon for the directions of rows, Adam for their lengths."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, partition, weight_norm
from optfx.core import GradientTransformation, Hyper
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.optimizers.muon import MATRICES
from optfx.transforms import scale_by_learning_rate, scale_by_muon, scale_by_shape


@hinted
def muown(
    learning_rate: Hyper,
    beta: Hyper = 0.95,
    b1: Hyper = 0.9,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    consistent_rms: Hyper | None = 0.2,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    ns_steps: int = 5,
    ns_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    others: GradientTransformation | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""Muown: each row of a matrix as a length, for Adam, and a direction, for Muon. For all that is no matrix, AdamW.

    $$w_i = g_i \frac{v_i}{\lVert v_i \rVert}, \qquad
    v_t = v_{t-1} - \eta_t\, \sigma \sqrt{\max(\text{rows}, \text{columns})}\; \operatorname{muon}(\nabla v), \qquad
    g_t = g_{t-1} - \eta_t\, (\operatorname{adam}(\nabla g) + \lambda\, g_{t-1})$$

    See `weight_norm` for the gradients.

    Args:
        learning_rate: $\eta$.
        beta: how much of the mean of $\nabla v$ is kept at each step.
        b1: Adam's, for $g$.
        b2: likewise.
        eps: likewise, and added to the norm of the mean.
        weight_decay: $\lambda$, of the lengths.
        mu_dtype: the dtype of the means, and of the lengths and norms of rows; None for that of the parameters.
        consistent_rms: $\sigma$; None for the other form of `scale_by_shape`.
        ns_coeffs: the coefficients of the Newton-Schulz steps, or one triple for each.
        ns_steps: how many of those steps.
        ns_dtype: the dtype of those steps; None for that of the parameters.
        nu_dtype: the dtype of Adam's means of squares; None for that of the parameters.
        others: the optimizer of what is no matrix; None for `adamw(learning_rate)`.
        labels: which leaves are matrices (`"muon"`), and which are not (`"adam"`), as in `muon`.

    Reference: Lion et al., "Muown: Row-Norm Control for Muon Optimization", 2026, <https://arxiv.org/abs/2605.10797>;
        NVIDIA, Emerging-Optimizers, `Muown` (whose lengths decay after their step),
        <https://github.com/NVIDIA-NeMo/Emerging-Optimizers>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.muown(0.1)
        >>> params = {"w": torch.tensor([[3.0, 4.0]])}
        >>> tx.init(params)["muon"].lengths
        {'w': tensor([[5.]])}
    """
    direction = chain(
        scale_by_muon(
            ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov=False, bias_correction=False, ns_dtype=ns_dtype
        ),
        scale_by_shape(consistent_rms),
        scale_by_learning_rate(learning_rate),
    )
    magnitude = adamw(learning_rate, b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype, weight_decay=weight_decay)
    if others is None:
        others = adamw(learning_rate, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return partition({"muon": weight_norm(direction, magnitude, mu_dtype), "adam": others}, labels)
