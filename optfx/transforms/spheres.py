"""The length of a parameter, and that of its update beside it: how far a step may turn it, and how far it may grow."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, tree
from optfx.core import GradientTransformation, NonNegative
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype


def where_positive(x: Tensor) -> Tensor:
    """What may be divided by: lengths, and 1 in place of 0."""
    return torch.where(x == 0, 1.0, x)


def into_range(u: Tensor, p: Tensor, min_ratio, max_ratio, per_unit: bool) -> Tensor:
    dims = tuple(range(1 if per_unit and p.ndim > 1 else 0, p.ndim))
    size, length = (vector_norm(x, dim=dims, keepdim=True) for x in (u, p))
    target = size if min_ratio is None else torch.maximum(size, min_ratio * length)
    target = target if max_ratio is None else torch.minimum(target, max_ratio * length)
    return u * (target / where_positive(size))


@tree.record
class relative_update(core.Stateless):
    r"""Bring the norm of each update into a range that is relative to the norm of its parameter. Needs params.

    $$u = \frac{\operatorname{clamp}(\lVert g \rVert,\; a \lVert p \rVert,\; b \lVert p \rVert)}{\lVert g \rVert}\, g$$

    By default both norms are the same, so that a learning rate behind it is the share of a parameter that a step moves
    it by. With a floor alone, `relative_update(0.35, None)`, it is the u/w floor of the NanoGPT records.

    Args:
        min_ratio: $a$; None for no floor.
        max_ratio: $b$; None for no limit. With one, a parameter of zeros stays so.
        per_unit: take the norms for each output unit, $p_i$, and not for a whole leaf.

    Raises:
        ValueError: no params.

    Reference: NVIDIA, Emerging-Optimizers, `RelativeUpdate`,
        <https://github.com/NVIDIA-NeMo/Emerging-Optimizers>; Jordan et al., modded-nanogpt, records of track 3,
        <https://github.com/KellerJordan/modded-nanogpt>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.relative_update()
        >>> params = {"w": torch.tensor([6.0, 8.0])}
        >>> tx.update({"w": torch.tensor([0.0, 0.1])}, tx.init(params), params)[0]
        {'w': tensor([ 0., 10.])}
    """

    needs_params = True
    min_ratio: NonNegative | None = 1.0
    max_ratio: NonNegative | None = 1.0
    per_unit: bool = dataclasses.field(default=False, kw_only=True)

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        return tree.leafwise(into_range, updates, params, per_unit=self.per_unit, **numbers)


def brake(u: Tensor, p: Tensor, outward_scale, inward_scale) -> Tensor:
    new = p + u
    after = vector_norm(new)
    growth = after - vector_norm(p)
    kept = torch.where(growth > 0, outward_scale, inward_scale)
    return u + new * ((kept - 1) * growth / where_positive(after))


@tree.record
class radial_brake(core.Stateless):
    r"""Let each parameter grow by only a part of what the step makes its norm grow. Needs params; put it last.

    $$\lVert p_t \rVert = \lVert p_{t-1} \rVert + s\,(\lVert p_{t-1} + g_t \rVert - \lVert p_{t-1} \rVert),
    \qquad p_t \propto p_{t-1} + g_t$$

    Args:
        outward_scale: $s$, where the step makes the norm grow.
        inward_scale: $s$, where it makes the norm shrink.

    Raises:
        ValueError: no params.

    Reference: NVIDIA, Emerging-Optimizers, `RadialBrake`, <https://github.com/NVIDIA-NeMo/Emerging-Optimizers>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.radial_brake())
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> tx.update({"w": torch.tensor([-3.0, -4.0])}, tx.init(params), params)[0]
        {'w': tensor([1.5000, 2.0000])}
    """

    needs_params = True
    outward_scale: NonNegative = 0.5
    inward_scale: NonNegative = 1.0

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        return tree.leafwise(brake, updates, params, **numbers)


class HyperballState(NamedTuple):
    """The state of `hyperball` and `keep_norm`."""

    count: Tensor  # () int64, steps taken
    norms: Tree  # like params, () each: the norms at the start; () where a radius is given


def measure(p: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    return p, vector_norm(p)


class OnSphere(GradientTransformation):
    """Parameters that keep their norms, or a given one."""

    needs_params = True
    radius: Any
    moved: ClassVar[Any]  # (update, parameter, radius, ...) -> update

    def begin(self, params: Tree) -> HyperballState:
        count = core.counter(params)
        if self.radius is not None:
            return HyperballState(count, ())
        zeros = tree.map(
            lambda p: torch.zeros((), dtype=torch.promote_types(real_dtype(p.dtype), torch.float32), device=p.device),
            params,
        )
        _, norms = tree.leafwise(measure, params, zeros, outs=2, same_shapes=False)
        return HyperballState(count, norms)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, new = self.at(state.count), HyperballState(state.count + 1, state.norms)
        if self.radius is not None:
            return tree.leafwise(self.moved, updates, params, **now), new
        now = {name: x for name, x in now.items() if name != "radius"}
        return tree.leafwise(self.moved, updates, params, state.norms, same_shapes=False, **now), new


def onto(u: Tensor, p: Tensor, radius) -> Tensor:
    new = p + u
    return new * (radius / where_positive(vector_norm(new))) - p


@tree.record
class keep_norm(OnSphere):
    r"""Bring each parameter back to the norm that it had at the start. Needs params; put it last.

    $$p_t = R\, \frac{q_t}{\lVert q_t \rVert}, \qquad q_t = p_{t-1} + g_t, \qquad R = \lVert p_0 \rVert$$

    The norms are those of whole leaves, and it is for matrices: what begins at zero stays there. `hyperball` is this
    with steps of a length that is in proportion to the norm.

    Args:
        radius: $R$, the same for all leaves; None for the norm of each at the start, which the state keeps.

    Raises:
        ValueError: no params.

    Reference: the radius pin of Jordan et al., modded-nanogpt, records of track 3,
        <https://github.com/KellerJordan/modded-nanogpt>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.keep_norm())
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> updates, state = tx.update({"w": torch.tensor([0.0, 4.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([5., 0.])}
    """

    moved = staticmethod(onto)
    radius: NonNegative | None = None


def turn(u: Tensor, p: Tensor, radius, learning_rate) -> Tensor:
    new = p - learning_rate * radius * u / where_positive(vector_norm(u))
    return new * (radius / where_positive(vector_norm(new))) - p


@tree.record
class hyperball(OnSphere):
    r"""Turn each parameter by a share of its length, and keep its norm what it was at the start. Needs params.

    $$q_t = p_{t-1} - \eta\, R\, \frac{g_t}{\lVert g_t \rVert}, \qquad
    p_t = R\, \frac{q_t}{\lVert q_t \rVert}, \qquad R = \lVert p_0 \rVert$$

    It takes the place of the learning rate behind a rule, and that of weight decay: `chain(scale_by_adam(),
    hyperball(0.01))`. The norms are those of whole leaves, and it is for matrices: what begins at zero stays there.

    Args:
        learning_rate: $\eta$, about the angle of a step.
        radius: $R$, the same for all leaves; None for the norm of each at the start, which the state keeps.

    It owns the step size, so it flips the sign itself.

    Raises:
        ValueError: no params.

    Reference: Wen et al., "Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball Optimization", 2026,
        <https://arxiv.org/abs/2606.16899>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.hyperball(1.0)
        >>> params = {"w": torch.tensor([5.0, 0.0])}
        >>> updates, state = tx.update({"w": torch.tensor([0.0, 0.1])}, tx.init(params), params)
        >>> params = optfx.apply_updates(params, updates)
        >>> params, params["w"].norm()
        ({'w': tensor([ 3.5355, -3.5355])}, tensor(5.))
    """

    moved, final = staticmethod(turn), True
    learning_rate: NonNegative
    radius: NonNegative | None = None
