"""`TorchOptimizer` against `torch.optim`, driven by torch's own test data, and what a torch optimizer must do."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.testing._internal import common_optimizers as theirs

import optfx
from optfx.interop import TorchOptimizer, program
from optfx.interop.torch_specs import SPECS
from tests.interop.parity import cases

DB = {info.name: info for info in theirs.optim_db}


@pytest.fixture
def wide_scalars():
    """torch keeps some numbers of NAdam and ASGD in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model(dtype=torch.float64, bias=True) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7, bias), nn.Tanh(), nn.Linear(7, 2, bias)).to(dtype)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=dtype) / 2
    return net


def loss_of(net, k=0):
    generator = torch.Generator().manual_seed(k)
    dtype = next(net.parameters()).dtype
    x = torch.randn(8, 5, generator=generator).to(dtype)
    return (net(x) - x[:, :2].sin()).square().mean()


def train(optimizer, net, steps=20, schedulers=(), clip=None, closure=False):
    """The parameters after each step, and each group's lr."""
    for k in range(steps):

        def again(k=k):
            optimizer.zero_grad()
            loss = loss_of(net, k)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            return loss

        if closure:
            loss = optimizer.step(again)
        else:
            loss = again()
            optimizer.step()
        for scheduler in schedulers:
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(loss.detach())
            else:
                scheduler.step()
    return [p.detach().clone() for p in net.parameters()], [float(g["lr"]) for g in optimizer.param_groups]


def assert_equal(ours, others, rtol=1e-10):
    for x, y in zip(ours, others, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol * 1e-2)


# ---- the numbers of torch.optim, for its own option sets -------------------------------------------------------------


def written(cls, options):
    """An optimizer of torch as it is written here."""
    return SPECS[cls].make(SPECS[cls].defaults | options)


def adamw(lr):
    return written(torch.optim.AdamW, {"lr": lr})


def pair(cls, options, **how):
    """Our optimizer and torch's, with their models; in two groups that differ."""
    maximize = options.get("maximize", False)
    options = {k: v for k, v in options.items() if k != "maximize"}
    result = []
    for ours in (True, False):
        net = model(bias=cls is not torch.optim.Muon)  # which is for matrices only
        other = {"lr": 0.3 * options.get("lr", 1e-2)}
        if "weight_decay" in options:
            other["weight_decay"] = 0.5 * options["weight_decay"]
        groups = [{"params": list(net[0].parameters())}, {"params": list(net[2].parameters()), **other}]
        if ours:
            optimizer = TorchOptimizer(groups, written(cls, options), maximize=maximize, **how)
        else:
            optimizer = cls(groups, **options, **({"maximize": maximize} if maximize else {}))
        result.append((optimizer, net))
    return result


def option_sets():
    """(compile, cls, options): all eager, and compiled one of each structure, since numbers compile nothing new."""
    seen = set()
    for name, options, cls in cases():
        yield pytest.param(False, cls, options, id=f"{name}-eager")
        structure = re.sub(r"[-\d.e]+", "#", repr(written(cls, options)))
        if structure not in seen:
            yield pytest.param(True, cls, options, id=f"{name}-compiled")
        seen.add(structure)


@pytest.mark.parametrize(("compile", "cls", "options"), list(option_sets()))
def test_numbers_of_torch(compile, cls, options, wide_scalars):
    (ours, mine), (others, net) = pair(cls, options, compile=compile)
    # bfloat16 inside Muon turns the last bit of a float64 into one of a bfloat16
    assert_equal(train(ours, mine)[0], train(others, net)[0], 1e-3 if cls is torch.optim.Muon else 1e-10)


SCHEDULED = [
    pytest.param(cls, constructors, id=f"{cls.__name__}-{i}")
    for cls in SPECS
    for i, constructors in enumerate(DB[cls.__name__].scheduler_inputs)
]


@pytest.mark.parametrize(("cls", "constructors"), SCHEDULED)
def test_schedulers_of_torchs_tests(cls, constructors, wide_scalars):
    pairs = pair(cls, {"lr": 0.01})
    runs = [train(opt, net, 10, schedulers=[make(opt) for make in constructors]) for opt, net in pairs]
    assert_equal(runs[0][0], runs[1][0], 1e-3 if cls is torch.optim.Muon else 1e-10)
    assert runs[0][1] == runs[1][1]


