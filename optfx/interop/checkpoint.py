"""Checkpoints: any tree of tensors as `{path: tensor}`, and as one file that is whole or not there at all.

A checkpoint holds the leaves of a tree by their paths, and nothing of its structure: that is in the code, which makes a
template (`tx.init(params)`) to load into. So there is no pickle, no allowlist of classes, and a file written before a
class was renamed still loads. Parameters, the state of the optimizer, the number of the step and the keys of random
numbers go into one tree, so that they are of one moment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optfx import files, tree
from optfx.tree import Tree
from optfx.tree.sharded import is_sharded


def state_dict(state: Tree, device: torch.device | str | None = None) -> dict[str, Tensor]:
    """The leaves of a tree by path, copied: as `torch.save`, safetensors and `torch.distributed.checkpoint` want them.

    Every tensor is detached, contiguous and has memory of its own, so that what is done to the tree afterwards, in
    place too, does not reach it. A `DTensor` stays one, with a copy of this rank's part.

    Args:
        state: a tree of tensors: the state of an optimizer, or a dict of everything that a run needs to go on.
        device: where the copies are made; None for where the leaves are.

    Returns:
        `{path: tensor}`, in the order of the leaves.

    Raises:
        TypeError: a leaf that is no tensor, naming its path.
        ValueError: two leaves with one path (`{"a.b": {"c": x}}` beside `{"a": {"b.c": y}}`).

    Example:
        >>> import torch, optfx
        >>> state = optfx.adam(0.1).init({"w": torch.zeros(2)})
        >>> optfx.interop.state_dict({"state": state, "step": torch.tensor(3)})
        {'state.0.count': tensor(0), 'state.0.mu.w': tensor([0., 0.]), 'state.0.nu.w': tensor([0., 0.]),
         'state.1.count': tensor(0), 'step': tensor(3)}
    """
    return {path: _copy(x, device) for path, x in _leaves(state).items()}


def load_state_dict(template: Tree, flat: Mapping[str, Tensor]) -> Tree:
    """The tree like `template` whose leaves are those of `flat`, the inverse of `state_dict`.

    Every value is copied to where the template's leaf is. The part of this rank is taken, without communication, where
    the template has a `DTensor` and `flat` the whole tensor. Nothing is written into the template.

    Args:
        template: a tree with the wanted structure, shapes, dtypes and devices, such as `tx.init(params)`.
        flat: `{path: tensor}`, what `state_dict` gave.

    Raises:
        TypeError: a leaf of the template that is no tensor, naming its path.
        ValueError: listing every path that is missing, unexpected, misshapen, of another dtype or sharded otherwise.

    Example:
        >>> import torch, optfx
        >>> tx, params = optfx.adam(0.1), {"w": torch.zeros(2)}
        >>> _, state = tx.update({"w": torch.ones(2)}, tx.init(params))
        >>> flat = optfx.interop.state_dict(state)
        >>> optfx.interop.load_state_dict(tx.init(params), flat)[0].mu
        {'w': tensor([0.1000, 0.1000])}
    """
    expected = _leaves(template)
    values = tree.to_dict(tree.from_dict(template, flat))
    faults = [
        f"{path}: {_layout(values[path])}, expected {_layout(like)}"
        for path, like in expected.items()
        if is_sharded(values[path]) and _layout(values[path]) != _layout(like)
    ]
    if faults:
        raise ValueError("the tensors do not lie as those of the tree:\n  " + "\n  ".join(faults))
    return tree.unflatten_like(template, [_bring(values[path], like) for path, like in expected.items()])


def save(state: Tree, path: str | os.PathLike[str]) -> None:
    """Write a tree of tensors into one file, which replaces the one that is there in one moment.

    A run that is killed at any time leaves the old file whole, or the new one: the last complete checkpoint is always
    at `path`, or none. `load` reads it, and so does `torch.load`: it holds what `state_dict` gives, on the CPU. Folders
    are made. One process writes a file.

    Args:
        state: a tree of tensors (see `state_dict`).
        path: the file.

    Raises:
        TypeError: a leaf that is no tensor, or one that is sharded over processes, naming its path.
        ValueError: two leaves with one path.

    Example:
        >>> import tempfile, torch, optfx
        >>> path = tempfile.mkdtemp() + "/last.pt"
        >>> optfx.interop.save({"params": {"w": torch.ones(2)}, "step": torch.tensor(3)}, path)
        >>> torch.load(path)
        {'params.w': tensor([1., 1.]), 'step': tensor(3)}
    """
    sharded = [name for name, x in _leaves(state).items() if is_sharded(x)]
    if sharded:
        raise TypeError(
            f"save writes one file from one process, and {sharded[0]!r} is a DTensor: "
            "give state_dict(...) to torch.distributed.checkpoint"
        )
    files.write(path, state_dict(state, device="cpu"))


def load(template: Tree, path: str | os.PathLike[str]) -> Tree:
    """The tree that `save` wrote. Nothing in the file is run, and its checksums are compared.

    Args:
        template: a tree with the wanted structure, shapes, dtypes and devices (see `load_state_dict`).
        path: the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file that is cut short, changed or foreign, or does not fit the template; it names the file, and
            lists the paths.

    Example:
        >>> import tempfile, torch, optfx
        >>> path = tempfile.mkdtemp() + "/last.pt"
        >>> optfx.interop.save({"w": torch.ones(2)}, path)
        >>> optfx.interop.load({"w": torch.zeros(2)}, path)
        {'w': tensor([1., 1.])}
    """
    flat = files.read(path, mmap=True)  # copied anyhow
    if not isinstance(flat, dict):
        raise ValueError(f"{os.fspath(path)} holds a {type(flat).__name__}, expected tensors by path")
    try:
        return load_state_dict(template, flat)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _leaves(state: Tree) -> dict[str, Tensor]:
    flat = tree.to_dict(state)
    for path, x in flat.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"the leaf at {path!r} is a {type(x).__name__}, expected a tensor: {x!r}")
        if x.is_meta:
            raise ValueError(f"the leaf at {path!r} is on meta, where tensors have no values")
    return flat


def _copy(x: Tensor, device: torch.device | str | None) -> Tensor:
    return x.detach().to(device=device, copy=True, memory_format=torch.contiguous_format)


def _bring(value: Tensor, like: Any) -> Tensor:
    """A copy where `like` is: on its device, and of a whole tensor the part that this rank has of it."""
    if is_sharded(like) and not is_sharded(value):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.detach(), like.device_mesh, like.placements, src_data_rank=None)
    return _copy(value, like.device)


def _layout(x: Any) -> str:
    return f"a DTensor {x.placements} on {x.device_mesh}" if is_sharded(x) else "a whole tensor"
