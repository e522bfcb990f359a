"""Trees of tensors: records, the verbs, holes, paths, the algebra. Nothing here knows what an optimizer is."""

from optfx.tree.access import from_dict, get, get_all, set, to_dict
from optfx.tree.algebra import (
    add,
    add_scale,
    all_finite,
    allclose,
    cast,
    cast_like,
    clip,
    conj,
    div,
    full_like,
    max,
    min,
    mul,
    norm,
    ones_like,
    real,
    safe_sqrt,
    scale,
    size,
    sub,
    sum,
    vdot,
    where,
    zeros_like,
)
from optfx.tree.record import children, is_record, record, replace, show, walk
from optfx.tree.structure import (
    Hole,
    Tree,
    broadcast,
    difference,
    entries,
    flatten,
    leaves,
    map,
    merge,
    nodes,
    paths,
    split,
    unflatten,
    unflatten_like,
)
from optfx.tree.verbs import elementwise, leafwise, reduce

__all__ = [
    "Hole", "Tree", "add", "add_scale", "all_finite", "allclose", "broadcast", "cast", "cast_like", "children",
    "clip", "conj", "difference", "div", "elementwise", "entries", "flatten", "from_dict", "full_like", "get",
    "get_all", "is_record", "leafwise", "leaves", "map", "max", "merge", "min", "mul", "nodes", "norm", "ones_like",
    "paths", "real", "record", "reduce", "replace", "safe_sqrt", "scale", "set", "show", "size", "split", "sub", "sum",
    "to_dict", "unflatten", "unflatten_like", "vdot", "walk", "where", "zeros_like",
]