SCHEDULERS = {
    "lambda": lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 0.9**step),
    "multiplicative": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda step: 0.9),
    "step": lambda opt: lr_scheduler.StepLR(opt, 3, 0.5),
    "multistep": lambda opt: lr_scheduler.MultiStepLR(opt, [2, 5], 0.5),
    "constant": lambda opt: lr_scheduler.ConstantLR(opt),
    "linear": lambda opt: lr_scheduler.LinearLR(opt),
    "exponential": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    "cosine": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 10),
    "restarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 4),
    "polynomial": lambda opt: lr_scheduler.PolynomialLR(opt, 15),
    "sequential": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.ConstantLR(opt, 0.1), lr_scheduler.ExponentialLR(opt, 0.9)], [4]
    ),
    "chained": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, 0.1), lr_scheduler.ExponentialLR(opt, 0.9)]
    ),
    "plateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5),
    "cyclic": lambda opt: lr_scheduler.CyclicLR(opt, 1e-3, 1e-2, step_size_up=4, cycle_momentum=True),
    "onecycle": lambda opt: lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=30),
    "swa": lambda opt: torch.optim.swa_utils.SWALR(opt, 1e-3, anneal_epochs=5),
}


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=list(SCHEDULERS))
def test_every_scheduler(make, compile, tensor):
    lr = torch.tensor(0.01, dtype=torch.float64) if tensor else 0.01
    runs = []
    for optimizer, net in pair(torch.optim.AdamW, {"lr": lr, "weight_decay": 0.1}, compile=compile):
        scheduler = make(optimizer)
        runs.append(train(optimizer, net, schedulers=[scheduler]))
    assert_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-12)


def test_momentum_is_cycled():
    runs = []
    for optimizer, net in pair(torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}):
        scheduler = lr_scheduler.CyclicLR(optimizer, 1e-3, 1e-2, step_size_up=4)
        runs.append(train(optimizer, net, schedulers=[scheduler]))
        assert optimizer.param_groups[0]["momentum"] != 0.9
    assert_equal(runs[0][0], runs[1][0])


def test_new_values_compile_nothing(monkeypatch):
    net = model()
    optimizer = TorchOptimizer(net.parameters(), optfx.adamw(1e-2), compile=True)
    compiled = []
    init = optfx.fuse.init
    monkeypatch.setattr(optfx.fuse, "init", lambda self, *args, **kw: compiled.append(self) or init(self, *args, **kw))
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    train(optimizer, net, 5, schedulers=[scheduler])
    plan = compiled[0]._plan
    optimizer.param_groups[0]["weight_decay"] = 0.3
    optimizer.param_groups[0]["lr"] = torch.tensor(0.02)
    train(optimizer, net, 5, schedulers=[scheduler])
    assert len(compiled) == 1
    assert compiled[0]._plan is plan


def test_global_transforms_stay_global():
    """Clipping by the norm of all groups, which one transform for each group would get wrong."""
    mine, net = model(), model()

    def groups(net):
        return [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.1, "betas": (0.5, 0.9)}]

    for compile in (False, True):
        mine, net = model(), model()
        tx = optfx.chain(optfx.clip_by_global_norm(0.1), adamw(1e-2))
        ours = TorchOptimizer(groups(mine), tx, compile=compile)
        others = torch.optim.AdamW(groups(net), lr=1e-2)
        assert_equal(train(ours, mine)[0], train(others, net, clip=0.1)[0], rtol=1e-5)  # torch adds 1e-6 to the norm
        assert_equal(train(ours, mine)[0], train(others, net, clip=0.1)[0], rtol=1e-5)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_defaults():
    optimizer = TorchOptimizer(model().parameters(), optfx.sgd(0.1, momentum=0.9, weight_decay=0.2), lr=0.3)
    expected = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.2, "maximize": False}
    assert optimizer.defaults == expected
    assert {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} == expected
    named = optfx.chain(optfx.add_decayed_weights(0.1), optfx.adamw(1e-3))
    names = TorchOptimizer(model().parameters(), named).defaults
    assert set(names) == {"0.weight_decay", "1.1.weight_decay", "lr", "betas", "eps", "eps_root", "maximize"}


