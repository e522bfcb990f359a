"""PSGD with Kronecker factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.combinators import chain, partition
from optfx.core import Hyper, select
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.transforms import add_decayed_weights, clip_by_block_rms, ema, scale_by_kron, scale_by_learning_rate
from optfx.transforms.matrix.kron import OFTEN

MATRICES = select.label({"kron": select.ndim(2, 2)}, default="adam")


@hinted
def kron(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
    *,
    preconditioner_lr: Hyper = 0.1,
    update_probability: Hyper = OFTEN,
    init_scale: Hyper = 1.0,
    key: int | Tensor = 0,
    max_rms: Hyper = 1.1,
    max_dim: int = 8192,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    dtype: torch.dtype | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""Whitened momentum for matrices, by a preconditioner of Kronecker factors; AdamW for everything else.

    $$M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, G_t, \qquad
    U_t = Q_L^\top Q_L\, \frac{M_t}{1 - \beta_1^t}\, Q_R^\top Q_R$$

    $$P_t = P_{t-1} - \eta_t \left(\min\!\left(1, \frac{r}{\operatorname{rms}(U_t)}\right) U_t
    + \lambda\, P_{t-1}\right)$$

    with the factors of `scale_by_kron`, fitted to the momentum.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, AdamW's too.
        weight_decay: $\lambda$.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`; None for all.
        preconditioner_lr: the size of a step of the factors.
        update_probability: one over the number of steps from one fit of the factors to the next.
        init_scale: the first preconditioner is the identity times the square of this.
        key: of the random numbers: an int, or a key from `optfx.random.key`.
        max_rms: $r$.
        max_dim: the factor of a side that is longer is a diagonal.
        b2: AdamW's `b2`.
        eps: AdamW's `eps`.
        mu_dtype: the dtype of the means; None for that of the parameters.
        nu_dtype: the dtype of AdamW's mean of squares; None for that of the parameters.
        dtype: the dtype of the factors; None for that of the parameters, but at least float32.
        labels: which leaves are matrices (`"kron"`) and which are not (`"adam"`), as in `partition`.

    Reference: Li, "Preconditioned Stochastic Gradient Descent", 2015, <https://arxiv.org/abs/1512.04202>; kron_torch,
        `Kron`; pytorch_optimizer, `Kron` (where vectors have diagonal factors).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.kron(0.1)
        >>> params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
        >>> optfx.hyperparams(tx, tx.init(params))["kron.4.learning_rate"]
        tensor(0.1000, dtype=torch.float64)
    """
    matrices = chain(
        ema(b1, accumulator_dtype=mu_dtype),
        scale_by_kron(preconditioner_lr, update_probability, init_scale, key, max_dim=max_dim, dtype=dtype),
        clip_by_block_rms(max_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(learning_rate, b1, b2, eps, 0.0, mu_dtype, weight_decay, weight_decay_mask, nu_dtype=nu_dtype)
    return partition({"kron": matrices, "adam": others}, labels)
