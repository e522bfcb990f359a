"""Adam whose step is shorter where the mean of squares lags behind the gradient: StableAdamW."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.adaptive.adam import adam
from optfx.transforms.adaptive.factored import squared
from optfx.transforms.decay import decay, decay_some
from optfx.tree import Tree


class ScaleByStableAdamState(NamedTuple):
    """The state of `scale_by_stable_adam`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def limit_ratio(u: Tensor, g: Tensor, v: Tensor, eps, c2) -> Tensor:
    v_hat = (v.real + v.imag if v.is_complex() else v) / c2  # of a complex element, both of its squares
    ratio = squared(g) / v_hat.clamp(min=eps * eps).clamp_min(torch.finfo(g.dtype).tiny)
    return u / tree.safe_sqrt(ratio.sum() / max(g.numel(), 1)).clamp_min(1.0)


@tree.record
class scale_by_stable_adam(GradientTransformation):
    r"""Adam and weight decay, shortened by how much larger the squared gradient of a leaf is than its mean.

    $$u_t = \frac{1}{\max(1, \rho_t)} \left(\frac{\hat m_t}{\sqrt{\hat v_t} + \varepsilon} + \lambda\, p_{t-1}\right),
    \qquad \rho_t = \sqrt{\operatorname{mean}\!\left(\frac{g_t^2}{\max(\hat v_t, \varepsilon^2)}\right)}$$

    with the means $\hat m_t$ and $\hat v_t$ of `scale_by_adam`. It needs params.

    When the gradient grows all at once, $\hat v_t$ is out of date, and Adam's step too long. This is the clipping of
    updates of Adafactor, measured without the momentum. The factor is that of a learning rate, so the decay has it too,
    and is in here for that.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$.
        weight_decay: $\lambda$.
        mask: which parameters decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Raises:
        ValueError: no params, a mask that does not fit them, naming the path.

    Reference: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023,
        <https://arxiv.org/abs/2304.13013>; optimi, `StableAdamW`.

    Example:
        >>> import torch, optfx
        >>> tx, params = optfx.scale_by_stable_adam(b1=0.0), {"w": torch.zeros(1)}
        >>> state = tx.init(params)
        >>> for g in (1.0, 10.0):
        ...     updates, state = tx.update({"w": torch.tensor([g])}, state, params)
        ...     print(updates)
        {'w': tensor([1.0000])}
        {'w': tensor([1.0000])}
    """

    needs_params = True
    b1: Beta = 0.9
    b2: Beta = 0.99
    eps: NonNegative = 1e-6
    weight_decay: NonNegative = 0.0
    mask: Any = None
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByStableAdamState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByStableAdamState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        b1, b2, eps = now["b1"], now["b2"], now["eps"]
        c1, c2 = core.bias_correction(b1, count), core.bias_correction(b2, count)
        moved, mu, nu = tree.elementwise(
            adam,
            updates,
            state.mu,
            state.nu,
            outs=3,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=0.0,
            c1=c1,
            c1_next=None,
            c2=c2,
        )
        moved = decay_some(self, decay, moved, params, weight_decay=now["weight_decay"])
        return tree.leafwise(limit_ratio, moved, updates, nu, eps=eps, c2=c2), ScaleByStableAdamState(count, mu, nu)
