"""Statements for the nodes of a graph in whatever language: which arguments an operation has, what is made of them.

A language has words of its own, such as a product and a sum that are rounded once, and names for most operations.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch.fx import Node

from optfx.tree.nibbles import UINT4

HALF = (torch.bfloat16, torch.float16)
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def name_of(node: Node) -> str:
    return _name_of(node.target)


@functools.cache
def _name_of(target: Any) -> str:
    return getattr(getattr(target, "overloadpacket", None), "__name__", str(target))


def is_packed(x: Node) -> bool:
    """Whether two elements of a leaf lie in a byte."""
    return x.meta["val"].dtype == UINT4


def alpha_of(node: Node) -> Any:
    """What the second argument of a sum is multiplied by; torch rounds it to half precision, where the sum is."""
    alpha, dtype = [*node.args, node.kwargs.get("alpha", 1)][2], node.meta["val"].dtype
    return torch.tensor(alpha, dtype=dtype).item() if dtype in HALF else alpha


def arguments_of(node: Node) -> list[Any]:
    """The arguments of an operation, with those that are left out."""
    known = node.target._schema.arguments[len(node.args) :]  # type: ignore[union-attr]
    return [*node.args, *(node.kwargs.get(a.name, a.default_value) for a in known if not a.is_out)]


class Writer(ABC):
    """Statements for the nodes of a graph.

    Attributes:
        tests: how a language writes operations on numbers whose result is a bool.
        names: of the nodes that are there already.
    """

    tests: ClassVar[dict[str, str]]

    def __init__(self) -> None:
        self.names: dict[Node, str] = {}

    def operation(self, node: Node) -> str:
        """A node as it is written, by the method that writes it."""
        name, dtype = name_of(node), node.meta["val"].dtype
        otherwise = "test" if name in self.tests and dtype == torch.bool else "plain"
        return getattr(self, self.written_by.get(name, otherwise))(node, self.type_of(dtype))

    # ---- words of the language

    @abstractmethod
    def type_of(self, dtype: torch.dtype) -> str:
        """The type of a value while it is computed with."""

    @abstractmethod
    def value(self, x: Any, T: str) -> str:
        """An argument as a value of type T."""

    @abstractmethod
    def plain(self, node: Node, T: str) -> str:
        """An operation that has a word of its own."""

    @abstractmethod
    def test(self, node: Node, T: str) -> str:
        """One of `tests`."""

    @abstractmethod
    def multiply_add(self, a: str, b: str, c: str, T: str) -> str: ...

    @abstractmethod
    def divide(self, a: str, b: str) -> str: ...

    @abstractmethod
    def root(self, x: str) -> str: ...

    @abstractmethod
    def raised(self, x: str, exponent: str) -> str: ...

    @abstractmethod
    def extreme(self, f: str, a: str, b: str, T: str) -> str:
        """The larger or the smaller of two; NaN if one is."""

    @abstractmethod
    def choose(self, condition: Any, a: Any, b: Any, T: str) -> str: ...

    # ---- operations ------------------------------------------------------------------------------

    def compare(self, node: Node, T: str) -> str:
        a, b = (x.meta["val"] if isinstance(x, Node) else x for x in node.args)
        C = self.type_of(torch.result_type(a, b))  # pyright: ignore[reportCallIssue, reportArgumentType]
        return f"{self.value(node.args[0], C)} {COMPARISONS[name_of(node)]} {self.value(node.args[1], C)}"

    def add(self, node: Node, T: str) -> str:
        a, b = (self.value(x, T) for x in node.args[:2])
        alpha = alpha_of(node)
        return f"{a} + {b}" if alpha == 1 else self.multiply_add(self.value(alpha, T), b, a, T)

    def subtract(self, node: Node, T: str) -> str:
        a, b = (self.value(x, T) for x in node.args[:2])
        a, b, alpha = (a, b, alpha_of(node)) if name_of(node) == "sub" else (b, a, alpha_of(node))
        return f"{a} - {b}" if alpha == 1 else self.multiply_add(f"-{self.value(alpha, T)}", b, a, T)

    def cast(self, node: Node, T: str) -> str:
        return self.value(node.args[0], T)

    def where(self, node: Node, T: str) -> str:
        condition, a, b = node.args
        return self.choose(condition, a, b, T)

    def masked_fill(self, node: Node, T: str) -> str:
        x, mask, value = node.args
        return self.choose(mask, value, x, T)

    def clamp(self, node: Node, T: str) -> str:
        x, low, high = self.value(node.args[0], T), *[*node.args[1:], None, None][:2]
        low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
        x = x if low is None else self.extreme("larger", x, self.value(low, T), T)
        return x if high is None else self.extreme("smaller", x, self.value(high, T), T)

    def power(self, node: Node, T: str) -> str:
        x, exponent = self.value(node.args[0], T), node.args[1]
        if exponent == 2:
            return f"{x} * {x}"
        if exponent == 3:
            return f"{x} * {x} * {x}"
        return self.root(x) if exponent == 0.5 else self.raised(x, self.value(exponent, T))

    def add_product(self, node: Node, T: str) -> str:
        a, b, c = (self.value(x, T) for x in node.args[:3])
        v = node.kwargs.get("value", 1)
        return self.multiply_add(b if v == 1 else f"{self.value(v, T)} * {b}", c, a, T)

    def add_quotient(self, node: Node, T: str) -> str:
        a, b, c = (self.value(x, T) for x in node.args[:3])
        v = node.kwargs.get("value", 1)
        return f"{a} + {self.divide(b if v == 1 else f'{self.value(v, T)} * {b}', c)}"

    def constant(self, node: Node, T: str) -> str:
        return self.value(node.args[0 if name_of(node) == "scalar_tensor" else 1], T)

    written_by: ClassVar[dict[str, str]] = {
        "_to_copy": "cast",
        "add": "add",
        "addcdiv": "add_quotient",
        "addcmul": "add_product",
        "bitwise_not": "bitwise_not",
        "clamp": "clamp",
        "convert_element_type": "cast",
        "full": "constant",
        "full_like": "constant",
        "masked_fill": "masked_fill",
        "pow": "power",
        "rsub": "subtract",
        "scalar_tensor": "constant",
        "sub": "subtract",
        "where": "where",
        **dict.fromkeys(COMPARISONS, "compare"),
    }
