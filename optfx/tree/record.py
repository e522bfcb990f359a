"""Records: transforms and schedules are data.

A record is a frozen dataclass that torch and optree see as a tree. A field that holds a tensor, a record, or a
container of only these is a *child*; any other field (a float, a flag, a function) is *structure*. So
`torch.func.vmap`, `torch.func.grad` and `torch.compile` see the tensors inside, two records of equal structure trace to
the same graph, and a number can be swept once it is given as a tensor.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import optree
import torch
import torch.utils._pytree as torch_pytree
from torch import Tensor

from optfx.hints import hinted

NAMESPACE = "optfx"
WIDTH = 100  # of the lines that `print` makes
T = TypeVar("T")


def is_record(x: Any) -> bool:
    """Whether `x` is an instance of a class decorated with `record`."""
    return getattr(type(x), "_is_record", False)


def _is_child(owner: str, value: Any) -> bool | None:
    """Whether a value is a child; None for an empty container, which may be beside either, as in a chain's state."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else None
    if items is None:
        return isinstance(value, Tensor) or is_record(value)
    kinds = {_is_child(owner, item) for item in items} - {None}
    if len(kinds) > 1:
        raise TypeError(f"{owner}: a container holds tensors and other values, make them all tensors: {value}")
    return kinds.pop() if kinds else None


def children(x: Any) -> tuple[str, ...]:
    """The names of the fields of a record that are children: tensors, records, and containers of only these."""
    # torch's vmap unflattens with placeholders for leaves and flattens again; the values do not tell then, so
    # `unflatten` remembers which fields are children
    known = x.__dict__.get("_children")
    if known is not None:
        return known
    return tuple(f.name for f in dataclasses.fields(x) if _is_child(type(x).__name__, getattr(x, f.name)))


def structure_of(x: Any) -> tuple[tuple[str, Any], ...]:
    """The (name, value) pairs of the fields of a record that are structure."""
    dynamic = children(x)
    return tuple((f.name, getattr(x, f.name)) for f in dataclasses.fields(x) if f.name not in dynamic)


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor is a wrapper made by `vmap` or `grad`."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore[reportAttributeAccessIssue]


def is_live(x: Tensor) -> bool:
    """Whether a tensor is where a gradient ends up, under `vmap` or not: a parameter of a module, or one that
    `torch.func.stack_module_state` gave. What `torch.func.grad` differentiates is none."""
    if torch.compiler.is_compiling():
        return x.requires_grad and isinstance(x, torch.nn.Parameter)
    while torch._C._functorch.is_batchedtensor(x):  # pyright: ignore[reportAttributeAccessIssue]
        x = torch._C._functorch.get_unwrapped(x)  # pyright: ignore[reportAttributeAccessIssue]
    return x.requires_grad and x.is_leaf and not is_wrapped(x)


def _number(x: Any) -> str:
    if isinstance(x, list):
        return "[" + ", ".join(map(_number, x)) + "]"
    return repr(x) if not isinstance(x, float) or math.isfinite(x) else f"float('{x}')"


class Code(NamedTuple):
    """The code of a value that holds others: what stands before, around and after them."""

    before: str
    items: list[tuple[str, Any]]  # what stands before each, and the value itself
    after: str


def code_of(v: Any, brief: bool = False) -> Code | None:
    """A record or a plain container, taken apart; None for any other value.

    Args:
        v: the value.
        brief: leave out options of records that are as by default; numbers are never left out.
    """
    if is_record(v) and type(v).__repr__ is _one_line:
        return Code(f"{type(v).__name__}(", v._arguments(brief), ")")
    if type(v) is tuple:
        return Code("(", [("", i) for i in v], ",)" if len(v) == 1 else ")")
    if type(v) is list:
        return Code("[", [("", i) for i in v], "]")
    if type(v) is dict:
        return Code("{", [(f"{k!r}: ", i) for k, i in v.items()], "}")
    return None


def show(v: Any, brief: bool = False) -> str:
    """The code that makes a value: a number, a tensor, a record, a module-level function, or a container of these."""
    if (code := code_of(v, brief)) is not None:
        return code.before + ", ".join(name + show(i, brief) for name, i in code.items) + code.after
    if isinstance(v, Tensor):
        if is_wrapped(v):
            return f"<{tuple(v.shape)} {v.dtype} inside a function transform>"
        device = "" if v.device.type == "cpu" else f", device='{v.device}'"
        return f"torch.tensor({_number(v.tolist())}, dtype={v.dtype}{device})"
    if isinstance(v, float):
        return _number(v)
    if callable(v) and hasattr(v, "__qualname__"):
        return v.__qualname__
    return repr(v)


def lay_out(v: Any, indent: str = "", room: int = WIDTH) -> str:
    """The same in brief, and over several lines if there is no room for it on one."""
    one, code = show(v, brief=True), code_of(v, brief=True)
    if code is None or len(one) <= room:
        return one
    deeper, lines = indent + "    ", []
    for name, i in code.items:
        lines.append(f"{deeper}{name}{lay_out(i, deeper, WIDTH - len(deeper) - len(name) - 1)},\n")
    return f"{code.before}\n{''.join(lines)}{indent}{code.after.lstrip(',')}"


