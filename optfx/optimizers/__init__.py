"""Optimizers: recipes, each a signature and one `chain`.

An optimizer is a value like any transform: chain more around it, put it in a `partition`, or give its numbers as
tensors to sweep them.

Defaults are optax's. [Coming from torch.optim](../from-torch.md#optimizers) shows which arguments give the numbers of
`torch.optim`.

`None` means absent, in `momentum`, `dampening`, `weight_decay`, `lr_decay` and `mask`: the chain has no step for it. A
zero is a number like any other, which a sweep may pass through.
"""

from optfx.optimizers.adadelta import adadelta
from optfx.optimizers.adafactor import adafactor
from optfx.optimizers.adagrad import adagrad
from optfx.optimizers.adam import adam, adamw, amsgrad
from optfx.optimizers.adamax import adamax
from optfx.optimizers.asgd import asgd
from optfx.optimizers.muon import muon
from optfx.optimizers.nadam import nadam
from optfx.optimizers.radam import radam
from optfx.optimizers.rmsprop import rmsprop
from optfx.optimizers.rprop import rprop
from optfx.optimizers.schedule_free import schedule_free_adamw, schedule_free_radam, schedule_free_sgd
from optfx.optimizers.sgd import sgd

__all__ = [
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "asgd",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "sgd",
]
