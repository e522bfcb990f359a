"""Hyperparameters: every number of a transform is a float, a () tensor or a schedule.

Scalar work (schedules, counts, bias corrections) is float64 where the device has it, and is cast at the leaf:
float32 would cost 1e-5 in `1 - b2`. Nothing here branches on a value or leaves the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from optfx.tree import Tree, leaves, paths

Schedule = Callable[[Tensor], Any]
"""Step count, () int64 -> value, float or () tensor."""

Hyper = float | Tensor | Schedule
"""What every numeric hyperparameter may be."""


def wide(device: torch.device) -> torch.dtype:
    """The dtype of scalar work on a device: float64 where it exists."""
    return torch.float32 if device.type == "mps" else torch.float64


def counter(params: Tree) -> Tensor:
    """A fresh step count for these parameters: () int64 zero on the device of the first leaf.

    Raises:
        TypeError: naming the path of a leaf that is no tensor, or neither floating nor complex.
    """
    found = leaves(params)
    for i, leaf in enumerate(found):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"the parameter at {paths(params)[i]!r} is a {type(leaf).__name__}, expected a tensor")
        if not (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
            raise TypeError(
                f"the parameter at {paths(params)[i]!r} is {leaf.dtype}, expected a floating or complex dtype"
            )
    return torch.zeros((), dtype=torch.int64, device=found[0].device if found else None)


def at(count: Tensor, hyper: Any) -> Any:
    """The value of a hyperparameter at step `count`.

    Args:
        count: () int64, the steps taken before this one: the first update reads `schedule(0)`.
        hyper: float, () tensor, or schedule; a number of another type (None, bool) is passed through.

    Returns:
        A float, or a () tensor in float64.

    Raises:
        ValueError: a tensor that is not (): batches of hyperparameters are mapped over with `torch.func.vmap`.
    """
    value = hyper(count) if callable(hyper) else hyper
    if not isinstance(value, Tensor):
        return value
    if value.ndim:
        raise ValueError(
            f"a hyperparameter of shape {tuple(value.shape)} where a () tensor was expected: "
            "batches of optimizers run under torch.func.vmap"
        )
    return value.to(wide(value.device))


def bias_correction(decay: Any, count: Tensor) -> Tensor:
    """1 - decay**count, () float64: what a running mean that began at zero must be divided by after `count` steps."""
    return 1 - decay ** count.to(wide(count.device))


def hyper_fields(tx: Any) -> list[str]:
    """The names of the fields of a record that are hyperparameters: those annotated `Hyper`, or `Hyper | None`."""
    return [f.name for f in dataclasses.fields(tx) if _is_hyper(f.type)]


def _is_hyper(annotation: Any) -> bool:
    if isinstance(annotation, str):  # under `from __future__ import annotations`
        return "Hyper" in annotation
    return set(get_args(Hyper)) <= set(get_args(annotation))
