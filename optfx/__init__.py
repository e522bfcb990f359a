"""optfx: composable, functional optimizers for PyTorch."""

from optfx import random, schedules, tree
from optfx.combinators import *
from optfx.core import *
from optfx.core import select
from optfx.optimizers import *
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
from optfx.transforms import *
