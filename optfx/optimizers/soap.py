"""SOAP."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, partition
from optfx.core import Hyper, select
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.transforms import add_decayed_weights, scale_by_learning_rate, scale_by_soap

MATRICES = select.label({"soap": select.ndim(2, 2)}, default="adam")


@hinted
def soap(
    learning_rate: Hyper,
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    weight_decay_mask: Any = None,
    *,
    shampoo_beta: Hyper | None = None,
    frequency: Hyper = 10,
    max_dim: int = 10_000,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    dtype: torch.dtype | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""Adam in the eigenbasis of Shampoo's preconditioner for matrices, AdamW for everything else.

    $$P_t = P_{t-1} - \eta_t \left(U_t + \lambda\, P_{t-1}\right)$$

    with the $U_t$ of `scale_by_soap` for a matrix. Its first step only finds the basis.

    Args:
        learning_rate: $\eta$.
        b1: how much of the mean of the gradients is kept at each step, AdamW's too.
        b2: how much of the mean of squares is kept, AdamW's too.
        eps: added to its root.
        weight_decay: $\lambda$.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`; None for all.
        shampoo_beta: how much of $L$ and $R$ is kept; None for `b2`.
        frequency: how many steps the bases are kept.
        max_dim: a side that is longer has no basis.
        mu_dtype: the dtype of the means; None for that of the parameters.
        nu_dtype: the dtype of the means of squares; None for that of the parameters.
        dtype: the dtype of $L$, $R$ and the bases; None for that of the parameters, but at least float32.
        labels: which leaves are matrices (`"soap"`) and which are not (`"adam"`), as in `partition`.

    Reference: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024,
        <https://arxiv.org/abs/2409.11321>; pytorch_optimizer, `SOAP` (where the first step moves no vector either).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.soap(0.1)
        >>> params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
        >>> optfx.hyperparams(tx, tx.init(params))["soap.2.learning_rate"]
        tensor(0.1000, dtype=torch.float64)
    """
    matrices = chain(
        scale_by_soap(
            b1,
            b2,
            eps,
            shampoo_beta,
            frequency,
            max_dim=max_dim,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
            dtype=dtype,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(learning_rate, b1, b2, eps, 0.0, mu_dtype, weight_decay, weight_decay_mask, nu_dtype=nu_dtype)
    return partition({"soap": matrices, "adam": others}, labels)
