"""Schedule-free gradient descent, AdamW and RAdam: an average of the parameters takes the place of a falling rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.combinators import chain, schedule_free
from optfx.core import Beta, Hyper
from optfx.core.hyper import at
from optfx.hints import hinted
from optfx.optimizers.penalty import l2_penalty
from optfx.schedules import linear_schedule
from optfx.transforms import add_decayed_weights, scale_by_rms
from optfx.transforms.adaptive.radam import rectification


def linear_warmup(steps: int | None) -> Hyper:
    """The factor of the rate: it reaches 1 with the `steps`-th step."""
    return 1.0 if not steps else linear_schedule(1 / steps, 1.0, steps - 1)


@hinted
def schedule_free_sgd(
    learning_rate: Hyper = 1.0,
    warmup_steps: int | None = None,
    b1: Hyper = 0.9,
    weight_decay: Hyper | None = None,
    weight_lr_power: Hyper = 2.0,
    state_dtype: torch.dtype | None = None,
    *,
    r: Hyper = 0.0,
    mask: Any = None,
) -> schedule_free:
    r"""Gradient descent with an average of the parameters in place of momentum and of a falling rate.

    $$z_t = z_{t-1} - \eta_t\, (g_t + \lambda\, y_{t-1}), \qquad x_t = (1 - c_t)\, x_{t-1} + c_t\, z_t, \qquad
    y_t = (1 - \beta)\, z_t + \beta\, x_t$$

    with $\eta_t$ and $c_t$ as in `schedule_free`. The params are $y$; evaluate the model at $x$, see `eval_params`.

    Args:
        learning_rate: $\eta$.
        warmup_steps: over how many steps the rate rises to $\eta$; None for none. The first step has its share of
            it, as in `schedulefree`; in optax it is one of zero.
        b1: $\beta$, the share of the average in the point of the gradient.
        weight_decay: $\lambda$; None for none.
        weight_lr_power: the power of the rate by which a step counts in the average.
        state_dtype: the dtype of $z$; None for that of the parameters.
        r: the power of the step by which later ones count more.
        mask: which parameters decay, see `add_decayed_weights`; None for all.

    Raises:
        ValueError: `mask` without a weight decay; `b1` is 0.

    Reference: Defazio et al., "The Road Less Scheduled", 2024, <https://arxiv.org/abs/2405.15682>; the package
        `schedulefree`, `SGDScheduleFree`; optax, `contrib.schedule_free_sgd`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.schedule_free_sgd(0.5)
        >>> params = {"w": torch.tensor([1.0])}
        >>> state = tx.init(params)
        >>> for _ in range(20):
        ...     updates, state = tx.update(params, state, params)
        ...     params = optfx.apply_updates(params, updates)
        >>> tx.eval_params(state, params)
        {'w': tensor([-0.0343])}
    """
    inner = chain(*l2_penalty(weight_decay, mask))
    warmup = linear_warmup(warmup_steps)
    return schedule_free(inner, learning_rate, b1, weight_lr_power, state_dtype, r=r, warmup=warmup)


@hinted
def schedule_free_adamw(
    learning_rate: Hyper = 0.0025,
    warmup_steps: int | None = None,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    weight_lr_power: Hyper = 2.0,
    state_dtype: torch.dtype | None = None,
    *,
    r: Hyper = 0.0,
    mask: Any = None,
    nu_dtype: torch.dtype | None = None,
) -> schedule_free:
    r"""AdamW with an average of the parameters in place of its momentum and of a falling rate.

    $$u_t = \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \varepsilon} + \lambda\, y_{t-1}, \qquad
    v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$z_t = z_{t-1} - \eta_t\, u_t, \qquad x_t = (1 - c_t)\, x_{t-1} + c_t\, z_t, \qquad
    y_t = (1 - \beta_1)\, z_t + \beta_1\, x_t$$

    with $\eta_t$ and $c_t$ as in `schedule_free`. The params are $y$; evaluate the model at $x$, see `eval_params`.

    Args:
        learning_rate: $\eta$.
        warmup_steps: over how many steps the rate rises to $\eta$; None for none. The first step has its share of
            it, as in `schedulefree`; in optax it is one of zero.
        b1: $\beta_1$, the share of the average in the point of the gradient.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        weight_decay: $\lambda$, decoupled.
        weight_lr_power: the power of the rate by which a step counts in the average.
        state_dtype: the dtype of $z$; None for that of the parameters.
        r: the power of the step by which later ones count more.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: `b1` is 0.

    Reference: Defazio et al., "The Road Less Scheduled", 2024, <https://arxiv.org/abs/2405.15682>; the package
        `schedulefree`, `AdamWScheduleFree`; optax, `contrib.schedule_free_adamw`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.schedule_free_adamw(0.1)
        >>> params = {"w": torch.ones(2)}
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([0.9000, 1.1000])}
    """
    warmup = linear_warmup(warmup_steps)
    inner = adam_without_momentum(b2, eps, weight_decay, mask, nu_dtype)
    return schedule_free(inner, learning_rate, b1, weight_lr_power, state_dtype, r=r, warmup=warmup)


def adam_without_momentum(b2: Hyper, eps: Hyper, weight_decay: Hyper, mask: Any, nu_dtype: Any) -> chain:
    return chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
    )


@tree.record
class rectified:
    """RAdam's factor of the rate, which is 0 while the variance of the mean of squares is intractable."""

    b2: Beta

    def __call__(self, count: Tensor) -> Tensor:
        t = (count + 1).to(tree.scalar_dtype(count.device))
        factor, tractable = rectification(at(self, count)["b2"], t, 4.0)
        return torch.where(tractable, factor, 0.0)


@hinted
def schedule_free_radam(
    learning_rate: Hyper = 0.0025,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    weight_lr_power: Hyper = 2.0,
    state_dtype: torch.dtype | None = None,
    *,
    r: Hyper = 0.0,
    mask: Any = None,
    nu_dtype: torch.dtype | None = None,
) -> schedule_free:
    r"""Schedule-free AdamW whose rate is warmed up by RAdam's rectification.

    $$\eta_t = \eta\, r_t \;\text{ where } \rho_t > 4, \qquad \eta_t = 0 \;\text{ before}$$

    with $r_t$ and $\rho_t$ as in `scale_by_radam`, and all else as in `schedule_free_adamw`.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, the share of the average in the point of the gradient.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        weight_decay: $\lambda$, decoupled.
        weight_lr_power: the power of the rate by which a step counts in the average.
        state_dtype: the dtype of $z$; None for that of the parameters.
        r: the power of the step by which later ones count more.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Raises:
        ValueError: `b1` is 0.

    Reference: Defazio et al., "The Road Less Scheduled", 2024, <https://arxiv.org/abs/2405.15682>; Liu et al., "On the
        Variance of the Adaptive Learning Rate and Beyond", 2019, <https://arxiv.org/abs/1908.03265>; the package
        `schedulefree`, `RAdamScheduleFree` (with `silent_sgd_phase`, its default).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.schedule_free_radam(0.1)
        >>> params = {"w": torch.ones(1)}
        >>> state, moved = tx.init(params), []
        >>> for _ in range(6):
        ...     updates, state = tx.update(params, state, params)
        ...     moved.append(bool(updates["w"]))
        >>> moved
        [False, False, False, False, True, True]
    """
    inner = adam_without_momentum(b2, eps, weight_decay, mask, nu_dtype)
    return schedule_free(inner, learning_rate, b1, weight_lr_power, state_dtype, r=r, warmup=rectified(b2))
