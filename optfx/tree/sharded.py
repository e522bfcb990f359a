"""Leaves that are sharded over a mesh of devices: `DTensor`s, as `fully_shard` makes them.

An elementwise function runs on the local part of each leaf. A function that sees whole leaves gets them gathered, and
its results are sharded again as the leaves were. Of matrices of one shape, each process works on its share alone. A
reduction computes a number for each local part, and one collective combines the numbers of all leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.tree.recording import recorder
from optfx.tree.words import LeafError

_PLAIN = frozenset((Tensor, torch.nn.Parameter))


class Spread(NamedTuple):
    """How a leaf lies on the processes of a mesh."""

    mesh: Any
    placements: tuple[Any, ...]  # for each dimension of the mesh

    @property
    def shards(self) -> tuple[int, ...]:
        """The dimensions of the mesh along which processes have different parts."""
        return tuple([k for k, p in enumerate(self.placements) if not p.is_replicate()])


def any_sharded(xs: Sequence[Any]) -> bool:
    """Whether any of the leaves is a `DTensor`."""
    return not _PLAIN.issuperset(map(type, xs)) and any(map(is_sharded, xs))


def is_sharded(x: Any) -> bool:
    """Whether a leaf is a `DTensor`."""
    return type(x) not in _PLAIN and hasattr(x, "device_mesh") and hasattr(x, "placements")


def mesh_of(x: Any) -> Any:
    """The mesh that a leaf is sharded over; None if it is plain."""
    return x.device_mesh if is_sharded(x) else None


def spread_of(x: Any) -> Spread | None:
    """How a leaf is spread, without a pending sum; None if it is plain, or one number, which every process has."""
    return _spread(x) if is_sharded(x) and x.ndim else None


def _spread(x: Any) -> Spread:
    return Spread(x.device_mesh, tuple([_whole(p) for p in x.placements]))


def settled(x: Any) -> Any:
    """A leaf without a pending sum."""
    pending = is_sharded(x) and any(p.is_partial() for p in x.placements)
    return x.redistribute(*_spread(x)) if pending else x


def local_of(x: Any) -> Tensor:
    """The memory that this process has of a leaf."""
    if not is_sharded(x):
        return x
    if (noted := recorder()) is not None:
        return noted.part(x)
    local = x._local_tensor  # `to_local` makes a view of each parameter, which takes longer than all else
    return local if type(local) in _PLAIN else local.wait()


def from_local(x: Tensor, spread: Spread | None, shape: torch.Size) -> Tensor:
    """The leaf of which this process has the part `x`."""
    if spread is None:
        return x
    if (noted := recorder()) is not None:
        return noted.from_part(x, spread, shape)
    from torch.distributed.tensor import DTensor

    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(x, spread.mesh, spread.placements, run_check=False, shape=shape, stride=stride)


def local_shape(shape: torch.Size, spread: Spread | None) -> torch.Size:
    """The shape of the part that this process has of a leaf."""
    if spread is None:
        return shape
    from torch.distributed.tensor import empty

    return empty(*shape, device_mesh=spread.mesh, placements=spread.placements).to_local().shape


def laid(x: Any, spread: Spread | None) -> Any:
    """A leaf, spread in a certain way. A plain one is thought to be the same on every process."""
    if is_sharded(x):
        if spread is not None and x.device_mesh == spread.mesh:
            return x if tuple(x.placements) == spread.placements else x.redistribute(*spread)
        x = x.full_tensor()
    if spread is None:
        return x
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(x, *everywhere(spread.mesh), run_check=False).redistribute(*spread)


def _whole(placement: Any) -> Any:
    """A placement without a pending sum."""
    from torch.distributed.tensor import Replicate

    return Replicate() if placement.is_partial() else placement


def check_meshes(xs: Sequence[Any]) -> None:
    """Raise LeafError unless corresponding leaves are all plain, or all on one mesh."""
    for x in xs:
        if is_sharded(x) != is_sharded(xs[0]):
            found, expected = ("a sharded", "a plain") if is_sharded(x) else ("a plain", "a sharded")
            raise LeafError(f"{found} leaf where {expected} one was expected")
        if mesh_of(x) != mesh_of(xs[0]):
            raise LeafError(f"a leaf on the mesh {mesh_of(x)} where one on {mesh_of(xs[0])} was expected")


def everywhere(mesh: Any) -> Spread:
    """The whole leaf on every process."""
    from torch.distributed.tensor import Replicate

    return Spread(mesh, (Replicate(),) * mesh.ndim)


def parts_of(xs: Sequence[Any]) -> tuple[list[Tensor], Any, list[Any]]:
    """The local parts of corresponding leaves, all placed like the first of them without a pending sum.

    Returns:
        The parts, the mesh, and the placements.

    Raises:
        LeafError: some leaves are sharded and others plain, or they are on different meshes.
    """
    mesh = xs[0].device_mesh
    check_meshes(xs)
    settled = [x for x in xs if not any(p.is_partial() for p in x.placements)]
    placements = [_whole(p) for p in (settled or xs)[0].placements]
    alike = [x if list(x.placements) == placements else x.redistribute(mesh, placements) for x in xs]
    return [x.to_local() for x in alike], mesh, placements


def run_on_parts(run: Callable[[tuple[Tensor, ...]], list[Tensor]], xs: Sequence[Any]) -> list[Tensor]:
    """Call `run` on the local parts of corresponding leaves; result k is placed like leaf k."""
    from torch.distributed.tensor import DTensor

    parts, mesh, placements = parts_of(xs)
    shape, stride = xs[0].shape, xs[0].stride()
    results = []
    for x, y in zip(xs, run(tuple(parts)), strict=False):
        y = DTensor.from_local(y, mesh, placements, run_check=False, shape=shape, stride=stride)
        wanted = [_whole(p) for p in x.placements]
        results.append(y if wanted == placements else y.redistribute(mesh, wanted))
    return results


def run_on_wholes(
    run: Callable[[tuple[Tensor, ...]], list[Tensor]], xs: Sequence[Any], like: Sequence[int] | None = None
) -> list[Tensor]:
    """Call `run` on corresponding leaves, gathered; result k is placed like leaf k, or like leaf `like[k]`."""
    wholes = tuple([x.full_tensor() if is_sharded(x) else x for x in xs])
    places = xs if like is None else [xs[k] for k in like]
    return [spread_like(x, y) for x, y in zip(places, run(wholes), strict=False)]


def run_on_shares(
    run: Callable[[Sequence[Sequence[Tensor]]], list[list[Tensor]]], rows: Sequence[Sequence[Any]], like: Sequence[int]
) -> list[list[Tensor]]:
    """Call `run` on rows of corresponding leaves, gathered: in each process on its share of the rows. Then the results
    are exchanged, once for each tree of them; result k is placed like leaf `like[k]`.

    Args:
        run: rows -> their results.
        rows: alike in shape, dtype and device from row to row.
        like: for each result, the leaf in its row whose shape and dtype it has.
    """
    if len(rows) == 1 or not is_sharded(rows[0][0]):
        return [run_on_wholes(lambda xs: run([xs])[0], row, like) for row in rows]
    from torch.distributed.tensor import DTensor, Shard

    mesh = rows[0][0].device_mesh
    here = 0
    for size, coordinate in zip(mesh.shape, mesh.get_coordinate(), strict=True):
        here = here * size + coordinate
    share = -(-len(rows) // mesh.size())
    wholes = [[x.full_tensor() if is_sharded(x) else x for x in row] for row in rows]
    mine = wholes[here * share : (here + 1) * share]
    found = run(mine) if mine else []
    results = []
    for k, i in enumerate(like):
        x = wholes[0][i]
        local = torch.stack([ys[k] for ys in found]) if found else x.new_zeros((0, *x.shape))
        local = torch.cat([local, local.new_zeros((share - len(local), *x.shape))])  # all shares of one size
        every = DTensor.from_local(local, mesh, [Shard(0)] * mesh.ndim, run_check=False).full_tensor()
        results.append([spread_like(row[i], y) for row, y in zip(rows, every.unbind(), strict=False)])
    return [list(ys) for ys in zip(*results, strict=True)]


def spread_like(x: Any, y: Tensor) -> Tensor:
    """A tensor that every process holds, sharded like the leaf `x`; unchanged if `x` is plain."""
    return laid(y, _spread(x)) if is_sharded(x) else y


def numbers_of(part_of: Callable[[Sequence[Tensor]], Tensor], rows: Sequence[Sequence[Any]]) -> list[Tensor]:
    """The numbers of a reduction, one for each part of each leaf in all processes, as tensors () or (n,).

    Leaves that are sharded in the same way share one collective.

    Args:
        part_of: the leaves in a row -> their number, ().
        rows: the corresponding leaves of the trees, a row for each leaf.
    """
    from torch.distributed.tensor import DTensor, Replicate, Shard

    found: list[Tensor] = []
    layouts: list[tuple[Any, list[bool], list[Tensor]]] = []  # mesh, which of its dimensions shard, numbers
    for xs in rows:
        if not is_sharded(xs[0]):
            found.append(part_of(xs))
            continue
        parts, mesh, placements = parts_of(xs)
        shards = [not p.is_replicate() for p in placements]
        layout = next((known for known in layouts if known[0] == mesh and known[1] == shards), None)
        if layout is None:
            layout = (mesh, shards, [])
            layouts.append(layout)
        layout[2].append(part_of(parts))
    for mesh, shards, numbers in layouts:
        dtype = numbers[0].dtype
        for x in numbers[1:]:
            dtype = torch.promote_types(dtype, x.dtype)
        local = torch.stack([x.to(dtype) for x in numbers])
        placements = [Shard(0) if sharded else Replicate() for sharded in shards]
        found.append(DTensor.from_local(local, mesh, placements, run_check=False).full_tensor())
    return found