def _one_line(self: Any) -> str:
    return show(self)


def _several_lines(self: Any) -> str:
    return lay_out(self)


def _is_numeric(x: Any) -> bool:
    return isinstance(x, (int, float, tuple)) and not isinstance(x, bool)


@dataclass_transform(frozen_default=True, eq_default=False)
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass that torch and optree see as a tree of its tensors.

    The role of a field depends on its value. A tensor, a record, or a container of only these is a child of the tree;
    any other value is structure. So a field annotated `float | Tensor` is structure if it is given as a float, and a
    child if it is given as a tensor.

    The `repr` of a record is the code that makes it. `print` shows code for it too, over several lines and without the
    options, other than numbers, that are as by default. An `__init__`,
    `__repr__` or `__str__` defined by the class is kept; an `__init__` that takes `*name` fills the field of that name.
    Records compare by identity.

    Args:
        cls: a class with annotated fields, as for `dataclasses.dataclass`.

    Returns:
        The class, registered with optree (namespace `"optfx"`) and with torch's own pytree.

    Raises:
        TypeError: an instance is flattened that has a container of both tensors and other values.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> @tree.record
        ... class line:
        ...     slope: float | torch.Tensor
        ...     start: float | torch.Tensor = 0.0
        ...     def __call__(self, x):
        ...         return self.start + self.slope * x
        >>> line(2.0)
        line(slope=2.0, start=0.0)
        >>> tree.paths(line(2.0)), tree.paths(line(torch.tensor(2.0)))
        ([], ['slope'])
        >>> torch.func.vmap(lambda f: f(3.0))(line(torch.tensor([1.0, 2.0])))
        tensor([3., 6.])
    """
    own_init = cls.__dict__.get("__init__")
    star = (
        [p.name for p in inspect.signature(own_init).parameters.values() if p.kind is p.VAR_POSITIONAL]
        if own_init
        else []
    )
    own = set(cls.__dict__)
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False, init=own_init is None)(cls)
    cls._is_record = True  # type: ignore[attr-defined]
    cls.__init__ = hinted(cls.__init__)  # type: ignore[method-assign]
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]

    def arguments(self: Any, brief: bool) -> list[tuple[str, Any]]:
        if star:
            return [("", x) for x in getattr(self, star[0])]
        values = [(f, getattr(self, f.name)) for f in fields if f.repr]
        return [(f"{f.name}=", x) for f, x in values if not (brief and x is f.default and not _is_numeric(x))]

    if "_arguments" not in own:
        cls._arguments = arguments  # type: ignore[attr-defined]
    if "__repr__" not in own:
        cls.__repr__ = _one_line
        if "__str__" not in own:
            cls.__str__ = _several_lines  # type: ignore[method-assign]
    register(cls)
    return cls


def register(cls: type) -> None:
    """Let optree and torch see a record as a tree, unless they do: one that came from another process is new here."""
    if optree.register_pytree_node.get(cls, namespace=NAMESPACE) is not None:
        return

    def flatten(x: Any) -> tuple[list[Any], Any]:
        if not torch.compiler.is_compiling():
            x = _outside(x)
        dynamic = children(x)
        return [getattr(x, n) for n in dynamic], (dynamic, structure_of(x))

    def unflatten(values: Any, context: Any) -> Any:
        dynamic, static = context
        x = object.__new__(cls)
        for n, v in (*zip(dynamic, values, strict=True), *static, ("_children", dynamic)):
            object.__setattr__(x, n, v)
        return x

    def flatten_with_entries(x: Any) -> tuple[list[Any], Any, tuple[str, ...]]:
        values, context = flatten(x)
        return values, context, context[0]

    optree.register_pytree_node(
        cls,  # type: ignore[arg-type]
        flatten_with_entries,
        lambda context, values: unflatten(values, context),
        path_entry_type=optree.GetAttrEntry,
        namespace=NAMESPACE,
    )
    torch_pytree.register_pytree_node(cls, flatten, unflatten)


def _outside(x: Any) -> Any:
    from optfx.tree.closures import seen  # which needs records

    return seen(x)


def with_children(x: T, values: dict[str, Any]) -> T:
    """A copy of a record with other children. The same fields stay its children, whatever they now hold."""
    new = replace(x, **values)
    object.__setattr__(new, "_children", children(x))
    return new


def replace(x: T, **fields: Any) -> T:
    """A copy of a record with some fields changed.

    Unlike `dataclasses.replace`, it does not run `__init__`. The role of a field (child or structure) may change.

    Args:
        x: a record.
        **fields: the new values by field.

    Raises:
        TypeError: a name that is not a field.

    Example:
        >>> import optfx
        >>> from optfx import tree
        >>> tree.replace(optfx.scale(0.5), step_size=2.0)
        scale(step_size=2.0)
    """
    names = tuple(f.name for f in dataclasses.fields(x))  # type: ignore[arg-type]
    if unknown := set(fields) - set(names):
        raise TypeError(f"{type(x).__name__} has no field {sorted(unknown)}; it has {list(names)}")
    new = object.__new__(type(x))
    for name in names:
        object.__setattr__(new, name, fields.get(name, getattr(x, name)))
    return new
