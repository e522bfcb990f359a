"""A small sweep that the tests of populations share: a network of 48 numbers, batches by step, a validation loss."""

import torch

import optfx
from optfx import random, sweep, tree

X = torch.sin(torch.arange(64.0 * 5)).view(64, 5)
Y = X.prod(1)
ORDER = torch.arange(200 * 16).view(200, 16) * 37 % 64
SPACE = {"rate": sweep.log_uniform(1e-3, 1.0), "b1": sweep.uniform(0.5, 0.95)}


def make_optimizer(config):
    return optfx.chain(optfx.scale_by_adam(b1=config["b1"]), optfx.scale_by_learning_rate(config["rate"]))


def loss_fn(params, batch):
    return (torch.tanh(batch[0] @ params["w"]) @ params["v"] - batch[1]).square().mean()


def init(key):
    first, last = random.split(key)
    return {"w": random.normal(first, (5, 8)), "v": random.normal(last, (8,)) / 3}


def batches(step):
    return X[ORDER[step]], Y[ORDER[step]]


def evaluate(params):
    return {"val_loss": loss_fn(params, (X, Y))}


def trainer(**options):
    told = {"batches": batches, "evaluate": evaluate} | options
    return sweep.Trainer(make_optimizer, loss_fn, init, told.pop("batches"), **told)


def configs(n=11):
    return sweep.sample(SPACE, n)


def same(a, b):
    return all(
        x.dtype == y.dtype and torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0))
        for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True)
    )
