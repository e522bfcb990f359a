"""The recipes of `torch_specs` read backwards: from a transform to torch's optimizer and its options.

A recipe is run with a mark in place of each number, and what it makes is compared with the transform, field by field.
Where they agree in everything but the marks, the numbers that stand in their places are the options.

A mark is a NaN with a name. So a recipe must not branch on its numbers, which sweeps forbid anyway. A number may stand
in several places, as the rate of Adafactor does; then it must be the same number, or an equal tensor, in all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from optfx.core import GradientTransformation, is_number
from optfx.interop.torch_specs import SPECS, Options, Recipe, TorchSpec
from optfx.tree.record import is_record


class Mark(float):
    """Stands for the number of an option."""

    name: str
    negative = False

    def __neg__(self) -> Mark:
        made = mark(self.name)
        made.negative = not self.negative
        return made

    def __ge__(self, other: Any) -> bool:  # it may stand for any number, so it is within all limits
        return True

    __le__ = __ge__


def mark(name: str) -> Mark:
    made = Mark("nan")
    made.name = name
    return made


def read(tx: GradientTransformation) -> tuple[TorchSpec, Options] | None:
    """The optimizer of torch that a transform is, and its options; None where it is none."""
    for spec in SPECS.values():
        for recipe in spec.recipes:
            for options in _variants(spec, recipe):
                found: dict[str, Any] = {}
                if _fits(spec.make(options), tx, found):
                    return spec, {name: _filled(x, found) for name, x in options.items()}
    return None


def _variants(spec: TorchSpec, recipe: Recipe) -> Iterator[Options]:
    """The options that lead to transforms of different structure, with marks for numbers."""
    choices = {name: list(_values(name, spec.defaults[name], absent)) for name, absent in recipe.options.items()}
    if "maximize" in spec.defaults:
        choices["maximize"] = [False, True]
    for values in itertools.product(*choices.values()):
        yield recipe.when | dict(zip(choices, values, strict=True))


def _values(name: str, default: Any, absent: bool) -> Iterator[Any]:
    """What may stand for an option: a flag has two values, and a number that may be absent is also 0."""
    if isinstance(default, bool):
        yield from (False, True)
    elif isinstance(default, tuple):
        marks = [mark(f"{name}.{i}") for i in range(len(default))]
        yield from itertools.product(*([None, m] if x is None else [m] for m, x in zip(marks, default, strict=True)))
    else:
        yield from (0, mark(name)) if absent else (mark(name),)


def _fits(pattern: Any, x: Any, found: dict[str, Any]) -> bool:
    """Whether `x` is the pattern with numbers in place of its marks; they are put into `found`."""
    if isinstance(pattern, Mark):
        if not is_number(x):
            return False
        x = -x if pattern.negative else x
        return _same(found.setdefault(pattern.name, x), x)
    if is_record(pattern):
        names = [field.name for field in dataclasses.fields(pattern)]
        return type(x) is type(pattern) and all(_fits(getattr(pattern, n), getattr(x, n), found) for n in names)
    if isinstance(pattern, (tuple, list)):
        return (
            type(x) is type(pattern)
            and len(x) == len(pattern)
            and all(_fits(p, y, found) for p, y in zip(pattern, x, strict=True))
        )
    return _same(pattern, x)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and bool((a == b).all())
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _filled(x: Any, found: dict[str, Any]) -> Any:
    """An option with numbers in place of its marks."""
    if isinstance(x, tuple):
        return tuple(_filled(part, found) for part in x)
    return found[x.name] if isinstance(x, Mark) else x