@pytest.mark.parametrize(
    ("tx", "number", "error", "words"),
    [
        (optfx.adam(0.1), {"momentum": 0.9}, ValueError, "has no 'momentum'; a group can set betas, eps, eps_root, lr"),
        (optfx.adam(optfx.linear_schedule(0.1, 0.0, 10)), {"lr": 0.1}, ValueError, "'lr': it is a schedule"),
        (optfx.chain(optfx.trace(0.9), optfx.trace(0.8)), {"momentum": 0.1}, ValueError,
         "'momentum': it is ambiguous, there are '0.momentum', '1.momentum'"),
        (optfx.adam(0.1), {"learning_rate": 0.1}, ValueError, "'learning_rate': it goes by 'lr'"),
        (optfx.adam(0.1), {"b1": 0.8}, ValueError, "'b1': it goes by 'betas'"),
        (optfx.sgd(0.1, momentum=0.9), {"decay": 0.8}, ValueError, "'decay': it goes by 'momentum'"),
        (optfx.adam(0.1), {"betas": 0.9}, TypeError, "'betas' is 0.9, expected 2 numbers"),
        (optfx.adam(0.1), {"lr": "fast"}, TypeError, "'lr' is 'fast', expected a number"),
        (optfx.adam(0.1), {"lr": torch.ones(2)}, ValueError, "Tensor lr must be 1-element"),
    ],
)  # fmt: skip
def test_names_that_groups_cannot_set(tx, number, error, words):
    net = model()
    with pytest.raises(error, match=words):
        TorchOptimizer(net.parameters(), tx, **number)
    optimizer = TorchOptimizer([net[0].weight], tx)
    if "has no" in words:  # in a group, what is unknown is somebody else's, as in torch
        with pytest.warns(UserWarning, match="momentum=0.9, which changes nothing: the optimizer has no 'momentum'"):
            optimizer.add_param_group({"params": [net[0].bias], **number})
        optimizer.add_param_group({"params": [net[2].bias], "momentum": 0.0, "name": "last"})  # asks for none
        assert optimizer.param_groups[1]["momentum"] == 0.9
        return
    with pytest.raises(error, match=words):
        TorchOptimizer([{"params": net.parameters(), **number}], tx)
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [net[0].bias], **number})
    assert len(optimizer.param_groups) == 1


def test_a_state_of_torchs_is_told_apart():
    net = model()
    for make in (torch.optim.AdamW, lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)):
        theirs = make(net.parameters())
        net(torch.ones(1, 5, dtype=torch.float64)).sum().backward()
        theirs.step()
        with pytest.raises(ValueError, match="an optimizer of torch, which load_torch_state_dict takes"):
            TorchOptimizer(net.parameters(), optfx.adamw(0.1)).load_state_dict(theirs.state_dict())


def test_a_number_of_what_looks_across_parameters_is_one_for_all_groups():
    tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.sgd(1.0))
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    words = "different 'max_norm': it belongs to clip_by_global_norm, which looks across all parameters"
    with pytest.raises(ValueError, match=words):
        TorchOptimizer([{"params": [a]}, {"params": [b], "max_norm": 2.0}], tx)
    optimizer = TorchOptimizer([a], tx, max_norm=2.5)
    with pytest.raises(ValueError, match=words):
        optimizer.add_param_group({"params": [b], "max_norm": 2.0})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [b], "lr": 2.0})
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()
    torch.testing.assert_close((a.detach(), b.detach()), (torch.tensor([-1.5]), torch.tensor([-4.0])))
    for group in optimizer.param_groups:
        group["max_norm"] = 5.0
    optimizer.step()
    torch.testing.assert_close((a.detach(), b.detach()), (torch.tensor([-4.5]), torch.tensor([-12.0])))
    optimizer.param_groups[1]["max_norm"] = 1.0
    with pytest.raises(ValueError, match=words):
        optimizer.step()


def test_injected_hyperparams_are_refused():
    with pytest.raises(TypeError, match="hand over the transform inside it"):
        TorchOptimizer(model().parameters(), optfx.chain(optfx.inject_hyperparams(optfx.sgd(0.1))))


def test_ambiguous_names_by_path():
    net = model()
    tx = optfx.chain(optfx.trace(0.9), optfx.trace(0.8), optfx.scale_by_learning_rate(0.1))
    optimizer = TorchOptimizer(
        [{"params": net[0].parameters(), "1.momentum": 0.5}, {"params": net[2].parameters()}], tx
    )
    alone = TorchOptimizer(
        model()[0].parameters(), optfx.chain(optfx.trace(0.9), optfx.trace(0.5), optfx.scale_by_learning_rate(0.1))
    )
    for p, q in zip(net[0].parameters(), alone.param_groups[0]["params"], strict=True):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    for _ in range(3):
        optimizer.step()
        alone.step()
    assert_equal(net[0].parameters(), alone.param_groups[0]["params"])


