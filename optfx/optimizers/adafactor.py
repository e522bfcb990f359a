"""Adafactor."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from optfx.combinators import chain
from optfx.core import GradientTransformation, Hyper
from optfx.hints import hinted
from optfx.schedules import relative_step as relative
from optfx.transforms import (
    add_decayed_weights,
    clip_by_block_rms,
    ema,
    scale,
    scale_by_factored_rms,
    scale_by_learning_rate,
    scale_by_param_block_rms,
    scale_by_schedule,
)


@hinted
def adafactor(
    learning_rate: Hyper | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Hyper = 0.8,
    decay_offset: int | Tensor = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Hyper | None = 1.0,
    momentum: Hyper | None = None,
    dtype_momentum: torch.dtype | None = torch.float32,
    weight_decay_rate: Hyper | None = None,
    eps: Hyper | None = 1e-30,
    factored: bool | Literal["last"] = True,
    weight_decay_mask: Any = None,
    *,
    eps_is_floor: bool = False,
    min_scale: Hyper = 1e-3,
    relative_step: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> chain:
    r"""Adafactor: gradients divided by a root mean square kept by rows and columns, in proportion to the parameters.

    $$u_t = \frac{g_t}{\sqrt{V_t}}, \qquad \hat u_t = \frac{u_t}{\max(1,\, \operatorname{rms}(u_t) / d)}, \qquad
    p_t = p_{t-1} - \eta_t \max(\operatorname{rms}(p_{t-1}), \sigma)\, \hat u_t - \lambda\, p_{t-1}$$

    with $V_t$ as in `scale_by_factored_rms`. With `relative_step`, $\min(\eta_t, 1/\sqrt t)$ takes the place of the
    first $\eta_t$, and $\eta_t \lambda$ that of $\lambda$.

    Args:
        learning_rate: $\eta$; None for 1.
        min_dim_size_to_factor: a leaf is factored if both dimensions have at least this size.
        decay_rate: the power of time by which new squares count less and less in the mean.
        decay_offset: how many steps had been taken before this training.
        multiply_by_parameter_scale: False leaves out the root mean square of the parameters.
        clipping_threshold: $d$; None for no limit.
        momentum: how much of a running mean of the updates is kept at each step; None for none.
        dtype_momentum: the dtype of that mean; None for that of the parameters.
        weight_decay_rate: $\lambda$; None for none.
        eps: the epsilon of `scale_by_factored_rms`.
        factored: True for the two largest dimensions, `"last"` for the last two (torch), False for none.
        weight_decay_mask: which parameters decay, see `add_decayed_weights`; None for all.
        eps_is_floor: keep the mean of squares above $\varepsilon^2$ instead (torch).
        min_scale: $\sigma$, the least root mean square of a parameter.
        relative_step: keep the rate below $1/\sqrt t$, and multiply the decay by it (torch). It needs a learning rate.
        accumulator_dtype: the dtype of the means that make $V_t$; None for that of the parameters.

    Raises:
        ValueError: `relative_step` without a learning rate, `weight_decay_mask` without a weight decay.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; optax, `adafactor`; `torch.optim.Adafactor`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adafactor(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    if relative_step and learning_rate is None:
        raise ValueError("adafactor: relative_step without a learning_rate")
    if weight_decay_mask is not None and weight_decay_rate is None:
        raise ValueError("a mask says which parameters decay, and there is no weight_decay_rate")
    decay = [] if weight_decay_rate is None else [add_decayed_weights(weight_decay_rate, weight_decay_mask)]
    steps: list[GradientTransformation] = [
        scale_by_factored_rms(
            factored,
            decay_rate,
            decay_offset,
            min_dim_size_to_factor,
            eps,
            epsilon_is_floor=eps_is_floor,
            accumulator_dtype=accumulator_dtype,
        )
    ]
    if clipping_threshold is not None:
        steps.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None and not relative_step:
        steps.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        steps.append(scale_by_param_block_rms(min_scale))
    if momentum is not None:
        steps.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if learning_rate is not None and relative_step:
        return chain(*steps, scale_by_schedule(relative(learning_rate)), *decay, scale_by_learning_rate(learning_rate))
    return chain(*steps, *decay, scale(-1.0))
