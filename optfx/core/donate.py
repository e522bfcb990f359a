"""In-place updates from pure code: the results of a step are written into the buffers of its arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx.tree import Tree, flatten, paths, unflatten
from optfx.tree.record import is_wrapped
from optfx.tree.words import difference


def donate(step: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Wrap a pure step so that its first results are written into the buffers of the donated arguments.

    The first result replaces the first donated argument, and so on. The wrapped step returns the donated arguments (the
    same tensors, with new values), then the other results unchanged. In eager code this avoids keeping two copies;
    inside `torch.compile(donate(step, ...))` the kernels write in place and nothing is copied.

    A donated tensor that cannot be written to (an expanded one, as `vmap(tx.init)` makes) is left alone, and its new
    value is returned instead. A new value that shares storage with a donated tensor (a state that keeps the previous
    params) is copied before anything is written.

    Args:
        step: function of trees that returns a tuple, or one tree if one argument is donated.
        argnums: the positions of the donated arguments, in the order of the results.

    Raises:
        ValueError: a result that differs from its argument in structure, shape, dtype or device, or a tensor that is
            donated twice, naming the path. Nothing has been written then.

    Example:
        >>> import torch, optfx
        >>> params = {"w": torch.ones(2)}
        >>> halve = optfx.donate(lambda params: {"w": params["w"] / 2})
        >>> halve(params)["w"] is params["w"], params
        (True, {'w': tensor([0.5000, 0.5000])})
    """
    argnums = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(step)
    def donated(*args: Any, **kwargs: Any) -> Any:
        given = [args[i] for i in argnums]
        out = step(*args, **kwargs)
        single = len(argnums) == 1 and (type(out) is not tuple or difference(given[0], out) is None)
        results = [out] if single else list(out)
        if len(results) < len(given):
            raise ValueError(f"donate: {len(given)} arguments are donated and the step returns {len(results)} results")
        kept = write(given, results[: len(given)])
        return kept[0] if single else (*kept, *results[len(given) :])

    return donated


def write(given: list[Tree], results: list[Tree]) -> list[Tree]:
    """Write the leaves of `results` into the leaves of `given`, and return `given` (see `donate`)."""
    structures, old, new = [], [], []
    for k, (tree, result) in enumerate(zip(given, results, strict=True)):
        xs, structure = flatten(tree)
        ys, other = flatten(result)
        if structure != other:
            raise ValueError(f"donate: result {k} {difference(tree, result)}")
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            if (x.shape, x.dtype, x.device) != (y.shape, y.dtype, y.device):
                raise ValueError(
                    f"donate: result {k} is {tuple(y.shape)} {y.dtype} on {y.device} at "
                    f"{paths(tree)[i]!r}, expected {tuple(x.shape)} {x.dtype} on {x.device}"
                )
        structures.append((structure, len(xs)))
        old += xs
        new += ys
    fresh = _compiled_values(old, new) if torch.compiler.is_compiling() else _eager_values(given, old, new)
    kept = []
    with torch.no_grad():
        for x, y in zip(old, fresh, strict=True):
            kept.append(x if y is x else x.copy_(y) if _writable(x) else y)
    trees = []
    for structure, n in structures:
        trees.append(unflatten(structure, kept[:n]))
        kept = kept[n:]
    return trees


def _writable(x: Tensor) -> bool:
    return all(stride > 0 or length <= 1 for stride, length in zip(x.stride(), x.shape, strict=True))


def fresh(x: Tensor) -> Tensor:
    """A value equal to `x` in memory of its own, even if the compiler drops clones.

    Inductor 2.13 drops a clone and then reads the buffer after it has been overwritten. An operation that changes
    nothing is fused into the kernel that computes the value, and costs nothing.
    """
    return x.logical_or(x) if x.dtype == torch.bool else x * 1


def _compiled_values(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    # while tracing, it is unknown what shares storage
    return [y if y is x else fresh(y) for x, y in zip(old, new, strict=True)]


def _eager_values(given: list[Tree], old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    owners: dict[Any, int] = {}
    for i, x in enumerate(old):
        where = _storage(x)
        if where is not None and x.numel() and _writable(x):
            first = owners.setdefault((where, x.storage_offset()), i)
            if first != i:
                names = [f"{k}: {path!r}" for k, tree in enumerate(given) for path in paths(tree)]
                raise ValueError(f"donate: one tensor is donated twice, as argument {names[first]} and {names[i]}")
    donated = {_storage(x) for x in old}
    return [
        y if y is x else y.clone() if _storage(y) in donated or _storage(y) is None else y
        for x, y in zip(old, new, strict=True)
    ]


def _storage(x: Tensor) -> int | None:
    """The storage of a tensor; None where it is unknown, as under vmap."""
    if type(x) not in (Tensor, torch.nn.Parameter) or is_wrapped(x):
        return None
    return x.untyped_storage()._cdata
