"""Shampoo, with the step sizes of Adam."""

from __future__ import annotations

from typing import Any, Literal

import torch

from optfx.combinators import chain, graft, partition
from optfx.core import Hyper, select
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.transforms import add_decayed_weights, ema, scale_by_adam, scale_by_learning_rate, scale_by_shampoo

MATRICES = select.label({"shampoo": select.ndim(2, 2)}, default="adam")


@hinted
def shampoo(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
    *,
    matrix_eps: Hyper = 1e-6,
    exponent: Hyper | None = None,
    frequency: Hyper = 10,
    sides: Literal["both", "left", "right"] = "both",
    max_dim: int = 10_000,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    dtype: torch.dtype | None = None,
    labels: Any = MATRICES,
) -> partition:
    r"""Shampoo's directions with the norms of Adam's steps for matrices, AdamW for everything else.

    $$D_t = L_t^{-1/4}\, G_t\, R_t^{-1/4}, \qquad
    M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, \frac{\lVert A_t \rVert}{\lVert D_t \rVert}\, D_t, \qquad
    P_t = P_{t-1} - \eta_t \left(\frac{M_t}{1 - \beta_1^t} + \lambda\, P_{t-1}\right)$$

    with the $L$ and $R$ of `scale_by_shampoo`, means that keep $\beta_2$, and with $A_t$, the gradient over the root of
    Adam's mean of squares.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean of the steps is kept; in AdamW, of the mean of the gradients.
        b2: $\beta_2$.
        eps: added to Adam's root.
        weight_decay: $\lambda$.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`; None for all.
        matrix_eps: added to the eigenvalues of $L$ and $R$.
        exponent: of the roots, 1/4 above; None for 1/4, and 1/2 with one side.
        frequency: how many steps the roots are kept.
        sides: `"both"`, or only `"left"` or `"right"`.
        max_dim: a side that is longer is left as it is.
        mu_dtype: the dtype of the means; None for that of the parameters.
        nu_dtype: the dtype of the means of squares; None for that of the parameters.
        dtype: the dtype of $L$, $R$ and their roots; None for that of the parameters, but at least float32.
        labels: which leaves are matrices (`"shampoo"`) and which are not (`"adam"`), as in `partition`.

    Reference: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018,
        <https://arxiv.org/abs/1802.09568>; Anil et al., "Scalable Second Order Optimization for Deep Learning", 2020,
        <https://arxiv.org/abs/2002.09018> (the norms of another optimizer, and the mean after them).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.shampoo(0.1)
        >>> params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
        >>> optfx.hyperparams(tx, tx.init(params))["shampoo.3.learning_rate"]
        tensor(0.1000, dtype=torch.float64)
    """
    direction = scale_by_shampoo(b2, matrix_eps, exponent, frequency, sides=sides, max_dim=max_dim, dtype=dtype)
    matrices = chain(
        graft(direction, scale_by_adam(0.0, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype)),
        ema(b1, accumulator_dtype=mu_dtype),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(learning_rate, b1, b2, eps, 0.0, mu_dtype, weight_decay, weight_decay_mask, nu_dtype=nu_dtype)
    return partition({"shampoo": matrices, "adam": others}, labels)
