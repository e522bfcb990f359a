"""Trees of tensors: records, verbs, holes, paths, and the algebra.

Only `record` and `nodes` know optree. Nothing here knows what an optimizer is, though some examples use the state of
one.
"""

from typing import Any

from optfx import hints
from optfx.tree.access import from_dict, get, get_all, set, set_all, to_dict
from optfx.tree.algebra import add, add_scale, clip, conj, div, mul, real, safe_sqrt, scale, sub, where
from optfx.tree.holes import Hole, merge, split
from optfx.tree.making import cast, cast_like, copy, full_like, ones_like, zeros_like
from optfx.tree.matrices import matrixwise
from optfx.tree.nodes import Tree, flatten, leaves, map, paths, unflatten, unflatten_like
from optfx.tree.record import record, replace
from optfx.tree.reductions import all_finite, allclose, max, min, norm, size, sum, vdot
from optfx.tree.share import Share, mean, scalar_dtype
from optfx.tree.verbs import elementwise, leafwise, reduce

__all__ = [
    "Hole",
    "Share",
    "Tree",
    "add",
    "add_scale",
    "all_finite",
    "allclose",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "copy",
    "div",
    "elementwise",
    "flatten",
    "from_dict",
    "full_like",
    "get",
    "get_all",
    "leafwise",
    "leaves",
    "map",
    "matrixwise",
    "max",
    "mean",
    "merge",
    "min",
    "mul",
    "norm",
    "ones_like",
    "paths",
    "real",
    "record",
    "reduce",
    "replace",
    "safe_sqrt",
    "scalar_dtype",
    "scale",
    "set",
    "set_all",
    "size",
    "split",
    "sub",
    "sum",
    "to_dict",
    "unflatten",
    "unflatten_like",
    "vdot",
    "where",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(hints.for_name(name, __all__, "optfx.tree"))
