"""`from_torch` and `to_torch`: every optimizer and option set of torch's own tests, live, in both directions."""

from __future__ import annotations

import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

import optfx
from optfx import interop
from optfx.interop.patterns import read
from optfx.interop.torch_specs import SPECS
from tests.interop.parity import cases, difference, give, start
from tests.interop.torch_table import PAGE, rows, table


@pytest.fixture(autouse=True)
def wide():
    torch.set_default_dtype(torch.float64)  # NAdam and ASGD keep numbers in tensors of the default dtype
    yield
    torch.set_default_dtype(torch.float32)


CASES = [pytest.param(options, cls, id=name) for name, options, cls in cases()]


@pytest.mark.parametrize(("options", "cls"), CASES)
def test_next_steps_are_equal(options, cls):
    there, back = difference(cls, options)
    # bfloat16 inside Muon turns the last bit of a float64 into one of a bfloat16
    assert there < (1e-3 if cls is torch.optim.Muon else 1e-12)
    assert back < (1e-3 if cls is torch.optim.Muon else 1e-12)


@pytest.mark.parametrize(("options", "cls"), CASES)
def test_there_and_back_is_the_same_state_dict(options, cls):
    optimizer, _ = start(cls, options)
    tx, params, state = interop.from_torch(optimizer)
    back = interop.to_torch(tx, {name: p.requires_grad_() for name, p in params.items()}, state)
    mine, theirs = back.state_dict(), optimizer.state_dict()
    assert len(mine["param_groups"]) == len(theirs["param_groups"])
    for a, b in zip(mine["param_groups"], theirs["param_groups"], strict=True):
        assert a == b
    assert mine["state"].keys() == theirs["state"].keys()
    for i, kept in theirs["state"].items():
        kept = {k: v for k, v in kept.items() if v is not None}
        assert mine["state"][i].keys() == kept.keys()
        for key, value in kept.items():
            torch.testing.assert_close(mine["state"][i][key], value, rtol=1e-12, atol=0, check_dtype=False)


def test_every_optimizer_of_torch_is_converted_or_says_why():
    assert {info.optim_cls for info in optim_db} - SPECS.keys() == {torch.optim.LBFGS, torch.optim.SparseAdam}
    p = torch.nn.Parameter(torch.ones(2))
    for cls, why in ((torch.optim.SparseAdam, "sparse"), (torch.optim.LBFGS, "evaluates the loss")):
        with pytest.raises(TypeError, match=f"{cls.__name__} cannot be converted: .*{why}"):
            interop.from_torch(cls([p]))

    class Mine(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    with pytest.raises(TypeError, match="Mine cannot be converted: optfx has none like it"):
        interop.from_torch(Mine([p], lr=0.1))


def test_a_subclass_that_steps_as_its_parent_is_converted():
    class Logged(torch.optim.AdamW):
        def __init__(self, params, lr):
            super().__init__(params, lr=lr, weight_decay=0.3)
            self.log = []

        def report(self):
            return self.log

    p = torch.nn.Parameter(torch.ones(2))
    for make in (Logged, torch.optim.AdamW):
        optimizer = make([p], lr=0.1)
        p.grad = torch.ones(2)
        optimizer.step()  # which hooks the step of the class
        assert isinstance(interop.from_torch(optimizer)[0].steps[0], optfx.scale_by_adam)
    assert optfx.core.numbers(interop.from_torch(Logged([p], 0.1))[0])["1.weight_decay"] == 0.3


@pytest.mark.parametrize("cls", SPECS)
def test_in_float32(cls):
    """NAdam and ASGD keep numbers in the default dtype, where a transform has them in float64."""
    torch.set_default_dtype(torch.float32)
    p = torch.nn.Parameter(torch.eye(3))
    optimizer = cls([p], lr=0.01)
    for _ in range(3):
        p.grad = torch.cos(p.detach())
        optimizer.step()
    tx, params, state = interop.from_torch(optimizer)
    back = {name: x.clone().requires_grad_() for name, x in params.items()}
    again = interop.to_torch(tx, back, state)
    for _ in range(3):
        p.grad, back["0"].grad = torch.cos(p.detach()), torch.cos(back["0"].detach())
        updates, state = tx.update({"0": torch.cos(params["0"])}, state, params)
        params = optfx.apply_updates(params, updates)
        optimizer.step()
        again.step()
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if cls is torch.optim.Muon else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(params["0"], p.detach(), **tolerance)
    torch.testing.assert_close(back["0"], p, **tolerance)


def test_one_group_is_a_plain_chain_and_nothing_is_shared():
    params = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    lr = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(params, lr=lr)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    tx, mine, state = interop.from_torch(optimizer)
    assert isinstance(tx, optfx.chain)
    assert list(mine) == ["0", "1"]
    ours = {x.untyped_storage().data_ptr() for x in optfx.tree.leaves((tx, mine, state))}
    theirs = {x.untyped_storage().data_ptr() for kept in optimizer.state.values() for x in kept.values()}
    theirs |= {x.untyped_storage().data_ptr() for x in (*params, lr)}
    assert ours.isdisjoint(theirs)
    assert repr(tx).startswith("chain(scale_by_adam(b1=0.9, b2=0.999, eps=1e-08")


def test_a_group_whose_parameters_took_different_steps_is_divided():
    optimizer, _ = start(torch.optim.Adam, {})
    tx, _, state = interop.from_torch(optimizer)
    assert set(tx.transforms) == {"group 0", "group 1/4", "group 1/7"}
    counts = {label: int(optfx.tree.get(inner, "0.count")) for label, inner in state.items()}
    assert counts == {"group 0": 7, "group 1/4": 4, "group 1/7": 7}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: optfx.sgd(0.1), "SGD"),
        (lambda: optfx.sgd(0.1, 0.9, nesterov=True, weight_decay=0.1), "SGD"),
        (lambda: optfx.adam(1e-3), "Adam"),
        (lambda: optfx.adamw(torch.tensor(1e-3)), "AdamW"),
        (lambda: optfx.chain(optfx.scale(-1.0), optfx.adagrad(0.1, 0.0, eps_in_sqrt=False)), "Adagrad"),
        (lambda: optfx.rprop(0.1), "Rprop"),
        (lambda: optfx.asgd(0.1, weight_decay=0.1), "ASGD"),
        (lambda: optfx.radam(0.1, eps_before_correction=True), "RAdam"),
    ],
)
def test_optimizers_of_optfx_become_torchs(make, kind):
    tx = make()
    generator = torch.Generator().manual_seed(0)
    params = {"layer": {"w": torch.randn(3, 2, generator=generator)}, "b": torch.randn(2, generator=generator)}
    live = optfx.tree.map(lambda p: p.clone().requires_grad_(), params)
    state = tx.init(params)
    updates, state = tx.update(params, state, params)
    optimizer = interop.to_torch(tx, live, state)
    assert type(optimizer).__name__ == kind
    assert optimizer.param_groups[0]["param_names"] == ["b", "layer.w"]
    for k in range(5):
        give(dict(zip(("b", "layer.w"), optfx.tree.leaves(live), strict=True)), k)
        grads = optfx.tree.map(lambda p: p.grad.clone(), live)
        updates, state = tx.update(grads, state, params)
        params = optfx.apply_updates(params, updates)
        optimizer.step()
        for p, q in zip(optfx.tree.leaves(params), optfx.tree.leaves(live), strict=True):
            torch.testing.assert_close(p, q.detach(), rtol=1e-10, atol=1e-12)
            q.data.copy_(p)  # gradients depend on the last bit


