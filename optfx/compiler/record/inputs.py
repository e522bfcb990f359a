"""What a step is given: leaves, which kernels and events read, and scalars, which one graph reads."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, NewType, NoReturn

import torch
from torch import Tensor

from optfx.core import GradientTransformation, is_number
from optfx.tree import Tree, flatten
from optfx.tree.sharded import spread_of
from optfx.tree.share import scalar_dtype

Input = NewType("Input", int)
"""The number of a leaf that a step reads or writes: gradients come first, then parameters, the state, extra arguments,
and what is met on the way: tensors from outside, and what stands between two stages."""

CONSTANTS = (bool, str, bytes, type(None), enum.Enum, torch.dtype, torch.device)
"""Types of extra arguments whose value is part of what is compiled: code may branch on it."""


class Unfusable(RuntimeError):
    """Something of which no part of a kernel can be made. It is no TypeError, which operators would catch."""


class AsLeaf(NamedTuple):
    """An extra argument that is a leaf."""

    input: Input


class AsScalar(NamedTuple):
    """An extra argument that is a number."""

    index: int  # among the scalars of a step


class Constant(NamedTuple):
    """An extra argument whose value is part of what is compiled."""

    value: Any


class FromCaller(NamedTuple):
    """What an event takes as it comes: a leaf of the extra arguments."""

    index: int


class Given:
    """An extra argument that nothing is known of, such as a function. Each step brings its own, for what runs as it is:
    whoever looks at it is such a transform."""

    def __init__(self, name: str, index: int):
        object.__setattr__(self, "_known", (name, index))

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Unfusable(f"it uses {object.__getattribute__(self, '_known')[0]}")

    __call__ = __getattribute__ = __setattr__ = __bool__ = __len__ = __iter__ = __getitem__ = _refuse
    __contains__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __str__ = __format__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse


def index_of(given: Given) -> int:
    """Which of all leaves of the extra arguments it stands for."""
    return object.__getattribute__(given, "_known")[1]


class Inputs(NamedTuple):
    """The inputs of a step, numbered."""

    leaves: list[Tensor]  # by Input
    scalars: list[Tensor]  # () leaves of the state, tensors of the transform, extra arguments, then those from outside
    of_state: list[Input]  # the inputs that the first scalars are
    n: int  # how many parameters there are: input i is a gradient below n, a parameter below 2 n
    extra: list[AsLeaf | AsScalar | Constant | Given]  # what each extra argument is


def kind_of(extra: Any) -> Any:
    """What a step is compiled for, of an extra argument: shape and dtype of a leaf, a value, "number", or "given"."""
    if isinstance(extra, CONSTANTS):
        return type(extra), extra
    if isinstance(extra, Tensor) and extra.ndim:
        return extra.shape, extra.dtype, spread_of(extra)
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
                extras.append(Given(name, len(extras)))
            elif kind == "number":
                extras.append(AsScalar(len(scalars)))
                scalars.append(torch.zeros((), dtype=scalar_dtype(place), device=place))
            elif isinstance(x, Tensor):
                extras.append(AsLeaf(Input(len(leaves))))
                leaves.append(x)
            else:
                extras.append(Constant(x))
    return Inputs(leaves, scalars, of_state, len(p), extras)
