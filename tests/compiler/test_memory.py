"""Memory that moves between two steps: kernels write where the tensors are, and nowhere else."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

import optfx
from optfx import tree
from optfx.interop import TorchOptimizer


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 2, 3), nn.Linear(3, 2))


def offload(x):
    """What offloading does: the storage is freed, and later has memory elsewhere."""
    storage, kept = x.untyped_storage(), x.clone()
    n = storage.nbytes()
    storage.resize_(0)
    taken = [torch.ones(n) for _ in range(4)]
    storage.resize_(n)
    x.copy_(kept)
    return taken


def offload_params(module, state):
    return [offload(p.data) for p in module.parameters()]


def offload_state(module, state):
    return [offload(x) for x in tree.leaves(state)]


def new_data(module, state):
    for p in module.parameters():
        p.data = p.data.clone()


def new_data_of_state(module, state):
    for x in tree.leaves(state):
        x.data = x.data.clone()


def one_vector(module, state):
    vector = nn.utils.parameters_to_vector(module.parameters())
    nn.utils.vector_to_parameters(vector * 0.5, module.parameters())


def channels_last(module, state):
    module.to(memory_format=torch.channels_last)


def transposed(module, state):
    module[0].weight.data = module[0].weight.data.t().contiguous().t()


def new_objects(module, state):
    """What `Module.to` does between devices."""
    for part in module:
        part.weight = nn.Parameter(part.weight.detach().clone())


def flat_buffer(module, state):
    """All parameters as views of one buffer, as distributed training has them."""
    buffer = torch.cat([p.data.reshape(-1) for p in module.parameters()])
    for p, part in zip(module.parameters(), buffer.split([p.numel() for p in module.parameters()]), strict=True):
        p.data = part.view(p.shape)


MOVES = [
    offload_params,
    offload_state,
    new_data,
    new_data_of_state,
    one_vector,
    channels_last,
    transposed,
    flat_buffer,
    new_objects,
]


@pytest.mark.parametrize("when", ["before", "between"])
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_a_module_is_followed(move, when, monkeypatch):
    module, other = net(), net()
    tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(0.1))
    if when == "before":
        move(module, ())
        move(other, ())
    opt = optfx.fuse(tx)
    params, state = opt.init(module)
    last, s = optfx.params(other), tx.init(optfx.params(other))
    plan = opt._plan
    for step in range(4):
        strides = [p.stride() for p in module.parameters()]
        g = tree.map(lambda p, step=step: torch.sin(p + step), last)
        params, state = opt.step(g, state, params)
        updates, s = tx.update(g, s, last)
        with torch.no_grad():
            for k, p in other.named_parameters():
                p.copy_(optfx.apply_updates(last, updates)[k])
        last = {k: p.detach().clone() for k, p in other.named_parameters()}
        for k, p in module.named_parameters():
            torch.testing.assert_close(p.detach(), last[k], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(params[k], p.detach(), rtol=0, atol=0)
        assert [p.stride() for p in module.parameters()] == strides
        if when == "between":
            move(module, state)
            move(other, ())
            last = {k: p.detach().clone() for k, p in other.named_parameters()}
    assert opt._plan is plan  # moved memory compiles nothing


def test_numbers_are_followed():
    """A learning rate that the caller holds, and whose memory moves."""
    rate = torch.tensor(0.1)
    opt = optfx.fuse(optfx.sgd(rate))
    p, state = opt.init({"w": torch.zeros(3)})
    for value in (0.1, 0.2, 0.3):
        offload(rate)
        rate.data = torch.tensor(value)
        p, state = opt.step({"w": torch.ones(3)}, state, p)
    torch.testing.assert_close(p["w"], torch.full((3,), -0.6))


def test_what_cannot_be_followed_is_an_error_and_changes_nothing():
    def freed(module):
        module[0].weight.untyped_storage().resize_(0)

    def expanded(module):
        module[0].weight.data = torch.ones(1, 1).expand(3, 4)

    def tied(module):
        module[2].weight.data = module[0].weight.data[:2, :3]

    changes = [
        (nn.Module.double, r"'0.bias' is \(3,\) torch.float64 on cpu now, and was \(3,\) torch.float32 .*: call init"),
        (lambda m: m.to("meta"), r"'0.bias' is \(3,\) torch.float32 on meta now"),
        (lambda m: m[0].register_parameter("weight", None), r"no parameter at '0.weight'"),
        (freed, r"'0.weight' has no memory"),
        (expanded, r"elements of the parameter at '0.weight' share memory"),
        (tied, r"the parameters at '0.weight' and '2.weight' share memory"),
    ]
    for change, words in changes:
        module, opt = net(), optfx.fuse(optfx.adamw(0.1))
        params, state = opt.init(module)
        g = tree.ones_like(params)
        params, state = opt.step(g, state, params)
        change(module)
        before = tree.copy(state)
        with pytest.raises(ValueError, match=words):
            opt.step(g, state, params)
        for x, y in zip(tree.leaves(before), tree.leaves(state), strict=True):
            assert torch.equal(x, y)


def test_after_a_cast_init_goes_on_with_the_state():
    module, opt = net(), optfx.fuse(optfx.adamw(0.1))
    params, state = opt.init(module)
    params, state = opt.step(tree.ones_like(params), state, params)
    module.double()
    wide = tree.map(lambda x: x.double() if x.ndim else x, state)
    params, state = opt.init(module, wide)
    params, state = opt.step(tree.ones_like(params), state, params)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert int(state[0].count) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda w: (w, w.t()),
        lambda w: (w, w[:2]),
        lambda w: (w[:, :2], w[:, 1:]),
        lambda w: (torch.ones(1).expand(3), w),
    ],
    ids=["transposed", "part", "overlap", "expanded"],
)
def test_live_parameters_that_share_memory_are_refused(make):
    module = nn.Module()
    module.a, module.b = map(nn.Parameter, make(torch.ones(3, 3)))
    with pytest.raises(ValueError, match="share memory"):
        optfx.fuse(optfx.sgd(0.1)).init(module)


def test_parameters_of_a_module_are_not_copied_in_silence():
    """The copies would be trained, and the module would stay as it is."""
    module = nn.Linear(2, 1)
    for params in (list(module.parameters()), dict(module.named_parameters())):
        with pytest.raises(ValueError, match=r"fuse: the parameter at '(0|bias)' is an nn.Parameter.*give the module"):
            optfx.fuse(optfx.sgd(0.1)).init(params)
    optfx.fuse(optfx.sgd(0.1)).init(dict(module.named_parameters()), copy=False)
    optfx.fuse(optfx.sgd(0.1)).init(optfx.params(module))


def test_parts_of_one_buffer_are_no_sharing():
    buffer = torch.ones(6)
    module = nn.Module()
    module.a, module.b = nn.Parameter(buffer[:2]), nn.Parameter(buffer[2:].view(2, 2))
    opt = optfx.fuse(optfx.sgd(0.1))
    params, state = opt.init(module)
    opt.step(tree.ones_like(params), state, params)
    torch.testing.assert_close(buffer, torch.full((6,), 0.9))


def graph_behind(x):
    seen, todo = set(), [x.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [f for f, _ in node.next_functions]
    return len(seen)


def test_parameters_that_require_grad_grow_no_graph():
    """`stack_module_state` gives such parameters, which are no `nn.Parameter`s."""
    stacked, _ = torch.func.stack_module_state([net() for _ in range(3)])
    opt = optfx.fuse(optfx.adamw(0.1))
    params, state = opt.init(stacked)
    for _ in range(3):
        params, state = opt.step(tree.ones_like(params), state, params)
    assert not any(graph_behind(x) for x in tree.leaves((params, state)))


@pytest.mark.parametrize("members", [None, 2])
def test_tensors_of_an_earlier_init_are_refused(members):
    """One optimizer for two models: those of the first would be copied into the second's."""
    opt, shape = optfx.fuse(optfx.adam(0.1), members=members), (3,) if members is None else (2, 3)
    first = opt.init({"w": torch.zeros(shape)})
    second = opt.init({"w": torch.ones(shape)})
    grads = {"w": torch.ones(shape)}
    for params, state in ((first[0], first[1]), (second[0], first[1]), (first[0], second[1])):
        with pytest.raises(ValueError, match=r"of an earlier init.*make another fuse"):
            opt.step(grads, state, params)
    assert torch.equal(second[0]["w"], torch.ones(shape))
    params, _ = opt.step(grads, second[1], second[0])
    torch.testing.assert_close(params["w"], torch.full(shape, 0.9))


