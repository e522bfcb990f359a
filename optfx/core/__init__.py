"""What a transform is: hyperparameters, the base classes, applying updates, selectors, donation, modules."""

from optfx.core import select
from optfx.core.donate import donate
from optfx.core.hyper import Hyper, Schedule, at, bias_correction, counter, hyper_fields, wide
from optfx.core.hyperparams import hyperparams, in_axes
from optfx.core.modules import grads, params
from optfx.core.transform import (
    EXTRA_ARGS,
    Count,
    GradientTransformation,
    Memoryless,
    as_transform,
    extra_for,
    from_functions,
    need_params,
    update_inside,
)
from optfx.core.updates import apply_updates, incremental_update, periodic_update

__all__ = [
    "EXTRA_ARGS",
    "Count",
    "GradientTransformation",
    "Hyper",
    "Memoryless",
    "Schedule",
    "apply_updates",
    "as_transform",
    "at",
    "bias_correction",
    "counter",
    "donate",
    "extra_for",
    "from_functions",
    "grads",
    "hyper_fields",
    "hyperparams",
    "in_axes",
    "incremental_update",
    "need_params",
    "params",
    "periodic_update",
    "select",
    "update_inside",
    "wide",
]
