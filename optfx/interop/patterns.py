"""The forms of `torch.optim`'s optimizers read backwards: from a chain to the options that make it.

A form is made of marks instead of numbers, and laid beside the chain: where they are the same but for the marks, what
stands in their places are the numbers.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from optfx.core import GradientTransformation, is_number
from optfx.interop.forms import BOTH, FORMS, MARKED, Form, Options, make
from optfx.tree.record import is_record


class Mark(float):
    """Stands for a number of an option while a form is read backwards."""

    name: str

    def __neg__(self) -> Mark:
        return mark(f"-{self.name}")


def mark(name: str) -> Mark:
    made = Mark("nan")
    made.name = name
    return made


def read(tx: GradientTransformation) -> tuple[Form, Options] | None:
    """The optimizer of torch that a chain is, and its options; None where it is none."""
    for form in FORMS.values():
        for pattern in _patterns(form):
            try:
                chain = make(form, _gathered(pattern))
            except ValueError:  # options that do not go together
                continue
            found: Options = {}
            marks = {v.name for v in pattern.values() if isinstance(v, Mark)}
            if _fits(chain, tx, found):
                numbers = {k.removeprefix("-"): -v if k.startswith("-") else v for k, v in found.items()}
                if numbers.keys() == marks:
                    return form, _gathered(pattern | numbers)
    return None


def _patterns(form: Form) -> Iterator[Options]:
    """The options of each form that an optimizer has, with marks for its numbers; tuples in parts."""
    choices = form.choices
    if "maximize" in inspect.signature(form.optimizer).parameters:
        choices = choices | {"maximize": BOTH}
    for values in itertools.product(*choices.values()):
        options = {k: mark(k) if v is MARKED else v for k, v in zip(choices, values, strict=True)}
        yield options | {name: mark(name) for name in form.numbers}


def _gathered(options: Options) -> Options:
    """`{"a.0": x, "a.1": y}` as `{"a": (x, y)}`."""
    whole = {k: v for k, v in options.items() if "." not in k}
    for k in sorted(k for k in options if "." in k):
        name = k.partition(".")[0]
        whole[name] = (*whole.get(name, ()), options[k])
    return whole


def _fits(pattern: Any, x: Any, found: Options) -> bool:
    """Whether `x` is what the pattern is, with numbers where that has marks; they are put into `found`."""
    if isinstance(pattern, Mark):
        return is_number(x) and _same(found.setdefault(pattern.name, x), x)
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
