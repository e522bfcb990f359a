"""Keys and noise for the leaves of a tree, which depend on the paths of the leaves."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import vmap

from optfx.random.keys import check_key, threefry
from optfx.random.samplers import Sampler, normal
from optfx.tree import Tree, leaves, paths, unflatten_like
from optfx.tree.sharded import spread_like

_TOGETHER = 2**22  # elements drawn at once, which bounds the memory of the intermediate integers


def _hash(path: str) -> int:
    """The 64-bit FNV-1a hash of a path in UTF-8, as a signed number. Written out, so that it compiles."""
    x, name = 0xCBF29CE484222325, path.encode()
    for i in range(len(name)):
        x = (x ^ name[i]) * 0x100000001B3 % 2**64
    return x - 2**64 if x >= 2**63 else x


def _leaf_keys(key: Tensor, names: list[str]) -> tuple[Tensor, ...]:
    check_key(key)
    if len(set(names)) < len(names):
        shared = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two leaves share a path, and would share their noise: {shared}")
    hashes = torch.tensor([_hash(name) for name in names], dtype=torch.int64, device=key.device)
    return torch.stack(threefry(key, hashes), dim=-1).unbind()


def split_like(key: Tensor, tree: Tree) -> Tree:
    """A key for each leaf, from its path: `fold_in(key, hash(path))`, FNV-1a in 64 bits.

    Neither the position of a leaf nor the rest of the tree matters: masking some leaves, or adding a layer, does not
    change the keys of the others. Paths are those of `optfx.tree.paths`.

    Args:
        key: (2,) int64.
        tree: any tree.

    Returns:
        A tree of keys like `tree`, (2,) int64 each, on the device of `key`.

    Raises:
        ValueError: two leaves share a path (a dict key has a dot), or the key is not (2,).
        TypeError: the key is not an int64 tensor.

    Example:
        >>> from optfx import random
        >>> both = random.split_like(random.key(0), {"w": 1, "b": 2})
        >>> one = random.split_like(random.key(0), {"w": 1})
        >>> bool((both["w"] == one["w"]).all()), bool((both["w"] == both["b"]).any())
        (True, False)
    """
    return unflatten_like(tree, _leaf_keys(key, paths(tree)))


def random_like(key: Tensor, tree: Tree, sampler: Sampler = normal) -> Tree:
    """Noise for each leaf of a tree, with its shape, dtype and device, from its own key (see `split_like`).

    Args:
        key: (2,) int64.
        tree: a tree of tensors.
        sampler: `(key, shape, dtype) -> tensor`, such as `normal`, `rademacher` or `uniform`.

    Returns:
        A tree like `tree`, sharded where it is. Under vmap, an unbatched key gives every member the same noise: give
        each member its own key.

    Raises:
        TypeError: a leaf that is not a tensor, or has a dtype that the sampler lacks, naming its path.
        ValueError: two leaves share a path, or the key is not (2,).

    Example:
        >>> import torch
        >>> from optfx import random
        >>> noise = random.random_like(random.key(0), {"w": torch.zeros(2, 2), "b": torch.zeros(3).bfloat16()})
        >>> noise["w"].shape, noise["b"].dtype
        (torch.Size([2, 2]), torch.bfloat16)
    """
    names, values = paths(tree), leaves(tree)
    for name, leaf in zip(names, values, strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"the leaf {name!r} is a {type(leaf).__name__}, expected a tensor")
    keys = _leaf_keys(key, names)
    noise = list(values)
    # A hundred operations per leaf are slow to launch and slower to compile, so similar leaves are drawn together.
    kinds = [(tuple(leaf.shape), leaf.dtype, leaf.device) for leaf in values]
    for kind in dict.fromkeys(kinds):
        shape, dtype, device = kind
        members = [i for i, other in enumerate(kinds) if other == kind]
        draw = vmap(sampler, (0, None, None), chunk_size=max(1, _TOGETHER // max(1, math.prod(shape))))
        try:
            drawn = draw(torch.stack([keys[i] for i in members]).to(device), shape, dtype)
        except TypeError as error:
            raise TypeError(f"the leaf {names[members[0]]!r}: {error}") from error
        for i, value in zip(members, drawn.unbind(), strict=True):
            noise[i] = value
    return unflatten_like(tree, [spread_like(leaf, x) for leaf, x in zip(values, noise, strict=True)])
