"""optfx: composable, functional optimizers for PyTorch.

An optimizer is a chain of pure gradient transformations, each an `init`/`update` pair over a tree of tensors. Flat in
`optfx` are optimizers, transforms, combinators and optax's schedules, and what a training loop needs. Whoever writes a
transform finds the rest in `optfx.core` and `optfx.tree`; `random`, `schedules`, `sweep` and `interop` go by their own
names.
"""

from typing import Any

from optfx import combinators, core, hints, interop, optimizers, random, schedules, sweep, transforms, tree
from optfx.combinators import *  # noqa: F403
from optfx.compiler import fuse
from optfx.core import (
    apply_updates,
    carry,
    describe,
    donate,
    grads,
    hyperparams,
    incremental_update,
    load_params,
    micro_grad,
    params,
    select,
)
from optfx.optimizers import *  # noqa: F403
from optfx.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    sgdr_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from optfx.transforms import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [
    "apply_updates",
    "carry",
    "constant_schedule",
    "core",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "describe",
    "donate",
    "exponential_decay",
    "fuse",
    "grads",
    "hyperparams",
    "incremental_update",
    "interop",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "load_params",
    "micro_grad",
    "params",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "random",
    "schedules",
    "select",
    "sgdr_schedule",
    "sweep",
    "tree",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]
__all__ += combinators.__all__
__all__ += optimizers.__all__
__all__ += transforms.__all__

_MOVED = {
    "EXTRA_ARGS": "core.EXTRA_ARGS",
    "Count": "core.Count",
    "GradientTransformation": "core.GradientTransformation; two functions make one by core.from_functions",
    "Hyper": "core.Hyper",
    "Memoryless": "core.Stateless",
    "Schedule": "core.Schedule",
    "as_transform": "core.as_transform",
    "at": "the method `at` of a transform",
    "counter": "core.counter",
    "extra_for": "the method `run` of a transform",
    "from_functions": "core.from_functions",
    "hyper_fields": "core.hyper_fields",
    "in_axes": "sweep.in_axes",
    "need_params": "the fact `needs_params = True` of a class",
    "update_inside": "the method `run` of a transform",
    "wide": "tree.scalar_dtype",
}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        raise AttributeError(f"optfx.{name} is now {_MOVED[name]}")
    if name.endswith("State") and name not in hints.NAMES:
        raise AttributeError(f"optfx.{name}: the class of a state stands in the file of its transform")
    for layer in (core, interop, random, schedules, sweep, tree):
        short = name.removeprefix("tree_")  # as in optax.tree_utils
        if short in layer.__all__ and name not in hints.NAMES:
            raise AttributeError(f"optfx has no {name!r}; `{layer.__name__}.{short}`")
    raise AttributeError(hints.for_name(name, __all__))
