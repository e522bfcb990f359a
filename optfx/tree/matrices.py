"""The verb for matrices: one call for all leaves of one shape, in a batch.

A matrix is the last two dimensions of a leaf; those before are a batch. Leaves that agree in shape, dtype and device
are stacked, so that a product of matrices is one batched product, however many leaves there are. Where leaves are
sharded, each process takes its share of those of one shape, and results are exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.tree.nodes import Tree, leaves, paths, unflatten
from optfx.tree.recording import recorder
from optfx.tree.sharded import any_sharded, mesh_of, run_on_shares
from optfx.tree.threads import side_by_side
from optfx.tree.verbs import Scalars, columns_of, name_of, run_leaf
from optfx.tree.words import LeafError

Row = Sequence[Tensor]  # the corresponding leaves of all trees

LARGE = 2**18  # elements from which a leaf keeps a CPU busy alone: to stack it would cost more than it saves
HUGE = 2**20  # and from which it keeps a thread busy for so long that others need not help
TILES = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()  # AMX, which multiplies bfloat16 and wants more


def matrixwise(
    f: Callable[..., Any], *trees: Tree, outs: int = 1, like: Sequence[int] | None = None, **scalars: Any
) -> Any:
    """Map a function of matrices: their products, their singular values, their rows and columns.

    `f` sees a matrix, (rows, cols), or a batch of them, (n, rows, cols): it works on the last two dimensions. It is
    called once for all leaves of one shape, dtype and device, with their matrices stacked; on a CPU it is called for
    large ones one by one, side by side in threads, unless it multiplies them in bfloat16 and the CPU has tiles for
    that.

    Args:
        f: as for `elementwise`, but of matrices with or without a dimension before them.
        *trees: trees of the same structure. The shapes of corresponding leaves agree up to the last two dimensions.
        outs: how many trees to return.
        like: for each of them the tree whose shapes and dtypes it has, by number; None for output k those of tree k.
        **scalars: floats, () tensors, `Share`s, or structure (flags). A `dtype` is the one that `f` computes in, None
            for that of the leaves.

    Returns:
        A tree like `trees[0]`, or a tuple of `outs` of them.

    Raises:
        ValueError: a leaf with fewer than two dimensions; trees that differ in structure, device or batch. The message
            names the path. A scalar that is not ().
        TypeError: a leaf cannot hold its result, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> def square(x):
        ...     return x @ x
        >>> tree.matrixwise(square, {"w": 2 * torch.eye(2), "v": 3 * torch.eye(2)})["v"]
        tensor([[9., 0.],
                [0., 9.]])
    """
    columns, structure = columns_of(f, trees, same_shapes=False)
    places, reader = tuple(range(outs) if like is None else like), recorder()
    here = Scalars(f, scalars, as_tensors=reader is None and not torch.compiler.is_compiling())
    check_matrices(name_of(f), *trees)
    rows: list[Row] = list(zip(*columns, strict=True))
    results: list[Any] = [None] * len(rows)
    for group in alike(rows):
        together = [rows[i] for i in group]
        try:
            found = (run_anywhere if reader is None else reader.run_matrices)(f, together, here, places)
        except LeafError as error:
            raise TypeError(f"{name_of(f)} at {paths(trees[0])[group[0]]!r}: {error}") from None
        for i, ys in zip(group, found, strict=True):
            results[i] = ys
    new = [unflatten(structure, column) for column in (zip(*results, strict=True) if results else [()] * outs)]
    return new[0] if outs == 1 else tuple(new)


def check_matrices(who: str, *trees: Tree) -> None:
    """Raise on leaves that `matrixwise` could not take.

    Args:
        who: whose error it is.
        *trees: trees of the same structure.

    Raises:
        ValueError: a leaf with fewer than two dimensions, or with others before the last two than the corresponding
            leaf of the first tree. The message names the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.check_matrices("muon", {"b": torch.zeros(3)})
        Traceback (most recent call last):
        ValueError: muon: the parameter at 'b' of shape (3,) is not a matrix
    """
    for i, row in enumerate(zip(*map(leaves, trees), strict=True)):
        for k, x in enumerate(row):
            if x.ndim < 2 or x.shape[:-2] != row[0].shape[:-2]:
                words = "is not a matrix" if x.ndim < 2 else f"is not a batch like {tuple(row[0].shape)} of argument 0"
                argument = f"argument {k}" if len(trees) > 1 else "the parameter"
                raise ValueError(f"{who}: {argument} at {paths(trees[k])[i]!r} of shape {tuple(x.shape)} {words}")


def alike(rows: Sequence[Row]) -> list[list[int]]:
    """The numbers of those rows that agree in shapes, dtypes, devices and meshes, together."""
    kinds: list[Any] = []  # not a dict: the sizes may be symbols of a compiler
    groups: list[list[int]] = []
    for i, row in enumerate(rows):
        kind = [(x.shape, x.dtype, x.device, mesh_of(x)) for x in row]
        if kind in kinds:
            groups[kinds.index(kind)].append(i)
        else:
            kinds.append(kind)
            groups.append([i])
    return groups


def run_anywhere(
    f: Callable[..., Any], rows: Sequence[Row], scalars: Scalars, like: Sequence[int]
) -> list[list[Tensor]]:
    """Run a function of matrices once, for corresponding leaves that are alike from row to row and may be sharded."""
    if not any_sharded([row[0] for row in rows]):
        return run_matrices(f, rows, scalars, like)
    return run_on_shares(lambda some: run_matrices(f, some, scalars, like), rows, like)


def run_matrices(
    f: Callable[..., Any], rows: Sequence[Row], scalars: Scalars, like: Sequence[int]
) -> list[list[Tensor]]:
    """Run a function of matrices once, for corresponding leaves that are alike from row to row."""
    x = rows[0][0]
    tiled = TILES and (scalars.values.get("dtype") or x.dtype) == torch.bfloat16
    if len(rows) > 1 and x.device.type == "cpu" and not tiled and (most := max(x.numel() for x in rows[0])) >= LARGE:

        def alone(row: Row) -> list[Tensor]:
            return run_matrices(f, [row], scalars, like)[0]

        return side_by_side(alone, rows) if most >= HUGE else [alone(row) for row in rows]
    before = x.shape[:-2]
    ys = run_leaf(f, tuple(map(batch, zip(*rows, strict=True))), scalars, len(like), like)
    # a state whose strides change would be compiled again, an empty one too
    ys = [y.contiguous() if y.numel() else torch.zeros(y.shape, dtype=y.dtype, device=y.device) for y in ys]
    if len(rows) == 1:
        return [[y.reshape(*before, *y.shape[-2:]) for y in ys]]
    parts = [y.reshape(len(rows), *before, *y.shape[-2:]).unbind() for y in ys]
    return [list(row) for row in zip(*parts, strict=True)]


def batch(column: Sequence[Tensor]) -> Tensor:
    """Leaves of one shape as (n, rows, cols); a single matrix as it is."""
    x = column[0] if len(column) == 1 else torch.stack(tuple(column))
    return x if x.ndim == 2 else x.flatten(0, -3)
