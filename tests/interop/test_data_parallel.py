"""`TorchOptimizer` under DistributedDataParallel and ZeroRedundancyOptimizer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import optfx
from optfx.interop import TorchOptimizer
from tests.interop import ranks


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2), nn.Linear(2, 2))


def batch(k, rank):
    generator = torch.Generator().manual_seed(10 * k + rank)
    return torch.randn(8, 5, generator=generator)


def train(net, optimizer, rank, scheduler=None):
    for k in range(10):
        optimizer.zero_grad()
        net(batch(k, rank)).square().mean().backward()
        optimizer.step()
        if scheduler:
            scheduler.step()


def alike(a, b, tolerance=1e-6):
    return all(
        torch.allclose(p, q, rtol=0, atol=tolerance) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def worker(rank, world):
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    adamw = optfx.adamw(1e-2, weight_decay=1e-2)
    reference = DistributedDataParallel(model())
    torchs = torch.optim.AdamW(reference.parameters(), lr=1e-2)
    train(reference, torchs, rank, torch.optim.lr_scheduler.ExponentialLR(torchs, 0.9))

    for compile in (False, True):
        net = DistributedDataParallel(model())
        ours = TorchOptimizer(net.parameters(), adamw, compile=compile)
        train(net, ours, rank, torch.optim.lr_scheduler.ExponentialLR(ours, 0.9))
        assert alike(net, reference), "DDP"

    for how in (
        {"optimizer_class": TorchOptimizer, "tx": adamw},
        {"optimizer_class": partial(TorchOptimizer, tx=adamw)},
    ):
        net = DistributedDataParallel(model())
        zero = ZeroRedundancyOptimizer(net.parameters(), lr=1e-2, **how)
        train(net, zero, rank, torch.optim.lr_scheduler.ExponentialLR(zero, 0.9))
        assert alike(net, reference), "ZeRO"
    held = len(zero.optim.state)
    assert 0 < held < len(list(net.parameters()))
    zero.consolidate_state_dict(0)
    if rank == 0:
        assert len(zero.state_dict()["state"]) == len(list(net.parameters()))

    clipped = optfx.chain(optfx.clip_by_global_norm(1.0), adamw)
    for tx in (clipped, optfx.apply_if_finite(adamw, 3)):
        with pytest.raises(ValueError, match="ZeroRedundancyOptimizer shows each rank only some of them"):
            ZeroRedundancyOptimizer(net.parameters(), TorchOptimizer, tx=tx)
    return held


def test_ddp_and_zero():
    assert sum(ranks.run(worker, 2)) == len(list(model().parameters()))
