"""The verbs: the only way to compute with leaves. Each says how far its function looks.

| verb | its function | so it may run as |
|---|---|---|
| `elementwise` | treats every element alike, never looks at a shape | a call per leaf, packed, or one kernel for all |
| `leafwise` | sees one whole leaf: its norm, its rows, its shape | a call per leaf |
| `matrixwise` | works on the last two dimensions (`matrices.py`) | a call for all leaves of one shape |
| `reduce` | gives a number per leaf, then combines these | one reduction, an all-reduce for sharded leaves |

A leaf function is defined at module level, takes leaves first and scalars by keyword, and is correct if every scalar is
a () tensor. `run_leaf` lifts half precision to float32, converts every scalar to the dtype and device of the
computation, and gives output k the dtype of input k: the laws about dtypes hold by construction, under vmap too.
`elementwise` passes complex leaves as pairs of real numbers, as `torch.optim` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.tree import share
from optfx.tree.dtypes import computation_dtype, is_inexact, real_dtype
from optfx.tree.nodes import Tree, flatten, paths, unflatten
from optfx.tree.recording import recorder
from optfx.tree.sharded import any_sharded, is_sharded, numbers_of, run_on_parts, run_on_wholes
from optfx.tree.words import LeafError, misfit


def name_of(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", repr(f))


def columns_of(f: Callable[..., Any], trees: tuple[Tree, ...], same_shapes: bool) -> tuple[list[list[Tensor]], Any]:
    """The leaves of each tree, checked against the first tree: structure, device and, if asked, shape."""
    first, structure = flatten(trees[0])
    columns = [first]
    for k, tree in enumerate(trees[1:], 1):
        column, other = flatten(tree)
        if words := misfit(trees[0], first, tree, column if structure == other else None, same_shapes):
            raise ValueError(f"{name_of(f)}: argument {k} does not match argument 0: it {words}")
        columns.append(column)
    return columns, structure


def refuse_integers(dtypes: Sequence[torch.dtype]) -> None:
    """Raise if the first leaf is an integer and another is not: an integer could not hold the result."""
    if not is_inexact(dtypes[0]) and any(map(is_inexact, dtypes)):
        raise LeafError(f"a leaf of {dtypes[0]} where a floating or complex one was expected")


def sees_pairs(dtypes: Sequence[torch.dtype], wide: torch.dtype | None, as_pairs: bool) -> bool:
    """Whether complex leaves are passed as pairs of real numbers; then none may be real."""
    if wide is None or not (as_pairs and wide.is_complex):
        return False
    if not all(d.is_complex for d in dtypes):
        raise LeafError(f"complex and real leaves meet: {', '.join(map(str, dtypes))}")
    return True


class LeafKind(NamedTuple):
    """How to compute with the leaves of one call, and the scalars cast for them."""

    device: torch.device
    dtypes: list[torch.dtype]
    wide: torch.dtype | None  # the dtype of the computation
    pairs: bool  # whether complex leaves are passed as pairs of real numbers
    lifted: bool  # whether any leaf must be converted
    scalars: dict[str, Any]  # as the leaf function takes them


class Scalars:
    """The scalar arguments of one verb, cast once for each kind of leaf.

    Args:
        f: the leaf function.
        values: floats, () tensors, `Share`s, or structure, by name.
        as_pairs: whether complex leaves are passed as pairs of real numbers.
        as_tensors: whether floats become tensors on the CPU.

    Attributes:
        values: plain numbers, () tensors, or structure. A `Share` `b` becomes two of these, `b` and `1 - b`. A recorder
            keeps the values, and makes `Scalars` from them again, perhaps with other numbers.
    """

    def __init__(self, f: Callable[..., Any], values: dict[str, Any], as_pairs: bool = False, as_tensors: bool = False):
        values = share.flat(values)
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim:
                raise ValueError(
                    f"{name_of(f)}: the scalar {name!r} has the shape {tuple(value.shape)}; "
                    "batches of optimizers run under torch.func.vmap"
                )
        self.values, self.as_pairs, self.as_tensors = values, as_pairs, as_tensors
        self.kinds: list[LeafKind] = []

    def kind_of(self, xs: Sequence[Tensor]) -> LeafKind:
        """How to compute with leaves of these dtypes on this device."""
        device, dtypes = xs[0].device, [x.dtype for x in xs]
        for known in self.kinds:
            if known.dtypes == dtypes and known.device == device:
                return known
        wide = computation_dtype(dtypes)
        pairs = sees_pairs(dtypes, wide, self.as_pairs)
        stored = torch.compiler.is_compiling()
        cast = {k: _cast(v, device, wide, stored) if isinstance(v, Tensor) else v for k, v in self.values.items()}
        if self.as_tensors and wide is not None and device.type == "cpu":
            # each operation would turn the float into a tensor again, which takes as long as a small leaf
            cast |= {k: torch.tensor(v, dtype=real_dtype(wide)) for k, v in cast.items() if type(v) is float}
        lifted = pairs or any(d != wide for d in dtypes)
        self.kinds.append(LeafKind(device, dtypes, wide, pairs, lifted, share.unflat(cast)))
        return self.kinds[-1]


def _cast(scalar: Tensor, device: torch.device, dtype: torch.dtype | None, stored: bool) -> Tensor:
    if dtype is None or scalar.dtype == torch.bool:
        return scalar.to(device)
    scalar = scalar.to(device, real_dtype(dtype))
    # Inductor would compute the scalar again for every few elements, float64 powers included; a view makes Inductor
    # store it once
    return scalar.as_strided((), ()) if stored else scalar


def lift(xs: Sequence[Tensor], wide: torch.dtype | None) -> list[Tensor]:
    """The leaves in the dtype of the computation; a real leaf beside complex ones stays real."""
    if wide is None:
        return list(xs)
    real = real_dtype(wide)
    return [x.to(wide) if x.dtype.is_complex else x.to(real) if x.dtype.is_floating_point else x for x in xs]


def run_leaf(
    f: Callable[..., Any], xs: tuple[Tensor, ...], scalars: Scalars, outs: int, like: Sequence[int] | None = None
) -> list[Tensor]:
    """Run a leaf function on one leaf: lift, call, cast back, result k to the dtype of leaf k, or of leaf `like[k]`."""
    here = scalars.kind_of(xs)
    ins: Sequence[Tensor] = xs
    if here.lifted:
        refuse_integers(here.dtypes)
        ins = lift(xs, here.wide)
    if here.pairs:
        ins = [torch.view_as_real(x.resolve_conj()) for x in ins]
    ys = f(*ins, **here.scalars)
    ys = ys if isinstance(ys, tuple) else (ys,)
    if len(ys) != outs:
        raise LeafError(f"{len(ys)} results where {outs} were expected")
    results = []
    for k, y in enumerate(ys):
        dtype = here.dtypes[k if like is None else like[k]]
        if here.pairs:
            y = torch.view_as_complex(y.contiguous())
        if y.dtype != dtype:
            if (is_inexact(y.dtype) and not is_inexact(dtype)) or (y.dtype.is_complex and not dtype.is_complex):
                raise LeafError(f"a result of {y.dtype} for a leaf of {dtype}, which cannot hold it")
            y = y.to(dtype)
        results.append(y)
    return results


def run_anywhere(
    f: Callable[..., Any], xs: tuple[Tensor, ...], scalars: Scalars, outs: int, whole: bool
) -> list[Tensor]:
    """Run a leaf function on one leaf, which may be sharded. `whole`: `f` sees whole leaves."""
    if not is_sharded(xs[0]):
        return run_leaf(f, xs, scalars, outs)
    return (run_on_wholes if whole else run_on_parts)(lambda xs: run_leaf(f, xs, scalars, outs), xs)


def run(
    f: Callable[..., Any],
    trees: tuple[Tree, ...],
    outs: int,
    scalars: dict[str, Any],
    *,
    whole: bool,
    same_shapes: bool,
    as_pairs: bool,
) -> Any:
    """What `elementwise` and `leafwise` share: check, then call once per leaf. `whole`: `f` sees whole leaves."""
    columns, structure = columns_of(f, trees, same_shapes)
    reader = recorder()
    here = Scalars(f, scalars, as_pairs, as_tensors=reader is None and not torch.compiler.is_compiling())
    results: list[list[Tensor]] = []
    for i, xs in enumerate(zip(*columns, strict=True)):
        try:
            ys = (run_anywhere if reader is None else reader.run_leaf)(f, xs, here, outs, whole)
        except LeafError as error:
            raise TypeError(f"{name_of(f)} at {paths(trees[0])[i]!r}: {error}") from None
        results.append(ys)
    new = [unflatten(structure, column) for column in (zip(*results, strict=True) if results else [()] * outs)]
    return new[0] if outs == 1 else tuple(new)


def elementwise(f: Callable[..., Any], *trees: Tree, outs: int = 1, **scalars: Any) -> Any:
    """Map a function that treats every element alike.

    The leaves may be computed one by one, packed flat, or in one compiled kernel. So `f` must not look at shapes, and
    takes every scalar as an argument, never from a closure.

    Args:
        f: function of plain tensors, defined at module level: `f(x, y, ..., **scalars)` -> tensor, or tuple of `outs`
            tensors. It must be correct if every scalar is a () tensor.
        *trees: trees of the same structure and shapes; output k has the dtypes of tree k.
        outs: how many trees to return.
        **scalars: floats, () tensors, `Share`s, or structure (flags).

    Returns:
        A tree like `trees[0]`, or a tuple of `outs` of them.

    Raises:
        ValueError: the trees differ in structure, shape or device (naming the path), or a scalar is not ().
        TypeError: a leaf cannot hold its result, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> def lerp(x, y, weight):
        ...     return x + weight * (y - x)
        >>> tree.elementwise(lerp, {"w": torch.zeros(2)}, {"w": torch.ones(2)}, weight=0.25)
        {'w': tensor([0.2500, 0.2500])}
    """
    return run(f, trees, outs, scalars, whole=False, same_shapes=True, as_pairs=True)


def leafwise(f: Callable[..., Any], *trees: Tree, outs: int = 1, same_shapes: bool = True, **scalars: Any) -> Any:
    """Map a function that sees one whole leaf: its norm, its shape, its rows and columns.

    Like `elementwise`, but complex leaves stay complex.

    Args:
        f: as for `elementwise`, but it may look at the whole of a leaf.
        *trees: trees of the same structure; output k has the dtypes of tree k.
        outs: how many trees to return.
        same_shapes: False lets shapes differ between trees: a tree of () tensors holds one number for each leaf.
        **scalars: floats, () tensors, `Share`s, or structure (flags).

    Returns:
        A tree like `trees[0]`, or a tuple of `outs` of them.

    Raises:
        ValueError: the trees differ in structure, device or shape (naming the path), or a scalar is not ().
        TypeError: a leaf cannot hold its result, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> def center(x):
        ...     return x - x.mean()
        >>> tree.leafwise(center, {"w": torch.tensor([1.0, 3.0])})
        {'w': tensor([-1.,  1.])}
    """
    return run(f, trees, outs, scalars, whole=True, same_shapes=same_shapes, as_pairs=False)


def reduce(
    f: Callable[..., Tensor], combine: Callable[..., Tensor], *trees: Tree, empty: float | bool, **scalars: Any
) -> Tensor:
    """Look across all leaves: `f` gives a number for each leaf, and `combine` turns these into one.

    Leaves may be split or packed together, so combining the numbers of two leaves must give what `f` gives for one leaf
    with the elements of both. That holds for sums, norms, extremes, any and all, but not for means.

    Args:
        f: function of corresponding leaves -> () tensor, defined at module level; half precision is lifted.
        combine: function of an (n,) tensor, the numbers of n leaves -> () tensor; it takes the scalars too.
        *trees: trees of the same structure and shapes.
        empty: the result for a tree without leaves.
        **scalars: passed to both functions.

    Returns:
        () tensor on the device of the first leaf.

    Raises:
        ValueError: the trees differ in structure, shape or device (naming the path), or a scalar is not ().

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.reduce(torch.sum, torch.sum, {"a": torch.ones(3), "b": torch.ones(2)}, empty=0.0)
        tensor(5.)
    """
    columns, _ = columns_of(f, trees, same_shapes=True)
    here, rows, reader = Scalars(f, scalars), list(zip(*columns, strict=True)), recorder()
    if not rows:
        return torch.tensor(empty)
    return (combined if reader is None else reader.reduce)(f, combine, rows, here)


def part_of(f: Callable[..., Tensor], xs: Sequence[Tensor], scalars: Scalars) -> Tensor:
    """The number of one leaf in a reduction."""
    here = scalars.kind_of(xs)
    return f(*(lift(xs, here.wide) if here.lifted else xs), **here.scalars)


def combined(f: Callable[..., Tensor], combine: Callable[..., Tensor], rows: list[Any], scalars: Scalars) -> Tensor:
    """The result of a reduction; a row is the corresponding leaves of all trees."""
    if any_sharded([xs[0] for xs in rows]):
        parts = torch.cat([x.reshape(-1) for x in numbers_of(lambda xs: part_of(f, xs, scalars), rows)]).unbind()
    else:
        parts = [part_of(f, xs, scalars) for xs in rows]
    return of_all(parts, combine, scalars)


def of_all(parts: Sequence[Tensor], combine: Callable[..., Tensor], scalars: Scalars) -> Tensor:
    """The result of a reduction, from the numbers of all leaves."""
    dtype = functools.reduce(torch.promote_types, [p.dtype for p in parts])
    stacked = torch.stack([p.to(parts[0].device, dtype) for p in parts])
    return combine(stacked, **scalars.kind_of([stacked]).scalars)
