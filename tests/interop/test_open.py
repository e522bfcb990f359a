"""`TorchOptimizer` is as open as torch's own: groups, parameters and state are what the dicts say at each step.

Each test does the same to an optimizer of `torch.optim` beside it.
"""

from __future__ import annotations

import collections
import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import optfx
from optfx import core, tree
from optfx.interop import TorchOptimizer
from optfx.interop.torch_specs import SPECS
from tests.interop.parity import cases

COMPILE = pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
SHAPES = {"a.weight": (4, 3), "a.bias": (4, 1), "b.weight": (2, 4), "late": (2, 3)}


@pytest.fixture(autouse=True)
def wide():
    torch.set_default_dtype(torch.float64)  # NAdam and ASGD keep numbers in tensors of the default dtype
    yield
    torch.set_default_dtype(torch.float32)


def parameters(shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def give(params, k, rest=()):
    for name, p in params.items():
        generator = torch.Generator().manual_seed(1000 * k + sum(map(ord, name)))
        p.grad = None if name in rest else torch.sin(p.detach()) + torch.randn(p.shape, generator=generator)


def written(cls, options):
    return SPECS[cls].make(SPECS[cls].defaults | options)


def assert_same(mine, theirs, rtol=1e-10):
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=rtol, atol=rtol * 1e-2)


class Pair:
    """Our optimizer and torch's, each with its own parameters."""

    def __init__(self, make=None, torchs=None, groups=2, named=False, **how):
        make = make or (lambda: written(torch.optim.AdamW, {"lr": 0.1}))
        torchs = torchs or (lambda groups: torch.optim.AdamW(groups, lr=0.1))
        self.params = parameters(), parameters()
        split = [self._groups(p, groups, named) for p in self.params]
        self.both = TorchOptimizer(split[0], make(), **how), torchs(split[1])
        self.k = 0

    @staticmethod
    def _groups(params, groups, named):
        pairs = list(params.items()) if named else list(params.values())
        return [{"params": pairs}] if groups == 1 else [{"params": pairs[:2]}, {"params": pairs[2:], "lr": 0.03}]

    def step(self, steps=1, rest=()):
        for _ in range(steps):
            for params, optimizer in zip(self.params, self.both, strict=True):
                give(params, self.k, rest)
                optimizer.step()
            self.k += 1

    def check(self, rtol=1e-10):
        assert_same(*(p.values() for p in self.params), rtol)

    def each(self, change):
        for optimizer, params in zip(self.both, self.params, strict=True):
            change(optimizer, params)


# ---- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "cls"), [pytest.param(o, c, id=name) for name, o, c in cases()])
def test_counts_are_a_parameters(options, cls):
    """One comes late, one rests now and then, in each of two groups."""
    maximize = options.get("maximize", False)
    plain = {k: x for k, x in options.items() if k != "maximize"}
    rate = 0.3 * options.get("lr", 1e-2)

    def torchs(groups):
        return cls([groups[0], groups[1] | {"lr": rate}], **options)

    pair = Pair(lambda: written(cls, plain), torchs, maximize=maximize)
    pair.both[0].param_groups[1]["lr"] = rate
    if cls is torch.optim.Adafactor:  # whose relative step goes by the rate that the transform was made with
        for optimizer in pair.both:
            optimizer.param_groups[1]["lr"] = optimizer.param_groups[0]["lr"]
    for k in range(12):
        pair.step(rest=[name for name, rests in (("late", k < 5), ("a.bias", k % 3 == 1)) if rests])
    pair.check(1e-3 if cls is torch.optim.Muon else 1e-10)


@COMPILE
def test_a_parameter_thawed_late_takes_steps_of_its_first(compile):
    pair = Pair(groups=1, compile=compile)
    pair.step(200, rest=["late"])
    pair.step(3)
    pair.check()


@COMPILE
def test_each_group_has_its_counts(compile):
    """Adagrad's `lr_decay`, where the second group takes half of the steps."""
    options = {"lr": 0.1, "lr_decay": 1.0}
    pair = Pair(
        lambda: written(torch.optim.Adagrad, options), lambda groups: torch.optim.Adagrad(groups, **options),
        compile=compile,
    )  # fmt: skip
    for k in range(6):
        pair.step(rest=["b.weight", "late"] if k % 2 else ["a.weight", "a.bias"])
    pair.check()