@pytest.mark.parametrize(
    "case",
    theirs.get_error_inputs_for_all_optims("cpu", torch.float64),
    ids=lambda c: c.optimizer_error_input.desc if hasattr(c, "optimizer_error_input") else None,
)
def test_errors_of_torchs_tests(case):
    given = case.optimizer_error_input
    params = model().parameters() if given.params is None else given.params
    if issubclass(case.error_type, Warning):  # of one parameter twice, which torch says will be an error
        with pytest.raises(ValueError, match="a parameter is listed twice"):
            TorchOptimizer(params, optfx.adam(0.1), **given.kwargs)
    else:
        with pytest.raises(case.error_type, match=case.error_regex):
            TorchOptimizer(params, optfx.adam(0.1), **given.kwargs)


# ---- what a torch optimizer does -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_closure_and_extra_arguments(compile):
    mine, net = model(), model()
    ours = TorchOptimizer(mine.parameters(), adamw(1e-2), compile=compile)
    others = torch.optim.AdamW(net.parameters(), lr=1e-2)
    assert_equal(train(ours, mine, closure=True)[0], train(others, net, closure=True)[0])

    tx = optfx.chain(optfx.sgd(0.1), optfx.reduce_on_plateau(factor=0.5, patience=0))
    net = model()
    optimizer = TorchOptimizer(net.parameters(), tx, compile=compile)
    for _ in range(3):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step(lambda: torch.tensor(1.0))  # the loss never falls
    assert float(optimizer.state[net[0].weight]["1.scale"]) < 1
    with pytest.raises(TypeError, match="unknown argument vlaue"):
        optimizer.step(vlaue=1.0)


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_parameters_without_gradients_stay(compile):
    mine, net = model(), model()
    ours = TorchOptimizer(mine.named_parameters(), optfx.chain(optfx.clip(5.0), adamw(1e-2)), compile=compile)
    others = torch.optim.AdamW(net.parameters(), lr=1e-2)
    start = [p.detach().clone() for p in mine.parameters()]
    ours.step()
    assert_equal(mine.parameters(), start, 0)
    assert all(int(state["0.count"]) == 0 for state in ours.state.values())
    for k in range(6):
        for optimizer, module in ((ours, mine), (others, net)):
            optimizer.zero_grad()
            loss_of(module, k).backward()
            if k >= 3:
                module[2].weight.grad = None
            optimizer.step()
    assert_equal(mine.parameters(), net.parameters())
    assert_equal([ours.state[mine[2].weight]["1.0.mu"]], [others.state[net[2].weight]["exp_avg"]])


def test_a_group_without_gradients_does_not_count():
    net = model()
    optimizer = TorchOptimizer([{"params": net[0].parameters()}, {"params": net[2].parameters()}], optfx.adam(0.1))
    for p in net[0].parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert int(optimizer.state[net[0].weight]["0.count"]) == 1
    assert int(optimizer.state[net[2].weight]["0.count"]) == 0


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_a_group_added_later(compile):
    mine, net = model(), model()
    results = []
    for optimizer, module in (
        (TorchOptimizer(mine[0].parameters(), adamw(1e-2), compile=compile), mine),
        (torch.optim.AdamW(net[0].parameters(), lr=1e-2), net),
    ):
        train(optimizer, module, 7)
        before = {k: v.clone() for k, v in optimizer.state[module[0].weight].items()}
        optimizer.add_param_group({"params": module[2].parameters(), "lr": 1e-3})
        after = optimizer.state[module[0].weight]
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        results.append(train(optimizer, module, 7)[0])
    assert_equal(*results)


def test_names_of_parameters_reach_masks():
    net = model()
    tx = optfx.adamw(0.1, weight_decay=0.5, mask=optfx.select.path("*.weight"))
    optimizer = TorchOptimizer(net.named_parameters(), tx)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p, start[name] * (1 - 0.1 * 0.5 * name.endswith("weight")))
    with pytest.raises(ValueError, match=r"two parameters are called '0\.weight'"):
        optimizer.add_param_group({"params": [("0.weight", nn.Parameter(torch.ones(1)))]})
    assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = TorchOptimizer(embedding.named_parameters(), optfx.sgd(0.1))
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="the gradient of 'weight' is sparse"):
        optimizer.step()


