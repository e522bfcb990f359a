"""FSDP2 with compiled steps: `fuse` on a module, `TorchOptimizer(compile=True)`, trainers, and checkpoints."""

from __future__ import annotations

import os
import socket

import pytest
import torch

import optfx
from optfx import tree
from optfx.interop import TorchOptimizer
from tests.interop import ranks
from tests.interop.test_sharded import Net, assert_same_module, batch, recipe, sharded, train_optimizer, whole

TX = optfx.chain(optfx.clip_by_global_norm(0.1), optfx.adamw(1e-2))


def train_fused(net, steps=6):
    opt = optfx.fuse(recipe())
    params, state = opt.init(net)
    for k in range(steps):
        net.zero_grad()
        net(batch(k)).square().mean().backward()
        params, state = opt.step(optfx.grads(net), state, params)
    return params, state


def moved(net):
    """Steps between which memory goes elsewhere, for which torch and FSDP may have reasons."""
    opt = optfx.fuse(recipe())
    params, state = opt.init(net)
    for k in range(4):
        if k == 2:
            for p in net.parameters():
                local = getattr(p, "_local_tensor", p)
                local.data = local.detach().clone()
            net.cpu()
        net.zero_grad()
        net(batch(k)).square().mean().backward()
        params, state = opt.step(optfx.grads(net), state, params)
    for name, p in net.named_parameters():
        assert torch.equal(whole(params[name]), whole(p.detach()))
    grads = optfx.grads(net)
    net.float()
    with pytest.raises(ValueError, match=r"'first\.bias' is .* torch.float32 .*, and was .* torch.float64"):
        opt.step(grads, state, params)
    return net.double()


def alone():
    """What one process finds, in eager code."""
    net = Net()
    train_optimizer(net, TorchOptimizer(net.named_parameters(), TX))
    return net


def compiled(net):
    return TorchOptimizer(net.named_parameters(), TX, compile=True)


def offloaded(net):
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    for layer in (net.first, net.second, net):
        fully_shard(layer, offload_policy=CPUOffloadPolicy(pin_memory=False))
    return net


def several_groups(net):
    groups = [{"params": [(n, p)], "lr": 1e-2 / (1 + p.ndim)} for n, p in net.named_parameters()]
    return TorchOptimizer(groups, TX, compile=True)


def fsdp(rank, world):
    from torch.distributed.tensor.debug import CommDebugMode

    reference = Net()
    expected_state = train_fused(reference)[1]
    net = sharded(Net())
    params, state = train_fused(net)
    for name, p in net.named_parameters():
        assert params[name].placements == p.placements
        assert params[name].to_local().data_ptr() == p.to_local().data_ptr()  # they are trained themselves
    assert_same_module(net, reference)
    for x, y in zip(tree.leaves(state), tree.leaves(expected_state), strict=True):
        torch.testing.assert_close(whole(x), y, rtol=1e-9, atol=1e-12)

    assert_same_module(moved(sharded(Net())), moved(Net()), rtol=1e-6)  # back from float32

    reference = alone()
    for shard in (sharded, offloaded):
        net = shard(Net())
        optimizer = compiled(net)
        train_optimizer(net, optimizer)
        assert_same_module(net, reference)
        p = net.first.weight
        assert optimizer.state[p]["1.0.mu"].placements == p.placements
    with CommDebugMode() as collectives:
        optimizer.step()
    assert collectives.get_total_counts() == 1
    net = Net()  # the optimizer comes before the model is sharded, and is given the parameters afterwards
    optimizer = compiled(net)
    sharded(net)
    for group in optimizer.param_groups:
        group["params"] = [dict(net.named_parameters())[name] for name in group["param_names"]]
    train_optimizer(net, optimizer)
    assert_same_module(net, reference)
    reference, net = Net(), sharded(Net())
    train_optimizer(reference, several_groups(reference))
    train_optimizer(net, several_groups(net))
    assert_same_module(net, reference)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_fsdp2(world):
    ranks.run(fsdp, world)


# ---- trainers --------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def by_accelerate(net):
    """`prepare` takes the optimizer, shards the model, and gives the optimizer the new parameters."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin

    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = DistributedType.FSDP  # which accelerate itself chooses on GPUs alone
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=10
    )
    net, optimizer = accelerator.prepare(net, compiled(net))
    for k in range(6):
        optimizer.zero_grad()
        accelerator.backward(net(batch(k)).square().mean())
        optimizer.step()
    return net


def by_lightning(net):
    import lightning
    from lightning.pytorch.strategies import ModelParallelStrategy

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def configure_model(self):
            sharded(self.net)

        def training_step(self, x, _):
            return self.net(x).square().mean()

        def configure_optimizers(self):
            return compiled(self.net)

    world = torch.distributed.get_world_size()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader([batch(k) for k in range(6)], batch_size=None))
    return net


def by_trainer(rank, world, train, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    reference = Net()
    optimizer = TorchOptimizer(reference.named_parameters(), TX)
    for k in range(6):
        optimizer.zero_grad()
        reference(batch(k)).square().mean().backward()
        optimizer.step()
    net = train(Net())
    assert {type(p).__name__ for p in net.parameters()} == {"DTensor"}
    assert_same_module(net, reference)


@pytest.mark.parametrize("train", [by_accelerate, by_lightning])
def test_trainers(train):
    ranks.run(by_trainer, 2, train, free_port())


# ---- torch.distributed.checkpoint ------------------------------------------------------------------------------------


def trained(world, steps=6, begin=0, of=None):
    net = (sharded(Net()) if world > 1 else Net()) if of is None else of[0]
    optimizer = compiled(net) if of is None else of[1]
    train_optimizer(net, optimizer, steps, begin)
    return net, optimizer


def save(rank, world, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = get_state_dict(*trained(world, 3))
    dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder)


def load(rank, world, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    net = sharded(Net()) if world > 1 else Net()
    optimizer = compiled(net)
    model, state = get_state_dict(net, optimizer)
    dcp.load({"model": model, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(net, optimizer, model_state_dict=model, optim_state_dict=state)
    trained(world, 3, 3, of=(net, optimizer))
    reference, theirs = trained(1)
    assert_same_module(net, reference)
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        for key, x in optimizer.state[p].items():
            torch.testing.assert_close(whole(x), theirs.state[q][key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 3), (2, 4)])
def test_checkpoints_between_worlds(first, second, tmp_path):
    ranks.run(save, first, str(tmp_path))
    ranks.run(load, second, str(tmp_path))
