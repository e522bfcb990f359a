"""What a step is given: gradients and extra arguments, and the kinds of them that it is compiled for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import kind_of
from optfx.core import GradientTransformation
from optfx.tree import flatten
from optfx.tree.sharded import local_of, settled


def plain(x: Tensor) -> Tensor:
    """A tensor as kernels take it: the part that is here, contiguous, and no view that torch has yet to conjugate or
    negate."""
    return local_of(settled(x)).resolve_conj().resolve_neg().contiguous()


def form_of(x: Any) -> Any:
    """What a step is compiled for, of a gradient; one that is not contiguous is copied first."""
    if not isinstance(x, Tensor):
        return None
    try:
        return x.shape, x.dtype, x.device, x.is_contiguous() and not x.is_conj() and not x.is_neg()
    except RuntimeError:  # it is sparse, which is an error elsewhere
        return None


def kinds_of(extra: dict[str, Any], members: Alone) -> list[Any]:
    """What a step is compiled for, of its extra arguments."""
    one = members.one
    return [(name, flatten(x)[1], *(kind_of(one(leaf)) for leaf in flatten(x)[0])) for name, x in extra.items()]


def leaves_of(extra: dict[str, Any]) -> list[Any]:
    return [x for name in extra for x in flatten(extra[name])[0]]


def needed(tx: GradientTransformation) -> set[str]:
    """The extra arguments without which a step is not possible."""
    return {*tx.needs}.union(*(needed(part) for part in tx.inside().values()))


def some_function(*args: Any) -> Any:
    """Stands for a function among the extra arguments, before there is one."""
    raise AssertionError