MISFITS = {
    "another shape": (lambda u: {k: x.sum() for k, x in u.items()}, r"'0\.bias' has the shape \(\)", "'0.bias'"),
    "a number": (lambda u: dict.fromkeys(u, 0.1), "is a float", "a float"),
    "one is missing": (lambda u: {k: x for k, x in u.items() if k != "2.weight"}, r"'2\.weight' is a None", "lacks"),
    "None": (lambda u: None, "is a None", "lacks"),
}


@pytest.mark.parametrize(("make", "words", "compiled"), MISFITS.values(), ids=MISFITS)
def test_updates_that_do_not_fit(make, words, compiled):
    for around in (optfx.identity(), optfx.clip_by_global_norm(1.0)):
        for compile in (False, True):
            net = model()
            before = copy.deepcopy(net.state_dict())
            tx = optfx.chain(around, optfx.stateless(lambda u, p: make(u)))
            optimizer = TorchOptimizer(sorted(net.named_parameters()), tx, compile=compile)
            loss_of(net).backward()
            with pytest.raises(ValueError, match=compiled if compile else f"TorchOptimizer: the update of .*{words}"):
                optimizer.step()
            assert all(torch.equal(x, before[k]) for k, x in net.state_dict().items())


@pytest.mark.parametrize("compile", [False, True])
def test_gradients_that_are_other_parameters(compile, monkeypatch):
    monkeypatch.setattr(program, "BLOCK", 1)
    x, y = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0, -1.0]))
    optimizer = TorchOptimizer([x, y], optfx.sgd(0.1), compile=compile)
    x.grad, y.grad = y.detach(), x.detach()
    want = x.detach() - 0.1 * y.detach(), y.detach() - 0.1 * x.detach()
    optimizer.step()
    torch.testing.assert_close((x.detach(), y.detach()), want)


def test_hooks():
    net, seen = model(), []
    optimizer = TorchOptimizer(net.parameters(), optfx.sgd(0.1))
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda _, saved: saved | {"more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: seen.append(f"load {saved.pop('more')}"))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "load 1", "loaded"]


def test_state_that_keeps_gradients_or_parameters_is_not_overwritten():
    def keep(updates, state, params=None):
        return updates, (params, updates)

    tx = optfx.chain(optfx.core.from_functions(lambda params: (params, params), keep), optfx.sgd(0.1))
    p = nn.Parameter(torch.ones(2))
    optimizer = TorchOptimizer([p], tx)
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert optimizer.state[p]["0.0"].tolist() == [1, 1]
    assert optimizer.state[p]["0.1"].tolist() == [1, 1]


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_complex_parameters(compile):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 2, generator=generator, dtype=torch.complex128)
    ours, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    a, b = TorchOptimizer([ours], adamw(0.1), compile=compile), torch.optim.AdamW([other], lr=0.1)
    for _ in range(5):
        ours.grad = torch.randn(3, 2, generator=generator, dtype=torch.complex128)
        other.grad = ours.grad.clone()
        a.step()
        b.step()
    assert_equal([ours], [other])


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_memory_of_a_parameter_that_moved(compile):
    """`p.data = ...`, as `module.to` and others do, between two steps."""
    mine, net = model(), model()
    ours = TorchOptimizer(mine.parameters(), adamw(1e-2), compile=compile)
    others = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(3):
        assert_equal(train(ours, mine, 3)[0], train(others, net, 3)[0])
        for p in mine.parameters():
            p.data = p.data.clone()


# ---- saving ----------------------------------------------------------------------------------------------------------


def fresh(compile=False, dtype=torch.float64, **numbers):
    net = model(dtype)
    groups = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.02}]
    return TorchOptimizer(groups, optfx.chain(optfx.clip_by_global_norm(1.0), adamw(1e-2)), compile=compile), net