def test_what_torch_does_not_have():
    params = {"a": torch.ones(2), "b": torch.ones(2)}
    for tx in (
        optfx.rmsprop(0.1),  # epsilon under the root
        optfx.chain(optfx.clip(1.0), optfx.sgd(0.1)),
        optfx.sgd(optfx.linear_schedule(0.1, 0.0, 10)),
        optfx.adamw(1e-3, mask=optfx.select.ndim(min=2)),
    ):
        with pytest.raises(ValueError, match=r"torch\.optim has no optimizer for"):
            interop.to_torch(tx, params, tx.init(params))
    two = optfx.partition({"x": optfx.sgd(0.1), "y": optfx.adam(0.1)}, {"a": "x", "b": "y"})
    with pytest.raises(ValueError, match="the parts are several optimizers of torch: Adam, SGD"):
        interop.to_torch(two, params, two.init(params))


def test_each_recipe_reads_back_what_it_makes():
    for name, options, cls in cases():
        optimizer, _ = start(cls, options)
        tx, *_ = interop.from_torch(optimizer)
        for chain in tx.transforms.values():
            spec, found = read(chain)
            assert spec.optimizer is cls, name
            assert {k: v for k, v in found.items() if k in options and k != "lr"} == {
                k: v for k, v in options.items() if k in found and k != "lr"
            }


def test_the_page_shows_the_recipes():
    """`python -m tests.interop.torch_table` writes them there."""
    assert "\n".join(table()) in PAGE.read_text()


@pytest.mark.parametrize(("spec", "recipe", "torchs", "expression"), [pytest.param(*row, id=row[2]) for row in rows()])
def test_what_the_page_shows_is_what_torch_and_the_recipe_make(spec, recipe, torchs, expression):
    torchs = torchs.replace("=...", "=0.9")  # a value that is not the default
    params = [torch.nn.Parameter(torch.ones(2, 2))]
    optimizer = eval(torchs, {"torch": torch, "params": params})
    tx, *_ = interop.from_torch(optimizer)
    options = {name: optimizer.param_groups[0][name] for name in recipe.options}
    absent = {name: None for name, x in options.items() if recipe.options[name] and x == 0}
    assert repr(eval(expression, {"torch": torch, "optfx": optfx}, options | absent)) == repr(tx)
    other, found = read(tx)
    # a decoupled Adam is read as the AdamW that it is
    assert other is spec or "decoupled_weight_decay" in recipe.when
    assert options.items() <= found.items()
