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
from optfx.optimizers.adam import adam, adamw, amsgrad, nadamw
from optfx.optimizers.adamax import adamax, adamaxw
from optfx.optimizers.adan import adan
from optfx.optimizers.ademamix import ademamix, simplified_ademamix
from optfx.optimizers.adopt import adopt
from optfx.optimizers.asgd import asgd
from optfx.optimizers.atan2 import adam_atan2
from optfx.optimizers.belief import acprop, adabelief
from optfx.optimizers.came import came
from optfx.optimizers.dion2 import dion2
from optfx.optimizers.grams import grams
from optfx.optimizers.kron import kron
from optfx.optimizers.laprop import laprop
from optfx.optimizers.lion import lion
from optfx.optimizers.madgrad import madgrad
from optfx.optimizers.muon import muon
from optfx.optimizers.muown import muown
from optfx.optimizers.nadam import nadam
from optfx.optimizers.normuon import adamuon, normuon
from optfx.optimizers.novograd import novograd
from optfx.optimizers.optimistic import optimistic_adam_v2, optimistic_gradient_descent
from optfx.optimizers.qh import qhadam, qhm
from optfx.optimizers.radam import radam
from optfx.optimizers.rmsprop import rmsprop
from optfx.optimizers.rprop import rprop
from optfx.optimizers.schedule_free import schedule_free_adamw, schedule_free_radam, schedule_free_sgd
from optfx.optimizers.scion import scion, scion_light
from optfx.optimizers.sgd import noisy_sgd, sgd
from optfx.optimizers.shampoo import shampoo
from optfx.optimizers.signs import sign_sgd, signum, tiger
from optfx.optimizers.sm3 import sm3
from optfx.optimizers.soap import soap
from optfx.optimizers.stableadamw import stableadamw
from optfx.optimizers.trust import fromage, lamb, lars
from optfx.optimizers.yogi import yogi

__all__ = [
    "acprop",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adam_atan2",
    "adamax",
    "adamaxw",
    "adamuon",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "asgd",
    "came",
    "dion2",
    "fromage",
    "grams",
    "kron",
    "lamb",
    "laprop",
    "lars",
    "lion",
    "madgrad",
    "muon",
    "muown",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "normuon",
    "novograd",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "qhadam",
    "qhm",
    "radam",
    "rmsprop",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "scion",
    "scion_light",
    "sgd",
    "shampoo",
    "sign_sgd",
    "signum",
    "simplified_ademamix",
    "sm3",
    "soap",
    "stableadamw",
    "tiger",
    "yogi",
]