@pytest.mark.parametrize("into", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("compile", [False, True], ids=["from eager", "from compiled"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_resume_is_bit_equal(compile, into, dtype):
    optimizer, net = fresh(compile, dtype)
    train(optimizer, net, 5)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "net": net.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, resumed = fresh(compile, dtype)
    other.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["net"])
    for state, again in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert {k: v.dtype for k, v in state.items()} == {k: v.dtype for k, v in again.items()}
        assert all(torch.equal(state[k], again[k]) for k in state)
    assert_equal(train(optimizer, net, 5)[0], train(other, resumed, 5)[0], 0)
    switched, third = fresh(into, dtype)
    switched.load_state_dict(saved["optimizer"])
    third.load_state_dict(saved["net"])
    rtol = 1e-10 if dtype == torch.float64 else 1e-2
    assert_equal(train(switched, third, 5)[0], [p.detach() for p in net.parameters()], rtol)


def test_state_dict_is_strict():
    optimizer, net = fresh()
    train(optimizer, net, 2)
    good = optimizer.state_dict()

    def broken(change):
        saved = copy.deepcopy(good)
        change(saved)
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(ValueError, match=r"does(n't| not) (fit|match)|different number") as error:
            optimizer.load_state_dict(saved)
        after = optimizer.state_dict()
        for i, state in before["state"].items():
            assert all(torch.equal(x, after["state"][i][k]) for k, x in state.items())
        assert before["param_groups"] == after["param_groups"]
        return str(error.value)

    def put(i, key, value):
        return lambda saved: saved["state"][i].update({key: value})

    mu = good["state"][2]["1.0.mu"]
    assert "parameter 1 ('1') lacks '1.0.mu'" in broken(lambda saved: saved["state"][1].pop("1.0.mu"))
    for key in ("1.0.mu", "1.0.nu"):  # what is unknown is somebody else's, unless something is missing
        good["state"][0].update({key[:-1]: mu})
        assert f"parameter 0 ('0') has the unexpected {key[:-1]!r}" in broken(lambda s, k=key: s["state"][0].pop(k))
        good["state"][0].pop(key[:-1])
    assert "has (7,) torch.float64 for '1.0.mu', expected (2, 7)" in broken(put(2, "1.0.mu", mu[0]))
    assert "has (2, 7) torch.float32 for '1.0.mu', expected (2, 7) torch.float64" in broken(
        put(2, "1.0.mu", mu.float())
    )
    assert "has a float for '1.0.mu', expected a tensor" in broken(put(2, "1.0.mu", 0.5))
    assert "different number of parameter groups" in broken(lambda saved: saved["param_groups"].pop())
    assert "parameter 3 ('3') lacks '0.count'" in broken(lambda saved: saved["state"].pop(3))


def test_nothing_is_shared():
    optimizer, net = fresh()
    train(optimizer, net, 2)
    saved = optimizer.state_dict()
    memory = [x.untyped_storage().data_ptr() for state in saved["state"].values() for x in state.values()]
    assert len(memory) == len(set(memory))
    other, _ = fresh(compile=True)
    other.load_state_dict(saved)
    theirs = {x.untyped_storage().data_ptr() for state in other.state.values() for x in state.values()}
    assert theirs.isdisjoint(memory)
    lr = torch.tensor(0.1)
    two = TorchOptimizer([{"params": net[0].parameters()}, {"params": net[2].parameters()}], optfx.sgd(lr))
    assert len({id(lr), *(id(g["lr"]) for g in two.param_groups)}) == 3


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies(how, compile):
    optimizer, net = fresh(compile)
    train(optimizer, net, 3)
    twin_optimizer, twin = how((optimizer, net))
    public = {name for name in vars(optimizer) if not name.startswith("_")}
    assert public == {name for name in vars(twin_optimizer) if not name.startswith("_")}
    assert twin_optimizer.param_groups[0]["params"][0] is twin[0].weight
    assert_equal(train(optimizer, net, 3)[0], train(twin_optimizer, twin, 3)[0], 0)
    twin_optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, dtype=torch.float64))]})


def test_torchs_names_from_an_old_checkpoint():
    """A checkpoint of `torch.optim.AdamW`, renamed by a hook."""
    mine, net = model(), model()
    others = torch.optim.AdamW(net.parameters(), lr=1e-2)
    train(others, net, 5)
    ours = TorchOptimizer(mine.parameters(), adamw(1e-2))
    mine.load_state_dict(net.state_dict())

    def rename(optimizer, saved):
        new = {}
        for i, state in saved["state"].items():
            step = state["step"].to(torch.int64)
            moments = {"0.mu": state["exp_avg"], "0.nu": state["exp_avg_sq"]}
            new[i] = {"0.count": step, "1.count": step, "2.count": step, **moments}
        groups = [{**g, "eps_root": 0.0} for g in saved["param_groups"]]
        return {"state": new, "param_groups": groups}

    ours.register_load_state_dict_pre_hook(rename)
    ours.load_state_dict(others.state_dict())
    assert_equal(train(ours, mine, 5)[0], train(others, net, 5)[0])