def test_modules_that_share_an_optimizer_are_refused_and_init_may_be_called_again():
    opt, one, other = optfx.fuse(optfx.sgd(0.1, momentum=0.9)), nn.Linear(2, 2), nn.Linear(2, 2)
    first, second = opt.init(one), opt.init(other)
    for model in (one, other):
        model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ValueError, match="of an earlier init"):
        opt.step(optfx.grads(one), first[1], first[0])
    before = other.weight.detach().clone()
    params, state = opt.step(optfx.grads(other), second[1], second[0])
    opt.init(other, state, copy=False)  # the same tensors
    opt.step(optfx.grads(other), state, params)
    torch.testing.assert_close(other.weight.detach(), before - 0.1 - 0.1 * 1.9)


def test_a_submodule_that_is_replaced():
    """As when a model gets a new head: it is trained, and the old one is left alone."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2)))
    opt = optfx.fuse(optfx.sgd(0.1))
    params, state = opt.init(model)
    old, new = model[1][0], nn.Linear(3, 2)
    for k, head in enumerate((old, new, new)):
        model[1][0] = head
        before, kept = head.weight.detach().clone(), old.weight.detach().clone()
        model.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        params, state = opt.step(optfx.grads(model), state, params)
        torch.testing.assert_close(head.weight.detach(), before - 0.1 * head.weight.grad)
        assert torch.equal(old.weight, kept) == (k > 0)
    model[1] = nn.Sequential(nn.Linear(3, 2))
    model(torch.ones(1, 3)).sum().backward()
    before = model[1][0].weight.detach().clone()
    opt.step(optfx.grads(model), state, params)
    assert not torch.equal(model[1][0].weight, before)
    del model[1]
    with pytest.raises(ValueError, match=r"no parameter at '1\.0\.bias' any more"):
        opt.step({k: torch.zeros_like(x) for k, x in params.items()}, state, params)


TURNED = {
    "each other": lambda p, s: {"x": p["y"], "y": p["x"]},
    "a part of another": lambda p, s: {"x": p["y"], "y": torch.cat([p["x"], p["y"]])[1:4]},
    "in a row": lambda p, s: {"x": p["y"].flip(0), "y": p["x"]},
    "of the state": lambda p, s: (lambda t: {"x": t["y"] + p["x"], "y": t["x"]})(tree.get(s, "trace")),
    "itself": lambda p, s: {"x": p["x"], "y": p["y"]},
}


@pytest.mark.parametrize("chain", [(), (optfx.clip_by_global_norm(1.0),), (optfx.centralize(), optfx.params_ema(0.5))])
@pytest.mark.parametrize("turned", TURNED.values(), ids=TURNED)
def test_gradients_that_are_parameters_or_a_state(turned, chain):
    """As in a game of two players: each is the gradient of the other."""
    tx = optfx.chain(*chain, optfx.sgd(0.1, momentum=0.5))
    p = {"x": torch.tensor([1.0, 2.0, 4.0]), "y": torch.tensor([3.0, -1.0, 0.5])}
    s, opt = tx.init(p), optfx.fuse(tx)
    q, state = opt.init(p)
    for _ in range(3):
        updates, s = tx.update(turned(p, s), s, p)
        p = optfx.apply_updates(p, updates)
        q, state = opt.step(turned(q, state), state, q)
    torch.testing.assert_close(q, p)


def test_gradients_that_are_a_part_of_a_parameter():
    opt = optfx.fuse(optfx.sgd(0.1))
    q, state = opt.init({"x": torch.tensor([1.0, 2.0, 4.0]), "y": torch.tensor([1.0, 1.0])})
    for _ in range(2):  # the second time the addresses are known
        want = {"x": q["x"] * 0.9, "y": q["y"] - 0.1 * q["x"][1:]}
        q, state = opt.step({"x": q["x"], "y": q["x"][1:]}, state, q)
        torch.testing.assert_close(q, want)


def test_a_state_that_has_one_tensor_in_two_places():
    class State(NamedTuple):
        mu: dict
        nu: dict

    def init(params):
        zeros = tree.zeros_like(params)
        return State(zeros, zeros)

    def update(updates, state, params=None):
        mu, nu = tree.add(state.mu, updates), tree.add(state.nu, tree.mul(updates, updates))
        return tree.map(lambda m, v: -0.1 * m / (1 + v), mu, nu), State(mu, nu)

    tx = optfx.core.from_functions(init, update)
    p = {"w": torch.tensor([1.0, -2.0])}
    s, opt = tx.init(p), optfx.fuse(tx)
    q, state = opt.init(tree.copy(p), tx.init(p), copy=False)
    w = nn.Parameter(p["w"].clone())
    optimizer = TorchOptimizer([("w", w)], tx, compile=True)
    for _ in range(3):
        updates, s = tx.update(p, s, p)
        p = optfx.apply_updates(p, updates)
        q, state = opt.step(tree.copy(q), state, q)
        w.grad = w.detach().clone()
        optimizer.step()
    torch.testing.assert_close(q, p)
    torch.testing.assert_close(w.detach(), p["w"])
