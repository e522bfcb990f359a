"""Graphs of numbers, run so that nothing is done twice or for nothing: where each leaf has numbers of its own, most of
what is made of them is made of what all share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate


class Numbers:
    """Results of operations on numbers, each of which is done once for the same numbers."""

    def __init__(self) -> None:
        self._done: dict[Any, tuple[Any, Any]] = {}  # with what they were made of, so that no id is used twice

    def run(self, gm: GraphModule, args: Sequence[Tensor], wanted: Collection[int] | None = None) -> list[Any]:
        """The outputs of a graph.

        Args:
            gm: a graph of pure operations.
            args: tensors.
            wanted: the outputs that are needed, by number; None for all. The others are None.
        """
        *work, output = gm.graph.nodes
        outputs = [x if wanted is None or k in wanted else None for k, x in enumerate(output.args[0])]
        needed = {x for x in outputs if isinstance(x, Node)}
        for x in reversed(work):
            if x in needed:
                needed.update(x.all_input_nodes)
        given, values = iter(args), {}
        for x in work:
            if x.op == "placeholder":
                values[x] = next(given)
            elif x in needed:
                values[x] = getattr(gm, x.target) if x.op == "get_attr" else self._call(x, values)
        return [values[x] if isinstance(x, Node) else None for x in outputs]

    def _call(self, x: Node, values: dict[Node, Any]) -> Any:
        args, kwargs = (map_aggregate(a, lambda y: values[y] if isinstance(y, Node) else y) for a in (x.args, x.kwargs))
        key = (
            x.target,
            *(map_aggregate(a, lambda y: id(y) if isinstance(y, Tensor) else repr(y)) for a in (args, kwargs)),
        )
        if key not in self._done:
            self._done[key] = (args, kwargs), x.target(*args, **kwargs)  # type: ignore[operator, misc]
        return self._done[key][1]