# ---- others that hold an optimizer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [False, True])
def test_grad_scaler(compile):
    mine, net = model(torch.float32), model(torch.float32)
    for optimizer, module in (
        (TorchOptimizer(mine.parameters(), adamw(1e-2), compile=compile), mine),
        (torch.optim.AdamW(net.parameters(), lr=1e-2), net),
    ):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for k in range(4):
            optimizer.zero_grad()
            scaler.scale(loss_of(module, k)).backward()
            if k == 2:
                module[0].weight.grad[0, 0] = torch.inf
            before = [p.detach().clone() for p in module.parameters()]
            if k != 1:  # the optimizer does it else
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            moved = any(not torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
            assert moved == (k != 2)
        assert scaler.get_scale() == 512.0
    assert_equal(mine.parameters(), net.parameters(), 1e-6)


def test_a_scaled_step_does_not_ask_whether_to_take_place(monkeypatch):
    """What a GradScaler has found stays on the device; clips see gradients without the scale."""
    tx = optfx.chain(optfx.clip_by_global_norm(0.1), optfx.adamw(1e-2))
    mine, plain = model(torch.float32), model(torch.float32)
    optimizer, other = (TorchOptimizer(m.parameters(), tx, compile=True) for m in (mine, plain))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monkeypatch.setattr(scaler, "_maybe_opt_step", None)  # which waits for the device
    for k in range(5):
        optimizer.zero_grad()
        scaler.scale(loss_of(mine, k)).backward()
        if k == 2:
            mine[0].weight.grad[0, 0] = torch.nan
        before = [x.clone() for p in mine.parameters() for x in (p.detach(), *optimizer.state[p].values())]
        scaler.step(optimizer)
        scaler.update()
        after = [x for p in mine.parameters() for x in (p.detach(), *optimizer.state[p].values())]
        if k == 2:
            assert all(map(torch.equal, before, after))
            continue
        other.zero_grad()
        loss_of(plain, k).backward()
        other.step()
        if k == 3:  # without a scaler, for once
            optimizer.zero_grad()
            other.zero_grad()
            for m, o in ((mine, optimizer), (plain, other)):
                loss_of(m, k).backward()
                o.step()
    assert_equal(mine.parameters(), plain.parameters(), 1e-6)


def test_optimizer_in_backward():
    mine, net = model(), model()
    optimizers = {p: TorchOptimizer([p], adamw(1e-2)) for p in mine.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in mine.parameters():
        p.register_post_accumulate_grad_hook(step)
    others = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for k in range(5):
        loss_of(mine, k).backward()
        others.zero_grad()
        loss_of(net, k).backward()
        others.step()
    assert_equal(mine.parameters(), net.parameters())


def test_swa_and_averaged_models():
    net = model()
    optimizer = TorchOptimizer(net.parameters(), optfx.sgd(0.1))
    average = torch.optim.swa_utils.AveragedModel(net)
    train(optimizer, net, 3)
    average.update_parameters(net)
    assert_equal(average.module.parameters(), net.parameters(), 0)


def test_its_text_shows_the_chain_and_the_numbers_of_each_group():
    model = torch.nn.Linear(3, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 1e-2, "maximize": True}]
    optimizer = TorchOptimizer(groups, optfx.chain(optfx.clip(1.0), optfx.adamw(1e-3)))
    optimizer.param_groups[0]["weight_decay"] = torch.tensor(0.5)
    assert (
        repr(optimizer)
        == """\
TorchOptimizer(
    chain(
        clip(max_delta=1.0),
        chain(
            scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0),
            add_decayed_weights(weight_decay=0.0001),
            scale_by_learning_rate(learning_rate=0.001),
        ),
    )
    group 0, 1 parameter: max_delta=1.0, betas=(0.9, 0.999), eps=1e-08, eps_root=0.0, \
weight_decay=torch.tensor(0.5, dtype=torch.float32), lr=0.001
    group 1, 1 parameter: max_delta=1.0, betas=(0.9, 0.999), eps=1e-08, eps_root=0.0, \
weight_decay=0.0001, lr=0.01, maximize=True
)"""
    )
