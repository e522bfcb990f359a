"""`TorchOptimizer.eval`, `train` and `evaluating`: the parameters to evaluate with, against `torch.optim.swa_utils`."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import optfx
from optfx.interop import TorchOptimizer

COMPILE = pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])


def model():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


def make(net, average, groups=1, **how):
    params = list(net.named_parameters())
    tx = optfx.chain(optfx.adamw(0.01, weight_decay=0.1), average)
    given = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1}] if groups == 2 else params
    return TorchOptimizer(given, tx, **how)


def backward(net, k):
    net.zero_grad()
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(k)).double()
    (net(x) - x[:, :2].sin()).square().mean().backward()


def train(net, optimizer, steps=5, begin=0):
    for k in range(begin, begin + steps):
        backward(net, k)
        optimizer.step()


def values(net):
    return [p.detach().clone() for p in net.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def state_of(optimizer):
    return [x.clone() for kept in optimizer.state_dict()["state"].values() for x in kept.values()]


EMA = {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}
AVERAGES = {  # ours, torch's arguments, and the number of steps after which torch's begins with what the model has then
    "ema": (optfx.params_ema(0.9), EMA, 0),
    "average": (optfx.params_average(), {}, 2),
    "average from step 3 on": (optfx.params_average(3), {}, 5),
}


@COMPILE
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_torchs(name, groups, compile):
    average, how, begin = AVERAGES[name]
    net = model()
    optimizer = make(net, average, groups, compile=compile)
    torchs = AveragedModel(net, **how)
    for k in range(8):
        if k >= begin:
            torchs.update_parameters(net)
        train(net, optimizer, 1, k)
    torchs.update_parameters(net)
    trained = values(net)
    with optimizer.evaluating():
        assert not same(values(net), trained)
        for p, q in zip(net.parameters(), torchs.module.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert same(values(net), trained)


@COMPILE
def test_evaluating_changes_no_step_and_no_state(compile):
    net, other = model(), model()
    optimizer, plain = (make(x, optfx.params_ema(0.9), 2, compile=compile) for x in (net, other))
    for k in range(6):
        train(net, optimizer, 1, k)
        train(other, plain, 1, k)
        memory = [p.data_ptr() for p in net.parameters()]
        before = state_of(optimizer)
        with optimizer.evaluating():
            assert same(state_of(optimizer), before)
        assert same(state_of(optimizer), before)
        assert memory == [p.data_ptr() for p in net.parameters()]
    assert same(values(net), values(other))
    assert same(state_of(optimizer), state_of(plain))


def test_the_trained_parameters_come_back_after_an_exception():
    net = model()
    optimizer = make(net, optfx.params_ema(0.9))
    train(net, optimizer)
    trained = values(net)
    with pytest.raises(KeyError), optimizer.evaluating():
        raise KeyError
    assert same(values(net), trained)
    train(net, optimizer)


def test_eval_and_train_are_idempotent():
    net = model()
    optimizer = make(net, optfx.params_ema(0.9))
    train(net, optimizer)
    trained = values(net)
    optimizer.train()
    assert same(values(net), trained)
    optimizer.eval()
    averages = values(net)
    optimizer.eval()
    with optimizer.evaluating():
        assert same(values(net), averages)
    assert same(values(net), averages)  # the mode that was
    optimizer.train()
    optimizer.train()
    assert same(values(net), trained)


@pytest.mark.parametrize("average", [optfx.params_ema(0.9), optfx.identity()], ids=["average", "none"])
def test_what_needs_the_trained_parameters_is_refused_in_eval_mode(average):
    net = model()
    optimizer = make(net, average)
    train(net, optimizer)
    saved = optimizer.state_dict()
    optimizer.eval()
    before = values(net)
    with pytest.raises(RuntimeError, match=r"step in eval mode: call train\(\) first"):
        optimizer.step()
    with pytest.raises(RuntimeError, match=r"step in eval mode: call train\(\) first"):
        optimizer.step(lambda: torch.tensor(1.0))
    with pytest.raises(RuntimeError, match=r"load_state_dict in eval mode: call train\(\) first"):
        optimizer.load_state_dict(saved)
    assert same(values(net), before)
    optimizer.train()
    optimizer.load_state_dict(saved)
    optimizer.step()


@COMPILE
@pytest.mark.parametrize("first", ["step", "evaluating"])
@pytest.mark.parametrize(
    "tx",
    [
        optfx.apply_if_finite(optfx.chain(optfx.adamw(0.1), optfx.params_ema(0.5)), 5),
        optfx.chain(optfx.sgd(0.1), optfx.params_ema(0.5), optfx.clip_by_global_norm(1.0)),
        optfx.clip_by_global_norm(1.0),
    ],
    ids=["wrapper", "last", "alone"],
)
def test_what_looks_across_parameters_to_the_end(tx, first, compile):
    net = model()
    optimizer = TorchOptimizer(net.named_parameters(), tx, compile=compile)
    for k in range(3):
        backward(net, k)
        if first == "step" or k:
            optimizer.step()
        before = [p.detach().clone() for p in net.parameters()]
        with optimizer.evaluating():
            pass
        torch.testing.assert_close(list(map(torch.Tensor.detach, net.parameters())), before, rtol=0, atol=0)


def test_what_is_saved():
    """The state of the optimizer is one in both modes; a module is saved with the parameters that it has."""
    net = model()
    optimizer = make(net, optfx.params_ema(0.9), 2)
    train(net, optimizer)
    trained, before = values(net), state_of(optimizer)
    optimizer.eval()
    averages = values(net)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    assert same(state_of(optimizer), before)
    optimizer.train()
    assert same(net.state_dict().values(), trained)
    file.seek(0)
    assert same(torch.load(file).values(), averages)


def test_resuming_in_a_fresh_process_is_exact():
    net, other = model(), model()
    optimizer, resumed = (make(x, optfx.params_ema(0.9), 2) for x in (net, other))
    train(net, optimizer)
    other.load_state_dict(net.state_dict())
    with optimizer.evaluating():
        resumed.load_state_dict(optimizer.state_dict())
    for x, tx in ((net, optimizer), (other, resumed)):
        train(x, tx, begin=5)
        tx.eval()
    assert same(values(net), values(other))


@COMPILE
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_keep_the_mode(how, mode, compile):
    net = model()
    optimizer = make(net, optfx.params_ema(0.9), 2, compile=compile)
    train(net, optimizer)
    getattr(optimizer, mode)()
    twin, copied = how((net, optimizer))
    assert same(values(twin), values(net))
    for x, tx in ((net, optimizer), (twin, copied)):
        tx.train()
        train(x, tx, begin=5)
        tx.eval()
    assert same(values(twin), values(net))


@COMPILE
def test_parameters_without_gradients(compile):
    """One that is never trained, one that rests for some steps, and a group that is added later."""
    net, extra = model(), nn.Parameter(torch.ones(3, dtype=torch.float64))
    frozen = net[0].bias.detach().clone()
    optimizer = make(net, optfx.params_ema(0.5), compile=compile)
    expected = values(net)
    for k in range(6):
        backward(net, k)
        net[0].bias.grad = None
        if k % 2:
            net[2].weight.grad = None
        optimizer.step()
        moved = [p.grad is not None for p in net.parameters()]
        expected = [(e + p) / 2 if m else e for e, p, m in zip(expected, values(net), moved, strict=True)]
    optimizer.add_param_group({"params": [("extra", extra)]})
    with optimizer.evaluating():
        assert torch.equal(net[0].bias, frozen)
        assert torch.equal(extra.detach(), torch.ones(3, dtype=torch.float64))
        for p, e in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), e, rtol=1e-12, atol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_nothing_is_copied_where_there_is_nothing_to_change(groups):
    net = model()
    half = optfx.masked(optfx.params_ema(0.9), optfx.select.path("0.*"))
    optimizer = make(net, half, groups)
    train(net, optimizer)
    versions = [p._version for p in net.parameters()]
    trained = values(net)
    with optimizer.evaluating():
        written = [p._version > v for p, v in zip(net.parameters(), versions, strict=True)]
        assert written == [True, True, False, False]
        assert [not torch.equal(p, q) for p, q in zip(net.parameters(), trained, strict=True)] == written
        assert set(optimizer._trained) == {net[0].weight, net[0].bias}
    assert [p._version > v for p, v in zip(net.parameters(), versions, strict=True)] == written


def test_tied_parameters():
    """Two modules of one parameter, and what was made of its memory before, see the average."""
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    net[1].weight = net[0].weight
    view = net[0].weight.detach().view(-1)
    optimizer = make(net, optfx.params_ema(0.9))
    net(torch.ones(1, 3).double()).square().sum().backward()
    optimizer.step()
    trained = view.clone()
    with optimizer.evaluating():
        assert net[1].weight is net[0].weight
        assert torch.equal(view, net[1].weight.view(-1))
        assert not torch.equal(view, trained)
    assert torch.equal(view, trained)


def test_the_mean_of_averaged_sgd():
    net, other = model(), model()
    optimizer = TorchOptimizer(net.parameters(), optfx.asgd(0.1, t0=0.0))
    torchs = torch.optim.ASGD(other.parameters(), lr=0.1, t0=0)
    train(net, optimizer)
    train(other, torchs)
    with optimizer.evaluating():
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p.detach(), torchs.state[q]["ax"], rtol=1e-5, atol=1e-6)
