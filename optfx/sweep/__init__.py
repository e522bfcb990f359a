"""Many optimizers at once: spaces of hyperparameters, and one vmapped, compiled run over all settings."""

from optfx.sweep.result import Best, Result, load
from optfx.sweep.spaces import choice, grid, log_uniform, sample, uniform
from optfx.sweep.stacking import in_axes, stack, stacked, unstack
from optfx.sweep.training import fit

__all__ = [
    "Best",
    "Result",
    "choice",
    "fit",
    "grid",
    "in_axes",
    "load",
    "log_uniform",
    "sample",
    "stack",
    "stacked",
    "uniform",
    "unstack",
]
