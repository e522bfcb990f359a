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

from optfx import tree
from optfx.core.hyper import Number
from optfx.tree import Tree
from optfx.tree.recording import recorder


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


def when_due(due: Tensor, f: Callable[..., Any], *trees: Tree, outs: int = 1, **numbers: Any) -> Any:
    """Give trees new values at a step that is due. At others they stay as they are, and `f` does not run.

    Args:
        due: () bool, such as `every(k, count)`.
        f: function at module level, made of verbs: `f(*trees, **numbers)` -> tree, or a tuple of `outs` trees. They are
            the new values of the first `outs` trees, in their forms.
        *trees: trees of tensors.
        outs: how many of them get new values.
        **numbers: floats, () tensors, `Share`s, or structure, which `f` hands to the verbs.

    Returns:
        A tree like `trees[0]`, or a tuple of `outs` trees.

    Example:
        >>> import torch
        >>> from optfx import core, tree
        >>> def double(x):
        ...     return tree.scale(2.0, x)
        >>> x = {"w": torch.ones(1)}
        >>> core.when_due(torch.tensor(True), double, x), core.when_due(torch.tensor(False), double, x)
        ({'w': tensor([2.])}, {'w': tensor([1.])})
    """
    old = trees[:outs]

    def new(*trees: Tree) -> tuple[Tree, ...]:
        found = f(*trees, **numbers)
        return (found,) if outs == 1 else found

    if not tree.leaves(old):
        found: Any = old
    elif (reader := recorder()) is not None:
        found = reader.when_due(due, f, trees, outs, numbers)
    elif not torch.compiler.is_compiling():
        members = _unwrapped(due)
        found = new(*trees) if members.all() else tree.where(due, new(*trees), old) if members.any() else old
    elif _transformed():
        found = tree.where(due, new(*trees), old)
    else:
        flat, structure = tree.flatten(trees)
        like = tree.flatten(old)[1]
        work = lambda *xs: _fresh(new(*tree.unflatten(structure, xs)))
        rest = lambda *xs: _fresh(tree.unflatten(structure, xs)[:outs])
        found = tree.unflatten(like, torch.cond(due, work, rest, _fresh(flat)))
    return found[0] if outs == 1 else found


def none_due(due: Tensor) -> bool:
    """Whether the work of no member is due."""
    return not _unwrapped(due).any()


def _fresh(x: Tree) -> tuple[Tensor, ...]:
    """Tensors of their own memory, laid out alike: `torch.cond` wants no other."""
    return tuple([leaf.clone(memory_format=torch.contiguous_format) for leaf in tree.leaves(x)])


def _transformed() -> bool:
    """Whether a function transform is at work. Dynamo's None is none for `is`."""
    top = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue]
    return not isinstance(top, type(None))


def _unwrapped(x: Tensor) -> Tensor:
    """The values of all members: the tensor inside all function transforms."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):  # pyright: ignore[reportAttributeAccessIssue]
        x = torch._C._functorch.get_unwrapped(x)  # pyright: ignore[reportAttributeAccessIssue]
    return x
