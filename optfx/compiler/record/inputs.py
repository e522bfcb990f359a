"""What a step is given: leaves, which kernels and events read, and scalars, which one graph reads."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, NewType

import torch
from torch import Tensor

from optfx.core import GradientTransformation, is_number
from optfx.tree import Tree, flatten
from optfx.tree.share import scalar_dtype

Input = NewType("Input", int)
"""The number of a leaf that a step reads or writes: gradients come first, then parameters, the state, extra arguments,
and what stands between two stages."""


class Unfusable(TypeError):
    """An operation on a leaf that is no verb: nothing is known of what it does."""


class AsLeaf(NamedTuple):
    """An extra argument that is a leaf."""

    input: Input


class AsScalar(NamedTuple):
    """An extra argument that is a number."""

    index: int  # among the scalars of a step


@dataclasses.dataclass(frozen=True)
class Given:
    """An extra argument that is no tensor. Each step brings its own."""

    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise Unfusable(f"it calls {self.name}")


class Inputs(NamedTuple):
    """The inputs of a step, numbered."""

    leaves: list[Tensor]  # by Input
    scalars: list[Tensor]  # () leaves of the state, tensors of the transform, extra arguments
    of_state: list[Input]  # the inputs that the first scalars are
    n: int  # how many parameters there are: input i is a gradient below n, a parameter below 2 n
    extra: list[AsLeaf | AsScalar | Given]  # what each extra argument is


def kind_of(extra: Any) -> Any:
    """What a step is compiled for, of an extra argument: shape and dtype of a leaf, or "number", or "given"."""
    if isinstance(extra, Tensor) and extra.ndim:
        return extra.shape, extra.dtype
    return "number" if is_number(extra) else "given"


def gather(tx: GradientTransformation, grads: Tree, state: Tree, params: Tree, extra: dict[str, Any]) -> Inputs:
    """Number the inputs of a step."""
    (g, _), (p, _), (s, _) = flatten(grads), flatten(params), flatten(state)
    leaves, extras = [*g, *p, *s], []
    of_state = [Input(i) for i in range(2 * len(p), len(leaves)) if not leaves[i].ndim]
    scalars = [*(leaves[i] for i in of_state), *flatten(tx)[0]]
    place = p[0].device if p else torch.device("cpu")
    for name in sorted(extra):
        for x in flatten(extra[name])[0]:
            kind = kind_of(x)
            if kind == "given":
                extras.append(Given(name))
            elif kind == "number":
                extras.append(AsScalar(len(scalars)))
                scalars.append(torch.zeros((), dtype=scalar_dtype(place), device=place))
            else:
                extras.append(AsLeaf(Input(len(leaves))))
                leaves.append(x)
    return Inputs(leaves, scalars, of_state, len(p), extras)
