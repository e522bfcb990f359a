"""Code that looks at the value of a tensor, so that what it does next is no list of operations.

Most of it asks torch for an operation, which a dispatch mode sees. The rest reads memory without asking: `tolist`,
numpy, text, and a tensor made of a list with tensors in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optfx.tree.record import is_record

MANY = 1000  # entries of what is not compared
BY_VALUE = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
READERS = {
    *(Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.__repr__, Tensor.__format__),
    *(Tensor.data_ptr, Tensor.apply_, Tensor.map_, Tensor.map2_),  # type: ignore[attr-defined]
}
MAKERS = {torch.tensor: 0, torch.as_tensor: 0, torch.asarray: 0, Tensor.new_tensor: 1}
"""What turns a list into a tensor, and where the list stands."""


def depends_on_values(f: Any, args: Any) -> bool:
    """Whether what an operation gives is no tensor of a fixed shape."""
    if f is torch.ops.aten.index.Tensor:  # by integers it has the shape of the indices, by a mask it has not
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return not BY_VALUE.isdisjoint(f.tags)


class Watching(TorchFunctionMode):
    """Tells of tensors whose memory is read.

    Args:
        tell: is called with the tensor, and may raise.
    """

    def __init__(self, tell: Callable[[Tensor], Any]):
        super().__init__()
        self._tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READERS:
            self._tell(args[0])
        elif func in MAKERS and len(args) > MAKERS[func]:
            for x in _in_lists(args[MAKERS[func]]):
                self._tell(x)
        return func(*args, **(kwargs or {}))


def _in_lists(x: Any) -> Iterator[Tensor]:
    for y in x if isinstance(x, (list, tuple)) else ():
        if isinstance(y, Tensor):
            yield y
        else:
            yield from _in_lists(y)


def code_in(x: Any) -> Iterator[Any]:
    """The functions that stand in a transform or a schedule, and whatever in it is of no class of the library's."""
    if isinstance(x, (list, tuple)):
        for y in x:
            yield from code_in(y)
    elif isinstance(x, dict):
        yield from code_in([*x.values()])
    elif is_record(x):
        if not type(x).__module__.startswith("optfx."):
            yield x
        yield from code_in([*vars(x).values()])
    elif callable(x) and not isinstance(x, type):
        yield x


def kept_by(code: Iterable[Any]) -> dict[str, Any]:
    """What functions keep in cells, and objects in attributes, by name and in a form that can be compared."""
    found: dict[str, Any] = {}
    for f in code:
        if isinstance(f, FunctionType):
            cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
            found |= {name: cell.cell_contents for name, cell in cells if cell != CellType()}
        else:
            found |= getattr(f.__self__ if isinstance(f, MethodType) else f, "__dict__", {})
    return {name: _compared(x) for name, x in found.items()}


def _compared(x: Any, depth: int = 3) -> Any:
    if isinstance(x, (list, tuple, set, dict)) and depth and len(x) < MANY:
        return id(x), [_compared(y, depth - 1) for y in (x.values() if isinstance(x, dict) else x)]
    return repr(x) if isinstance(x, (bool, int, float, str)) else id(x)
