"""Dion2."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, partition
from optfx.core import GradientTransformation, Hyper
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.optimizers.muon import MATRICES
from optfx.transforms import add_decayed_weights, scale_by_dion2, scale_by_learning_rate, scale_by_shape
from optfx.transforms.matrix.newton_schulz import POLAR_EXPRESS
from optfx.transforms.matrix.orthogonalize import Method


@hinted
def dion2(
    learning_rate: Hyper,
    decay: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    mask: Any = None,
    mu_dtype: torch.dtype | None = None,
    *,
    fraction: Any = 0.25,
    method: Method = POLAR_EXPRESS[:5],
    dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    others: GradientTransformation | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""Dion2: at each step, orthogonalize only the largest rows of the momentum. For all that is no matrix, AdamW.

    $$P_t = P_{t-1} - \eta_t \left(\sqrt{\text{rows} / \text{columns}}\; U_t + \lambda\, P_{t-1}\right)$$

    with the $U_t$ of `scale_by_dion2`.

    Args:
        learning_rate: $\eta$.
        decay: how much of the momentum is kept in the rows that are taken.
        eps: as in `orthogonalize`.
        weight_decay: $\lambda$.
        mask: which matrices decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of the momentum; None for that of the parameters.
        fraction: the share of the rows that are taken, rounded up.
        method: as in `orthogonalize`.
        dtype: the dtype to orthogonalize in; None for that of the parameters.
        nu_dtype: the dtype of AdamW's mean of squares; None for that of the parameters.
        others: the optimizer of what is no matrix; None for `adamw(learning_rate)`.
        labels: which leaves are matrices (`"muon"`), and which are not (`"adam"`), as in `muon`.

    Reference: Ahn et al., "Dion2: A Simple Method to Shrink Matrix in Muon", 2025, <https://arxiv.org/abs/2512.16928>;
        microsoft/dion, `Dion2` (which orthogonalizes in bfloat16).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.dion2(0.1, fraction=0.5, weight_decay=0.0)
        >>> params = {"w": torch.ones(2, 2)}
        >>> updates, state = tx.update({"w": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}, tx.init(params), params)
        >>> (updates["w"] != 0).any(dim=1)
        tensor([ True, False])
    """
    matrices = chain(
        scale_by_dion2(decay, eps, fraction, method, mu_dtype=mu_dtype, dtype=dtype),
        scale_by_shape(at_least_one=False),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if others is None:
        others = adamw(learning_rate, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return partition({"muon": matrices, "adam": others}, labels)
