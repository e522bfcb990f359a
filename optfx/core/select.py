"""Selectors: small composable rules for masks and labels, `select.path("*.bias") | ~select.ndim(min=2)`.

Masks and labels are always computed from params. They may be given as one bool (or str) for all leaves, a tree of them,
a prefix tree, a function `params -> tree`, or a selector; `resolve` turns each of these into one value per leaf.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from optfx.tree import Tree, leaves, paths, record, unflatten_like
from optfx.tree.holes import broadcast
from optfx.tree.nodes import entries


class Selector:
    """A rule about one leaf. Called with params, it gives a tree of bools; `&`, `|` and `~` combine rules."""

    def match(self, path: str, leaf: Tensor) -> bool:
        """Whether the leaf at this path is selected."""
        raise NotImplementedError

    def patterns(self) -> list[str]:
        """The patterns of paths that it, or a part of it, is made from."""
        return [found for x in vars(self).values() if isinstance(x, Selector) for found in x.patterns()]

    def __call__(self, params: Tree) -> Tree:
        return unflatten_like(params, [self.match(p, x) for p, x in zip(paths(params), leaves(params), strict=True)])

    def __and__(self, other: Selector) -> Selector:
        return both(self, other)

    def __or__(self, other: Selector) -> Selector:
        return either(self, other)

    def __invert__(self) -> Selector:
        return negated(self)


@record
class path(Selector):
    """Leaves whose path matches a pattern.

    Args:
        pattern: shell-style; `*` matches any characters, dots too: `"*.bias"`, `"encoder.*"`, `"layer[12].w"`.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> select.path("*.bias")({"l1": {"weight": torch.zeros(2), "bias": torch.zeros(2)}})
        {'l1': {'weight': False, 'bias': True}}
    """

    pattern: str
    regex: re.Pattern[str] = dataclasses.field(init=False, repr=False)  # torch.compile cannot trace fnmatch

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(fnmatch.translate(self.pattern)))

    def patterns(self) -> list[str]:
        return [self.pattern]

    def match(self, path: str, leaf: Tensor) -> bool:
        return self.regex.match(path) is not None


@record
class ndim(Selector):
    """Leaves whose number of dimensions is in a range.

    Args:
        min: fewest dimensions; None for no limit.
        max: most dimensions; None for no limit.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> select.ndim(min=2)({"w": torch.zeros(2, 2), "b": torch.zeros(2)})
        {'w': True, 'b': False}
    """

    min: int | None = None
    max: int | None = None

    def match(self, path: str, leaf: Tensor) -> bool:
        return (self.min is None or leaf.ndim >= self.min) and (self.max is None or leaf.ndim <= self.max)


@record
class size(Selector):
    """Leaves whose number of elements is in a range.

    Args:
        min: fewest elements; None for no limit.
        max: most elements; None for no limit.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> select.size(min=4)({"w": torch.zeros(2, 2), "b": torch.zeros(2)})
        {'w': True, 'b': False}
    """

    min: int | None = None
    max: int | None = None

    def match(self, path: str, leaf: Tensor) -> bool:
        return (self.min is None or leaf.numel() >= self.min) and (self.max is None or leaf.numel() <= self.max)


@record
class leaf(Selector):
    """Leaves for which a function of path and tensor holds.

    Args:
        function: (path, tensor) -> bool. It must not look at the values of the tensor.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> select.leaf(lambda path, x: x.shape[0] == 2)({"w": torch.zeros(2, 2), "b": torch.zeros(3)})
        {'w': True, 'b': False}
    """

    function: Callable[[str, Tensor], bool]

    def match(self, path: str, leaf: Tensor) -> bool:
        return self.function(path, leaf)


@record
class both(Selector):
    """Leaves that both of two rules select; written `a & b`.

    Args:
        a: a selector.
        b: another.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> (select.ndim(min=2) & ~select.path("head.*"))({"body": torch.zeros(2, 2), "head": {"w": torch.zeros(2, 2)}})
        {'body': True, 'head': {'w': False}}
    """

    a: Selector
    b: Selector

    def match(self, path: str, leaf: Tensor) -> bool:
        return self.a.match(path, leaf) and self.b.match(path, leaf)


@record
class either(Selector):
    """Leaves that at least one of two rules selects; written `a | b`.

    Args:
        a: a selector.
        b: another.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> (select.path("w") | select.path("b"))({"w": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)})
        {'w': True, 'b': True, 'c': False}
    """

    a: Selector
    b: Selector

    def match(self, path: str, leaf: Tensor) -> bool:
        return self.a.match(path, leaf) or self.b.match(path, leaf)


@record
class negated(Selector):
    """Leaves that a rule does not select; written `~a`.

    Args:
        a: a selector.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> (~select.path("b"))({"w": torch.zeros(2), "b": torch.zeros(2)})
        {'w': True, 'b': False}
    """

    a: Selector

    def match(self, path: str, leaf: Tensor) -> bool:
        return not self.a.match(path, leaf)


@record
class label(Selector):
    """The label of the first rule that selects a leaf: for `partition`.

    Args:
        rules: `{label: selector}`, tried in order.
        default: the label of a leaf that no rule selects; None makes that an error.

    Raises:
        ValueError: no rule selects a leaf and there is no default, naming its path.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> labels = select.label({"matrix": select.ndim(min=2)}, default="rest")
        >>> labels({"w": torch.zeros(2, 2), "b": torch.zeros(2)})
        {'w': 'matrix', 'b': 'rest'}
    """

    rules: Mapping[str, Selector]
    default: str | None = None

    def match(self, path: str, leaf: Tensor) -> Any:
        for name, rule in self.rules.items():
            if rule.match(path, leaf):
                return name
        if self.default is None:
            raise ValueError(f"no rule selects the leaf at {path!r}, and there is no default")
        return self.default


def is_rule(spec: Any, params: Tree) -> bool:
    """Whether a mask is to be called with params: a selector or a function, not a tree that happens to be callable."""
    is_tree = type(spec) is type(params) or bool(entries(spec))
    return isinstance(spec, Selector) or (callable(spec) and not is_tree)


def idle(spec: Any, params: Tree) -> list[str]:
    """What is to be said of a selector that goes by paths and selects nothing, which is a misspelling as a rule."""
    if isinstance(spec, label):
        named = {f"the rule for {name!r}, {rule!r},": rule for name, rule in spec.rules.items()}
    else:
        named = {repr(spec): spec} if isinstance(spec, Selector) else {}
    pairs, said = list(zip(paths(params), leaves(params), strict=True)), []
    for words, rule in named.items():
        if pairs and rule.patterns() and not any(rule.match(p, x) for p, x in pairs):
            near = [repr(x) for pattern in rule.patterns() for x in _near(pattern, [p for p, _ in pairs])]
            said.append(f"{words} selects no parameter" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return said


def _near(pattern: str, names: list[str]) -> list[str]:
    """Patterns like one that matches no path, and that match one."""
    if any(fnmatch.fnmatchcase(name, pattern) for name in names):
        return []
    found: dict[str, None] = dict.fromkeys(names)
    for name in names:
        parts = name.split(".")
        for k in range(1, len(parts)):
            found |= dict.fromkeys([".".join(parts[:k]) + ".*", "*." + ".".join(parts[k:])])
    return difflib.get_close_matches(pattern, found, 2)


def resolve(spec: Any, params: Tree, kind: type, who: str) -> list[Any]:
    """One mask (or label) per leaf of `params`, in order.

    Args:
        spec: a value, a tree or prefix tree of values, a selector, or a function `params -> tree`.
        params: the tree to mask.
        kind: `bool` or `str`.
        who: the name of the transform, for errors.

    Returns:
        A list of `kind`.

    Raises:
        ValueError: a tree that is not a prefix of params, naming the path.
        TypeError: a value that is not a `kind`, naming the path.

    Example:
        >>> import torch
        >>> from optfx import select
        >>> params = {"head": [torch.ones(1), torch.ones(1)], "body": torch.ones(1)}
        >>> select.resolve({"head": True, "body": False}, params, bool, "masked")
        [False, True, True]
    """
    what = "mask" if kind is bool else "label"
    try:
        given = spec(params) if is_rule(spec, params) else spec
    except Exception as error:
        error.add_note(f"{who}: a {what} that is a function is called once, with the whole tree of params")
        raise
    try:
        found = broadcast(given, params)
    except ValueError as error:
        raise ValueError(f"{who}: the tree of {what}s: {error}; rules by path or shape are in optfx.select") from None
    for value, at in zip(found, paths(params), strict=True):
        if not isinstance(value, kind):
            rule = "select.path and its like" if kind is bool else "select.label"
            raise TypeError(
                f"{who}: the {what} at {at!r} is {value!r}, expected a {kind.__name__}: rules are made by {rule}"
            )
    return found
