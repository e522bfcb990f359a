"""Where to find what goes by another name in `torch.optim` and in optax: one table for errors and for the docs.

`NAMES` has what users look for in `optfx`, `ARGUMENTS` what they pass to optimizers, transforms and schedules.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from optfx.hints.arguments import ARGUMENTS
from optfx.hints.names import NAMES

P = ParamSpec("P")
T = TypeVar("T")


def for_name(name: str, known: Iterable[str], where: str = "optfx") -> str:
    """The error about a name that `optfx`, or a module of it, does not have."""
    for key in (name, name.removeprefix("tree_")):  # optax.tree_utils.tree_add is optax.tree.add
        if key in NAMES:
            return f"{where} has no {name!r}; {NAMES[key]}"
    near = difflib.get_close_matches(name, list(known), 3)
    return f"module {where!r} has no attribute {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def for_argument(name: str, known: Iterable[str]) -> str:
    """What is said about an argument that a function does not have."""
    known, hint = list(known), ARGUMENTS.get(name, ())
    if isinstance(hint, str):
        return hint
    here = [words for words in hint if set(words.split(" and ")) <= set(known)]
    here += difflib.get_close_matches(name, known, 1)
    return f"here it is {here[0]}" if here else f"it takes {', '.join(known)}"


def hinted(f: Callable[P, T]) -> Callable[P, T]:
    """`f`, with an error for an unknown argument that says what it is called here."""
    parameters = inspect.signature(f).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return f
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    who = f.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{who}() got an unexpected keyword argument {name!r}: {for_argument(name, known)}")
        return f(*args, **kwargs)

    return checked
