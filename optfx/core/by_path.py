"""All numbers of an optimizer by path, and the same optimizer with others.

The path of a number is the path of its transform in the optimizer, then the name of its field: `1.0.learning_rate`. The
number of a schedule comes after the field that holds the schedule: `1.0.learning_rate.init_value`.
"""

from __future__ import annotations

import dataclasses
import numbers as _numbers
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.core.hyper import at, hyper_fields, is_number, join
from optfx.core.transform import GradientTransformation
from optfx.core.wrapper import Wrapper
from optfx.tree import Tree
from optfx.tree.record import is_record


def numbers(tx: Any) -> dict[str, Any]:
    """Every number of an optimizer by path, those of its schedules included.

    Args:
        tx: a transform or a schedule.

    Returns:
        `{path: number}`, as the fields hold them.

    Example:
        >>> import optfx
        >>> from optfx import core
        >>> core.numbers(optfx.chain(optfx.clip(1.0), optfx.sgd(optfx.linear_schedule(0.1, 0.0, 10))))
        {'0.max_delta': 1.0, '1.0.learning_rate.init_value': 0.1, '1.0.learning_rate.end_value': 0.0,
         '1.0.learning_rate.transition_steps': 10, '1.0.learning_rate.transition_begin': 0}
    """
    found: dict[str, Any] = {}
    for name, value in _below(tx).items():
        if is_number(value):
            found[name] = value
        else:
            found |= {join(name, path): x for path, x in numbers(value).items()}
    return found


def with_numbers(tx: Any, values: Mapping[str, Any]) -> Any:
    """A copy of the optimizer with some numbers replaced.

    Args:
        tx: a transform or a schedule.
        values: `{path: number}`, by the paths of `numbers`.

    Raises:
        KeyError: there is no number at a path.

    Example:
        >>> import optfx
        >>> from optfx import core
        >>> core.with_numbers(optfx.scale_by_learning_rate(0.1), {"learning_rate": 0.2})
        scale_by_learning_rate(learning_rate=0.2, flip_sign=True)
    """
    found: set[str] = set()
    new = _replaced(tx, "", values, found)
    if unknown := values.keys() - found:
        raise KeyError(f"no number at {sorted(unknown)}; there are {list(numbers(tx))}")
    return new


def _replaced(x: Any, path: str, values: Mapping[str, Any], found: set[str]) -> Any:
    if is_number(x):
        if path not in values:
            return x
        found.add(path)
        return values[path]
    below = _below(x)
    return _put(x, {k: _replaced(v, join(path, k), values, found) for k, v in below.items()}) if below else x


def _below(x: Any) -> dict[str, Any]:
    """Where numbers may be: the fields of a transform or schedule, the transforms inside, the items of a container."""
    if isinstance(x, GradientTransformation):
        return {name: getattr(x, name) for name in hyper_fields(x)} | x.inside()
    if is_record(x):
        named = hyper_fields(x)
        values = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        whole = {k for k, v in values.items() if is_number(v) and isinstance(v, _numbers.Integral)}
        return {k: v for k, v in values.items() if k in named or k not in whole}
    if isinstance(x, (tuple, list)):
        return {str(i): v for i, v in enumerate(x)}
    return dict(x) if isinstance(x, dict) else {}


def _put(x: Any, new: dict[str, Any]) -> Any:
    if isinstance(x, Wrapper):
        inside = x.inside()
        x = tree.replace(x, **{k: v for k, v in new.items() if k not in inside})
        return x.with_inside({k: new[k] for k in inside}) if inside else x
    if is_record(x):
        return tree.replace(x, **new)
    if isinstance(x, dict):
        return new
    return type(x)(*new.values()) if hasattr(x, "_fields") else type(x)(new.values())


def hyperparams(tx: Any, state: Tree) -> dict[str, Tensor]:
    """The hyperparameters that the next update will use, by path.

    Schedules are evaluated on the device; nothing is synchronized. After the numbers of `reduce_on_plateau` comes its
    `scale` as the last step left it: the rate in force is the learning rate times that.

    Args:
        tx: an optimizer or any other transform.
        state: its state.

    Returns:
        `{path: () float64 tensor}`: the path of the transform in the optimizer, then the name of the field.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.sgd(optfx.linear_schedule(0.1, 0.0, 10)))
        >>> optfx.hyperparams(tx, tx.init({"w": torch.zeros(2)}))
        {'0.max_norm': tensor(1., dtype=torch.float64), '1.0.learning_rate': tensor(0.1000, dtype=torch.float64)}
    """
    count = getattr(state, "count", None)  # of a tuple it is a method
    now = at(tx, count if isinstance(count, Tensor) else torch.zeros((), dtype=torch.int64)) if is_record(tx) else {}
    found: dict[str, Any] = {k: x.kept if isinstance(x, tree.Share) else x for k, x in now.items() if x is not None}
    found |= {name: getattr(state, name) for name in tx.shows}
    for name, (part, inner) in tx.parts(state).items():
        found |= {join(name, path): x for path, x in hyperparams(part, inner).items()}
    return found
