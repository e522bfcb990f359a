"""Checkpoints without pickle: any tree of tensors as `{path: tensor}`, and as one file that is whole or not there.

A tree holds all that a run goes on from: params, state, the key of its noise, the step as a () tensor.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from optfx.tree import Tree, from_dict, map, to_dict


def state_dict(tree: Tree) -> dict[str, Tensor]:
    """A copy of the leaves of a tree by path: for `torch.save`, safetensors or `torch.distributed.checkpoint`.

    Args:
        tree: of tensors; those of a fused, a vmapped or a sharded optimizer too.

    Returns:
        `{path: tensor}`: detached, contiguous, each in memory of its own; a sharded tensor stays one.

    Raises:
        ValueError: two leaves with one path, naming it.
        TypeError: a leaf that is no tensor, naming its path.

    Example:
        >>> import torch, optfx
        >>> from optfx import interop
        >>> state = optfx.adam(0.1).init({"w": torch.zeros(2)})
        >>> list(interop.state_dict(state))
        ['0.count', '0.mu.w', '0.nu.w', '1.count']
    """
    flat = to_dict(tree)
    for path, leaf in flat.items():
        if not isinstance(leaf, Tensor):
            raise TypeError(f"the leaf {path!r} is a {type(leaf).__name__}, expected a tensor: torch.tensor({leaf!r})")
    return {path: _copy(leaf) for path, leaf in flat.items()}


def load_state_dict(template: Tree, flat: Mapping[str, Tensor]) -> Tree:
    """The tree that `state_dict` was made of.

    Args:
        template: a tree like it, such as `tx.init(params)`, whose values do not matter.
        flat: `{path: tensor}`.

    Returns:
        A tree like `template` with copies of the tensors of `flat`, on the devices of `template`.

    Raises:
        ValueError: listing each path that is missing, unexpected, misshapen or of another dtype.

    Example:
        >>> import torch, optfx
        >>> from optfx import interop
        >>> tx, params = optfx.adam(0.1), {"w": torch.zeros(2)}
        >>> flat = interop.state_dict(tx.init(params))
        >>> state = interop.load_state_dict(tx.init(params), flat)
    """
    return map(lambda old, new: _copy(new.to(old.device)), template, from_dict(template, flat))


def _copy(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.contiguous_format)


def save(tree: Tree, path: str | os.PathLike[str]) -> None:
    """Write a tree to a file, which at any moment is the last one written whole, or not there.

    It is written beside its place, as `<path>.part`, and moved there when all of it is on the disk. One process may
    write to a path at a time.

    Args:
        tree: of tensors.
        path: of a file in a folder that exists.

    Raises:
        ValueError, TypeError: see `state_dict`.
        OSError: the file cannot be written; what was there is still there.

    Example:
        >>> import tempfile, torch
        >>> from optfx import interop
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     interop.save({"step": torch.tensor(7)}, f"{folder}/run.pt")
        ...     interop.load(f"{folder}/run.pt", {"step": torch.tensor(0)})
        {'step': tensor(7)}
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    flat = state_dict(tree)
    with part.open("wb") as file:
        torch.save(flat, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is on the disk only when the folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: str | os.PathLike[str], template: Tree) -> Tree:
    """Read a tree that `save` wrote. Nothing in the file is executed.

    Args:
        path: of the file.
        template: a tree like the one saved, whose values do not matter.

    Returns:
        A tree like `template`, on its devices.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is none that `save` wrote, or its tree does not fit, listing what differs.
    """
    try:
        flat = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{os.fspath(path)} is no checkpoint of optfx, or not all of one: {error}") from error
    if not isinstance(flat, dict) or not all(isinstance(x, Tensor) for x in flat.values()):
        raise ValueError(f"{os.fspath(path)} holds no dict of tensors")
    try:
        return load_state_dict(template, flat)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
