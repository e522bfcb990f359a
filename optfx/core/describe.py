"""An optimizer as a table for people: its parts in order, the leaves that each sees, and what its state takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.core import select
from optfx.core.foreign import as_transform
from optfx.core.hyper import join
from optfx.core.transform import GradientTransformation, check_params
from optfx.core.wrapper import Wrapper
from optfx.tree import Tree
from optfx.tree.record import code_of, show

SHOWN = 6  # names of leaves in a line, at most


@dataclasses.dataclass
class Part:
    """One transform of an optimizer.

    Attributes:
        path: as in `hyperparams`.
        depth: how many transforms it is inside.
        code: the transform in brief, without those that it holds.
        needs: the extra arguments that it needs.
        sees: the dtypes of the parameters that it is given, by path.
        takes: the paths of those that its mask selects; all that it sees if it has none.
        state_bytes: of its state, those of the transforms inside included.
    """

    path: str
    depth: int
    code: str
    needs: tuple[str, ...]
    sees: dict[str, torch.dtype] = dataclasses.field(default_factory=dict)
    takes: tuple[str, ...] = ()
    state_bytes: int = 0


@dataclasses.dataclass(frozen=True, repr=False)
class Description:
    """What `describe` returns. Its text is a table.

    Attributes:
        parts: the transforms in order; the first is the whole optimizer.
    """

    parts: tuple[Part, ...]

    def __repr__(self) -> str:
        above, everything = [self.parts[0]], len(self.parts[0].sees)
        lines = [f"{'state':>9}  {'leaves':>10}"]
        for part in self.parts:
            above[part.depth :] = [part]
            outer = above[max(part.depth - 1, 0)]
            n = f"{len(part.takes)} of {everything}" if len(part.takes) < everything else str(everything)
            name = "" if part.path == outer.path else f"{part.path}  "
            words = "".join(_remarks(part, outer))
            lines.append(f"{_size(part.state_bytes):>9}  {n:>10}  {'  ' * part.depth}{name}{part.code}{words}")
        return "\n".join(lines)


def describe(tx: Any, params: Tree) -> Description:
    """An optimizer as a table: its parts, the bytes of their states, and the leaves that each sees or its mask takes.

    Nothing is computed, and no memory is taken: states are made on the meta device. The state of a part includes that
    of the parts inside it. Leaves are named where they are others than those of the part around it.

    Args:
        tx: an optimizer or any other transform.
        params: tree of floating or complex tensors.

    Returns:
        A `Description`: `print` it, or read its `parts`.

    Raises:
        TypeError: what is no transform; a leaf that is not a floating or complex tensor, naming its path.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(0.1, mask=optfx.select.ndim(min=2)))
        >>> print(optfx.describe(tx, {"w": torch.zeros(3, 2), "b": torch.zeros(2)}))
            state      leaves
            104 B           2  chain
             16 B           2    0  clip_by_global_norm(max_norm=1.0)
             88 B           2    1  chain
             72 B           2      1.0  scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0)
              8 B      1 of 2      1.1  add_decayed_weights(weight_decay=0.0001, mask=ndim(min=2)): w
              8 B           2      1.2  scale_by_learning_rate(learning_rate=0.1)
    """
    check_params(params)
    parts: list[Part] = []
    _watched(as_transform(tx), "", 0, parts).begin(tree.map(_without_memory, params))
    return Description(tuple(parts))


def _without_memory(p: Tensor) -> Tensor:
    return p.detach().to("meta")


@tree.record
class _seen(Wrapper):
    """The same transform, which tells what parameters it is given and what state it makes of them."""

    inner: GradientTransformation
    note: Callable[[Tree, Tree], None]

    def states(self, state: Tree) -> dict[str, Tree]:
        return {"": state}

    def begin(self, params: Tree) -> Tree:
        state = self.inner.begin(params)
        self.note(params, state)
        return state


def _watched(tx: GradientTransformation, path: str, depth: int, parts: list[Part]) -> _seen:
    """The same transform, in which every part adds itself to `parts`, and notes there what it is given."""
    part = Part(path, depth, _code(tx), tx.needs)
    parts.append(part)

    def note(params: Tree, state: Tree) -> None:
        part.sees = dict(zip(tree.paths(params), [p.dtype for p in tree.leaves(params)], strict=True))
        part.takes = tuple(_taken(tx, params))
        part.state_bytes = sum(x.nbytes for x in tree.leaves(state) if isinstance(x, Tensor))

    if isinstance(tx, Wrapper):
        inside = tx.inside().items()
        tx = tx.with_inside({name: _watched(inner, join(path, name), depth + 1, parts) for name, inner in inside})
    return _seen(tx, note)


def _taken(tx: GradientTransformation, params: Tree) -> Iterator[str]:
    """The paths of the leaves that its own mask selects; those of a wrapper are for the transform inside."""
    mask = None if isinstance(tx, Wrapper) else getattr(tx, "mask", None)
    names = tree.paths(params)
    keep = [True] * len(names) if mask is None else select.resolve(mask, params, bool, type(tx).__name__)
    return (name for name, kept in zip(names, keep, strict=True) if kept)


def _code(tx: GradientTransformation) -> str:
    code = code_of(tx, brief=True)
    if not isinstance(tx, Wrapper) or code is None:
        return show(tx, brief=True)
    held = ("", *[f"{field}=" for field in tx.fields()])
    items = ", ".join(name + show(x, brief=True) for name, x in code.items if name not in held)
    return f"{type(tx).__name__}({items})" if items else type(tx).__name__


def _remarks(part: Part, outer: Part) -> Iterator[str]:
    """What is to be said of a part inside another: other dtypes, what it needs, other leaves."""
    if other := {str(x).removeprefix("torch.") for name, x in part.sees.items() if x != outer.sees.get(name, x)}:
        yield f", in {', '.join(sorted(other))}"
    if part.needs:
        yield f", needs {', '.join(part.needs)}"
    if part.takes != tuple(outer.sees):
        more = f", and {len(part.takes) - SHOWN} more" if len(part.takes) > SHOWN else ""
        yield f": {', '.join(part.takes[:SHOWN]) or 'none'}{more}"


def _size(n: float) -> str:
    units = ["B", "kB", "MB", "GB"]
    while n >= 1000 and len(units) > 1:
        n, units = n / 1000, units[1:]
    return f"{n:.4g} {units[0]}"
