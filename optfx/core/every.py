"""Periodic work: done at some steps, and free at the others.

| where the step runs | what happens |
|---|---|
| eagerly, or in a fused step | Python looks at the condition, and does the work or does not |
| under `vmap` | the work is done if any member is due, and those that are due take its results |
| under `torch.compile` | `torch.cond`, in the one graph of all steps; with `grad` or `vmap` inside, `torch.where` |

Whether a step is due is a fact of counts. These have no derivative, so looking at them is right under `grad`, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx.core.hyper import Number


def every(k: Number, count: Tensor) -> Tensor:
    """Whether a step is one of every `k`: the first, and then each k-th.

    Args:
        k: how many steps from one time to the next, a number or () tensor.
        count: () int64, the steps taken before this one.

    Returns:
        () bool, for `when_due`.

    Example:
        >>> import torch
        >>> from optfx import core
        >>> [bool(core.every(2, torch.tensor(count))) for count in range(4)]
        [True, False, True, False]
    """
    return count % k == 0


def when_due(due: Tensor, f: Callable[..., Any], *xs: Tensor, outs: int = 1, **options: Any) -> Any:
    """Give tensors new values where a step is due; else they stay as they are, and `f` does not run.

    It stands in leaf functions: the condition is a number that `step` hands to them.

    Args:
        due: () bool, such as `every(k, count)`.
        f: `f(*xs, **options)` -> tensor, or a tuple of `outs` of them: the new values of the first of `xs`, in their
            forms. Between times it is not called.
        *xs: tensors.
        outs: how many of them get new values.
        **options: passed to `f`.

    Returns:
        A tensor, or a tuple of `outs` of them.

    Example:
        >>> import torch
        >>> from optfx import core
        >>> x = torch.tensor(3.0)
        >>> core.when_due(torch.tensor(True), torch.neg, x), core.when_due(torch.tensor(False), torch.neg, x)
        (tensor(-3.), tensor(3.))
    """

    old = xs[:outs]

    def new(*xs: Tensor) -> tuple[Tensor, ...]:
        ys = f(*xs, **options)
        return ys if isinstance(ys, tuple) else (ys,)

    def chosen() -> tuple[Tensor, ...]:
        return tuple([torch.where(due, y, x) for y, x in zip(new(*xs), old, strict=True)])

    if not torch.compiler.is_compiling():
        members = _unwrapped(due)
        ys = new(*xs) if members.all() else chosen() if members.any() else old
    elif not _transformed():
        ys = torch.cond(due, lambda *xs: _fresh(new(*xs)), lambda *xs: _fresh(xs[:outs]), xs)
    else:
        ys = chosen()
    return ys[0] if outs == 1 else ys


def _fresh(xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """New tensors, laid out alike, as both sides of `torch.cond` must give them."""
    return tuple([x.clone(memory_format=torch.contiguous_format) for x in xs])


def _transformed() -> bool:
    """Whether a function transform is at work. Dynamo's None is none for `is`."""
    top = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue]
    return not isinstance(top, type(None))


def _unwrapped(x: Tensor) -> Tensor:
    """The values of all members: the tensor inside all function transforms."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):  # pyright: ignore[reportAttributeAccessIssue]
        x = torch._C._functorch.get_unwrapped(x)  # pyright: ignore[reportAttributeAccessIssue]
    return x
