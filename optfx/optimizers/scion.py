"""Scion: momentum, then a step of given norm, in the norm that suits each layer."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, partition
from optfx.core import GradientTransformation, Hyper, select
from optfx.hints import hinted
from optfx.transforms import add_decayed_weights, ema, lmo, scale, scale_by_learning_rate, trace
from optfx.transforms.matrix.newton_schulz import SIMPLE
from optfx.transforms.matrix.orthogonalize import Method

ROLES = select.label({"spectral": select.ndim(min=2)}, default="rms")


@hinted
def scion(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    radius: Hyper = 50.0,
    sign_radius: Hyper = 3000.0,
    eps: Hyper = 1e-8,
    mu_dtype: torch.dtype | None = None,
    *,
    constrained: bool = False,
    method: Method = SIMPLE,
    dtype: torch.dtype | None = None,
    labels: Any = ROLES,
) -> chain:
    r"""Scion: the step of norm $\rho$ that goes furthest along a running mean of the gradient. Nothing is adaptive.

    $$d_t = \beta d_{t-1} + (1 - \beta)\, g_t, \qquad p_t = p_{t-1} - \eta_t\, \rho \operatorname{lmo}(d_t)$$

    or, constrained to parameters of norm $\rho$, $\; p_t = (1 - \eta_t)\, p_{t-1} - \eta_t\, \rho
    \operatorname{lmo}(d_t)$.

    Args:
        learning_rate: $\eta$.
        b1: $\beta$, how much of the mean is kept at each step. The paper's momentum is $1 - \beta$.
        radius: $\rho$, for all but the sign.
        sign_radius: $\rho$ where the norm is the largest element.
        eps: as in `lmo`.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        constrained: keep parameters within the radius.
        method: as in `orthogonalize`.
        dtype: the dtype to orthogonalize in; None for that of the parameters.
        labels: the norm of each leaf, `"spectral"`, `"sign"` or `"rms"`, see `lmo`. The last layer, and embeddings,
            are better with the sign: `select.label({"sign": select.path("head.weight"), "spectral":
            select.ndim(min=2)}, default="rms")`.

    Begin with parameters of that norm: the paper scales orthogonal matrices by $\rho$.

    Reference: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs", 2025,
        <https://arxiv.org/abs/2502.07529>; pytorch_optimizer, `SCION` (which orthogonalizes in bfloat16).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scion(0.1, radius=1.0)
        >>> params = {"b": torch.zeros(2)}
        >>> tx.update({"b": torch.tensor([3.0, -3.0])}, tx.init(params), params)[0]
        {'b': tensor([-0.1000,  0.1000])}
    """
    momentum = ema(b1, debias=False, accumulator_dtype=mu_dtype)
    return _scion(momentum, learning_rate, radius, sign_radius, eps, constrained, method, dtype, labels)


@hinted
def scion_light(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    radius: Hyper = 50.0,
    sign_radius: Hyper = 3000.0,
    eps: Hyper = 1e-8,
    mu_dtype: torch.dtype | None = None,
    *,
    constrained: bool = False,
    method: Method = SIMPLE,
    dtype: torch.dtype | None = None,
    labels: Any = ROLES,
) -> chain:
    r"""Scion with a decaying sum of the gradients in the place of a mean, $d_t = \beta d_{t-1} + g_t$.

    An `lmo` does not look at the length, so the steps are those of `scion` up to $\varepsilon$. Elsewhere the sum takes
    the place of the gradients in memory; here it is a state like any other.

    Args:
        learning_rate: as in `scion`.
        b1: $\beta$, how much of the sum is kept at each step.
        radius: as in `scion`.
        sign_radius: likewise.
        eps: likewise.
        mu_dtype: the dtype of the sum; None for that of the parameters.
        constrained: as in `scion`.
        method: likewise.
        dtype: likewise.
        labels: likewise.

    Reference: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs", 2025,
        <https://arxiv.org/abs/2502.07529>; pytorch_optimizer, `SCIONLight`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scion_light(0.1, radius=1.0)
        >>> params = {"b": torch.zeros(2)}
        >>> tx.update({"b": torch.tensor([3.0, -3.0])}, tx.init(params), params)[0]
        {'b': tensor([-0.1000,  0.1000])}
    """
    momentum = trace(b1, accumulator_dtype=mu_dtype)
    return _scion(momentum, learning_rate, radius, sign_radius, eps, constrained, method, dtype, labels)


def _scion(
    momentum: GradientTransformation,
    learning_rate: Hyper,
    radius: Hyper,
    sign_radius: Hyper,
    eps: Hyper,
    constrained: bool,
    method: Method,
    dtype: torch.dtype | None,
    labels: Any,
) -> chain:
    steps: dict[str, GradientTransformation] = {
        "spectral": chain(lmo("spectral", eps, method=method, dtype=dtype), scale(radius)),
        "sign": chain(lmo("sign"), scale(sign_radius)),
        "rms": chain(lmo("rms", eps), scale(radius)),
    }
    return chain(
        momentum,
        partition(steps, labels),
        *([add_decayed_weights(1.0)] if constrained else []),
        scale_by_learning_rate(learning_rate),
    )
