"""Many optimizers at once: spaces of hyperparameters, populations of members, and vmapped, compiled runs over them."""

from optfx.sweep.engines import RayExecutor
from optfx.sweep.fit import fit
from optfx.sweep.history import History, Look
from optfx.sweep.joining import join
from optfx.sweep.policies import exploit, halve, stop_diverged, stop_stalled, stop_worse_than_median
from optfx.sweep.population import Population
from optfx.sweep.result import Best, Result
from optfx.sweep.search import ask, reclaim, tell
from optfx.sweep.spaces import choice, grid, log_uniform, sample, uniform
from optfx.sweep.stacking import in_axes, stack, stacked, unstack
from optfx.sweep.store import load
from optfx.sweep.trainer import Trainer

__all__ = [
    "Best",
    "History",
    "Look",
    "Population",
    "RayExecutor",
    "Result",
    "Trainer",
    "ask",
    "choice",
    "exploit",
    "fit",
    "grid",
    "halve",
    "in_axes",
    "join",
    "load",
    "log_uniform",
    "reclaim",
    "sample",
    "stack",
    "stacked",
    "stop_diverged",
    "stop_stalled",
    "stop_worse_than_median",
    "tell",
    "uniform",
    "unstack",
]
