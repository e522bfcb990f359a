"""A state in fewer bits: its leaves are kept as codes between two steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.combinators.codecs import Codec
from optfx.core import GradientTransformation, select
from optfx.tree import Tree, sharded


class StoredState(NamedTuple):
    """The state of `stored`."""

    inner: Tree  # the state of the transform inside, with codes in the place of some leaves
    scales: Tree  # like `inner`, those of the codes, (blocks,), and a Hole where there are none


def fits(codec: Codec, x: Tensor) -> bool:
    """Whether a leaf can be kept by a codec; if it is sharded, by equal rows, so that each process has whole blocks."""
    spread = sharded.spread_of(x)
    if spread is not None:
        parts = math.prod(spread.mesh.size(k) for k in spread.shards)
        if any(not spread.placements[k].is_shard(0) for k in spread.shards) or x.shape[0] % parts:
            return False
    return codec.fits(sharded.local_of(x))


def encoded(codec: Codec, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The codes and the scales of a leaf; of a sharded one each process makes those of its part."""
    spread, (codes, scale) = sharded.spread_of(x), codec.encode(sharded.local_of(x))
    if spread is None:
        return codes, scale
    if scale is not None:
        scale = sharded.from_local(scale, spread, torch.Size([x.numel() // codec.block]))
    return sharded.from_local(codes, spread, torch.Size([len(x), *codes.shape[1:]])), scale


def decoded(codec: Codec, codes: Tensor, scale: Tensor | None) -> Tensor:
    """The leaf again."""
    x = codec.decode(sharded.local_of(codes), None if scale is None else sharded.local_of(scale))
    spread = sharded.spread_of(codes)
    return x if spread is None else sharded.from_local(x, spread, torch.Size([len(codes), *x.shape[1:]]))


@tree.record
class stored(core.Wrapper):
    """Keep the state of a transform in fewer bits. Its leaves are decoded before each step, and encoded after it.

    The transform inside computes in float32 or more, and `fuse` decodes and encodes within its kernels. Counts, numbers
    and complex leaves stay as they are, and so do those that the codec leaves alone: leaves of fewer than 4096 elements
    or of no whole number of blocks. Of a sharded leaf each process keeps its own part; one that is not sharded by equal
    rows stays as it is.

    Args:
        inner: a transform.
        codec: from `optfx.combinators.codecs`: `eight_bits()`, `four_bits()`, `fp8()`, `half()`; or a dict of these by
            the field of the state. Second moments have no sign, which eight and four bits want to know:
            `{"mu": eight_bits(), "nu": eight_bits(signed=False)}`.
        select: the parameters whose state is kept so, computed from params as in `masked`. Embeddings are often left
            out: `~select.path("embedding.*")`.

    Raises:
        ValueError: a mask that does not fit the params, naming the path.

    Reference: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2021, <https://arxiv.org/abs/2110.02861>;
        torchao, `AdamW8bit`, `AdamW4bit`, `AdamWFp8`.

    Example:
        >>> import torch, optfx
        >>> from optfx.combinators.codecs import eight_bits
        >>> codec = {"mu": eight_bits(), "nu": eight_bits(signed=False)}
        >>> tx = optfx.stored(optfx.scale_by_adam(), codec)
        >>> state = tx.init({"w": torch.zeros(64, 64), "b": torch.zeros(64)})
        >>> state.inner.mu["w"].dtype, state.scales.mu["w"].shape, state.inner.mu["b"].dtype
        (torch.uint8, torch.Size([16]), torch.float32)
    """

    inner: GradientTransformation
    codec: Codec | Mapping[str, Codec]
    select: Any = True

    def _codec(self, path: str) -> Codec | None:
        """What a leaf of the state may be kept by."""
        if isinstance(self.codec, Codec):
            return self.codec
        return next((self.codec[name] for name in path.split(".") if name in self.codec), None)

    def _codecs(self, inner: Tree) -> list[Codec | None]:
        """What each leaf of the state is kept by, as its dtype tells."""
        found = [(self._codec(path), x) for path, x in zip(tree.paths(inner), tree.leaves(inner), strict=True)]
        return [codec if codec is not None and x.dtype == codec.dtype else None for codec, x in found]

    def _decoded(self, state: StoredState) -> Tree:
        scales = dict(zip(tree.paths(state.scales), tree.leaves(state.scales), strict=True))
        paths, codecs = tree.paths(state.inner), self._codecs(state.inner)
        leaves = zip(paths, tree.leaves(state.inner), codecs, strict=True)
        new = [x if codec is None else decoded(codec, x, scales.get(path)) for path, x, codec in leaves]
        return tree.unflatten_like(state.inner, new)

    def _encoded(self, inner: Tree, codecs: list[Codec | None]) -> StoredState:
        codes, scales = [], []
        for x, codec in zip(tree.leaves(inner), codecs, strict=True):
            code, scale = (x, None) if codec is None else encoded(codec, x)
            codes.append(code)
            scales.append(tree.Hole() if scale is None else scale)
        return StoredState(tree.unflatten_like(inner, codes), tree.unflatten_like(inner, scales))

    def states(self, state: Any) -> dict[str, Tree]:
        return dict.fromkeys(super().states(state), self._decoded(state))

    def begin(self, params: Tree) -> StoredState:
        inner = self.inner.begin(params)
        chosen = dict(zip(tree.paths(params), select.resolve(self.select, params, bool, "stored"), strict=True))
        found = [(self._codec(path), path, x) for path, x in zip(tree.paths(inner), tree.leaves(inner), strict=True)]
        keep = [c if c is not None and fits(c, x) and _of_param(chosen, path) else None for c, path, x in found]
        return self._encoded(inner, keep)

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        updates, inner = self.inner.run(updates, self._decoded(state), params, extra)
        return updates, self._encoded(inner, self._codecs(state.inner))


def _of_param(chosen: dict[str, bool], path: str) -> bool:
    """Whether the parameter that a leaf of a state belongs to is chosen: that whose path its own ends with."""
    names = path.split(".")
    ends = [".".join(names[k:]) for k in range(len(names) + 1)]
    return next((chosen[end] for end in ends if end in chosen), False)
