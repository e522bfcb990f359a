"""Every public schedule, in several forms: what the laws run over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from optfx import schedules as s
from optfx.tree.record import is_record

CYCLE = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 9, "end_value": 0.2, "exponent": 0.5}


def halving(t: Tensor) -> Tensor:
    """A scale function, at module level so that it pickles."""
    return 0.5 ** (t / 8)


def inverse(count: Tensor) -> Tensor:
    """A plain schedule, with a derivative that is infinite before its own beginning."""
    return (1 + count.double()) ** -0.5


def multiplied(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.9)


ROWS: dict[str, list[Callable[[], Any]]] = {
    "constant_schedule": [lambda: s.constant_schedule(0.3)],
    "polynomial_schedule": [
        lambda: s.polynomial_schedule(1.0, 0.1, 2.0, 10),
        lambda: s.polynomial_schedule(0.0, 2.0, 0.5, 10, 5),
        lambda: s.polynomial_schedule(1.0, 0.1, 1.5, 0),
    ],
    "linear_schedule": [lambda: s.linear_schedule(0.0, 1.0, 10), lambda: s.linear_schedule(1.0, 0.25, 7.5, 3)],
    "half_life_schedule": [
        lambda: s.half_life_schedule(0.9, 0.9999, 10),
        lambda: s.half_life_schedule(0.99, 0.5, 7.5),
        lambda: s.half_life_schedule(0.9, 0.99, 0),
    ],
    "piecewise_constant_schedule": [
        lambda: s.piecewise_constant_schedule(1.0, {12: 2, 4: 0.1}),
        lambda: s.piecewise_constant_schedule(0.7),
    ],
    "piecewise_interpolate_schedule": [
        lambda: s.piecewise_interpolate_schedule("linear", 0.5, {4: 2.0, 12: 0.0, 20: 3.0}),
        lambda: s.piecewise_interpolate_schedule("cosine", 0.5, {0: 2.0, 12: 0.1}),
        lambda: s.piecewise_interpolate_schedule("cosine", 0.5),
    ],
    "exponential_decay": [
        lambda: s.exponential_decay(1.0, 5, 0.8),
        lambda: s.exponential_decay(1.0, 5, 0.8, 3, True, 0.5),
        lambda: s.exponential_decay(1.0, 1, 1.5, 2, end_value=50.0),
    ],
    "cosine_decay_schedule": [
        lambda: s.cosine_decay_schedule(1.0, 10),
        lambda: s.cosine_decay_schedule(0.3, 10, alpha=0.1, exponent=0.5),
    ],
    "linear_onecycle_schedule": [
        lambda: s.linear_onecycle_schedule(20, 1.0),
        lambda: s.linear_onecycle_schedule(1, 1.0),
    ],
    "cosine_onecycle_schedule": [lambda: s.cosine_onecycle_schedule(20, 1.0, 0.4, 10.0, 100.0)],
    "warmup_constant_schedule": [lambda: s.warmup_constant_schedule(0.0, 1.0, 8)],
    "warmup_cosine_decay_schedule": [
        lambda: s.warmup_cosine_decay_schedule(**CYCLE),
        lambda: s.warmup_cosine_decay_schedule(0.0, 1.0, 0, 10),
        lambda: s.warmup_cosine_decay_schedule(0.0, 0.0, 5, 10),
    ],
    "warmup_exponential_decay_schedule": [
        lambda: s.warmup_exponential_decay_schedule(0.0, 1.0, 5, 4, 0.5),
        lambda: s.warmup_exponential_decay_schedule(0.0, 1.0, 5, 4, 2.0, 3, True, 40.0),
    ],
    "sgdr_schedule": [lambda: s.sgdr_schedule([CYCLE, CYCLE | {"peak_value": 0.5, "decay_steps": 12}, CYCLE])],
    "join_schedules": [
        lambda: s.join_schedules([s.linear_schedule(0.0, 1.0, 5), s.exponential_lr(1.0, 2.0), inverse], [5, 11]),
        lambda: s.join_schedules([s.constant_schedule(0.1)], []),
        lambda: s.join_schedules([s.exponential_lr(1.0, 3.0), s.table_schedule(torch.rand(9))], [7]),
    ],
    "sequential_lr": [lambda: s.sequential_lr([s.constant_lr(1.0, 0.1, 4), s.exponential_lr(1.0, 0.9)], [6])],
    "per_epoch": [
        lambda: s.per_epoch(s.exponential_lr(1.0, 0.8), 7),
        lambda: s.per_epoch(s.warmup_cosine_decay_schedule(**CYCLE), 2.5),
        lambda: s.per_epoch(inverse, 3),
        lambda: s.per_epoch(s.table_schedule(torch.rand(5)), 4),
    ],
    "function_schedule": [lambda: s.function_schedule(inverse)],
    "inverse_time_decay": [lambda: s.inverse_time_decay(0.25)],
    "relative_step": [lambda: s.relative_step(0.3), lambda: s.relative_step(1e-2)],
    "lambda_lr": [lambda: s.lambda_lr(0.5, halving)],
    "step_lr": [lambda: s.step_lr(1.0, 7, 0.5)],
    "multi_step_lr": [lambda: s.multi_step_lr(1.0, [12, 4, 4], 0.5), lambda: s.multi_step_lr(1.0, [12, 4.5])],
    "constant_lr": [lambda: s.constant_lr(1.0, 0.25, 6)],
    "linear_lr": [lambda: s.linear_lr(1.0, 0.25, 0.75, 6), lambda: s.linear_lr(1.0, total_iters=0)],
    "exponential_lr": [lambda: s.exponential_lr(1.0, 0.9)],
    "polynomial_lr": [lambda: s.polynomial_lr(1.0, 8, 0.5), lambda: s.polynomial_lr(1.0, 8, 2.0)],
    "cosine_annealing_lr": [lambda: s.cosine_annealing_lr(1.0, 8, 0.1)],
    "cosine_annealing_warm_restarts": [
        lambda: s.cosine_annealing_warm_restarts(1.0, 5),
        lambda: s.cosine_annealing_warm_restarts(1.0, 3, 2, 0.1),
    ],
    "one_cycle_lr": [
        lambda: s.one_cycle_lr(1.0, 20),
        lambda: s.one_cycle_lr(1.0, 20, 0.4, "linear", 10.0, 100.0, True),
        lambda: s.one_cycle_lr(1.0, 10, 0.1),
    ],
    "one_cycle_momentum": [lambda: s.one_cycle_momentum(20), lambda: s.one_cycle_momentum(20, 0.4, three_phase=True)],
    "cyclic_lr": [
        lambda: s.cyclic_lr(0.1, 1.0, 4),
        lambda: s.cyclic_lr(0.1, 1.0, 4, 6, "triangular2"),
        lambda: s.cyclic_lr(0.1, 1.0, 4, 0, "exp_range", 0.95),
        lambda: s.cyclic_lr(0.1, 1.0, 4, scale_fn=halving, scale_mode="iterations"),
    ],
    "cyclic_momentum": [lambda: s.cyclic_momentum(step_size_up=4, step_size_down=6, mode="exp_range", gamma=0.95)],
    "table_schedule": [lambda: s.table_schedule(torch.rand(12, dtype=torch.float64))],
    "from_torch_scheduler": [lambda: s.from_torch_scheduler(multiplied, 0.5, 12)],
}

CASES = [(f"{name}-{i}", make) for name, makes in ROWS.items() for i, make in enumerate(makes)]

Path = tuple[Any, ...]


def numbers(schedule: Any) -> Iterator[tuple[Path, float]]:
    """Every Python number of a schedule by its path: (field,), (field, key), or on through an inner schedule."""
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
        if is_record(value):
            yield from (((field.name, *path), x) for path, x in numbers(value))
        for key, part in parts:
            if is_record(part):
                yield from (((field.name, key, *path), x) for path, x in numbers(part))
            elif "Number" in field.type:
                yield (field.name, key), part
        if "Number" in field.type and isinstance(value, (int, float)):
            yield (field.name,), value


def put(schedule: Any, values: dict[Path, Any]) -> Any:
    """The schedule made anew, by its constructor, with some of its numbers changed."""

    def go(path: Path, node: Any) -> Any:
        if path in values:
            return values[path]
        if not any(p[: len(path)] == path for p in values):
            return node
        if is_record(node):
            return type(node)(**{f.name: go((*path, f.name), getattr(node, f.name)) for f in dataclasses.fields(node)})
        if isinstance(node, dict):
            return {k: go((*path, k), v) for k, v in node.items()}
        return tuple(go((*path, i), v) for i, v in enumerate(node))

    return go((), schedule)
