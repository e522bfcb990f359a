"""Optimizers: recipes, each a signature and one `chain`.

An optimizer is a value like any transform: chain more around it, put it in a `partition`, sweep its numbers by giving
them as tensors. `maximize=True` of `torch.optim` is `chain(scale(-1.0), sgd(...))`, for every optimizer here.

The defaults are optax's throughout. Where those of `torch.optim` differ, these arguments give torch's numbers, under a
schedule too (`learning_rate` is torch's `lr`, 1e-3 by default, 1e-2 for RMSprop and Adagrad; optax has no default):

| `torch.optim` | what differs | optax, and here | torch | torch's numbers here |
|---|---|---|---|---|
| `SGD` | nothing | | | `sgd(lr, momentum, nesterov, dampening=, weight_decay=)` |
| `Adam` | nothing | | | `adam(lr, weight_decay=)` |
| `Adam(amsgrad=True)` | correction of the mean of squares | before the maximum | after it | `amsgrad(lr, bias_correction_nu="after_max", weight_decay=)` |
| `AdamW` | weight decay | 1e-4 | 1e-2 | `adamw(lr, weight_decay=1e-2)` |
| `AdamW(amsgrad=True)` | both | | | `chain(scale_by_amsgrad(bias_correction_nu="after_max"), add_decayed_weights(1e-2), scale_by_learning_rate(lr))` |
| `RMSprop` | decay (`alpha`) | 0.9 | 0.99 | `rmsprop(lr, decay=0.99, ...` |
| | epsilon, 1e-8 | under the root | added to it | `... eps_in_sqrt=False, ...` |
| | the rate, with momentum | goes into the sum | multiplies the sum | `... momentum_after_lr=False, centered=, momentum=, weight_decay=)` |
| `Adagrad` | initial accumulator | 0.1 | 0 | `adagrad(lr, initial_accumulator_value=0.0, ...` |
| | epsilon | 1e-7, under the root | 1e-10, added to it | `... eps=1e-10, eps_in_sqrt=False, lr_decay=, weight_decay=)` |

`None` means absent, in `momentum`, `dampening`, `weight_decay`, `lr_decay` and `mask`: nothing is put in the chain for
it. A zero is a number like any other, which a sweep may pass through.
"""  # noqa: E501

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
    "sgd",
]
