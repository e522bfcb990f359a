"""Masks and labels: what is a rule and what a tree, and rules that select nothing. And chains that go uphill."""

import warnings
from typing import NamedTuple

import pytest
import torch

import optfx
from optfx import core, select, sweep, tree
from optfx.interop import TorchOptimizer


class Pair(NamedTuple):
    w: object
    b: object

    def __call__(self, x):
        return "called"


@tree.record
class net:
    w: object
    b: object

    def __call__(self, x):
        return "called"


@pytest.mark.parametrize("kind", [Pair, net])
def test_a_mask_whose_class_can_be_called_is_a_tree(kind):
    p, mask = kind(torch.ones(2), torch.ones(2)), kind(True, False)
    updates, _ = (tx := optfx.masked(optfx.scale(0.0), mask)).update(p, tx.init(p), p)
    assert (float(updates.w.sum()), float(updates.b.sum())) == (0.0, 2.0)
    assert tx.update(p, tx.init(p))[0].b.sum() == 2.0  # a tree needs no params
    tx = optfx.freeze(mask)
    assert tx.update(p, tx.init(p), p)[0].w.sum() == 0.0
    tx = optfx.partition({"x": optfx.scale(2.0), "y": optfx.scale(3.0)}, kind("x", "y"))
    assert tx.update(p, tx.init(p), p)[0].b.tolist() == [3.0, 3.0]
    nested = optfx.masked(optfx.scale(0.0), {"net": mask, "c": False})
    tree_ = {"net": p, "c": torch.ones(1)}
    assert nested.update(tree_, nested.init(tree_), tree_)[0]["net"].w.sum() == 0.0


def test_a_function_on_a_callable_tree_is_still_a_function():
    p = net(torch.ones(2), torch.ones(2))
    tx = optfx.masked(optfx.scale(0.0), lambda params: tree.map(lambda x: True, params))
    assert tx.update(p, tx.init(p), p)[0].w.sum() == 0.0
    tx = optfx.masked(optfx.scale(0.0), select.path("b"))
    assert tx.update(p, tx.init(p), p)[0].w.sum() == 2.0


# ---- rules that select nothing -------------------------------------------------------------------------

P = {"encoder": {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "head": torch.ones(2)}
IDLE = {
    "masked": lambda rule: optfx.masked(optfx.scale(0.5), rule),
    "freeze": optfx.freeze,
    "decay": lambda rule: optfx.adamw(0.1, mask=rule),
    "deep": lambda rule: optfx.inject_hyperparams(optfx.chain(optfx.apply_if_finite(optfx.adamw(0.1, mask=rule), 2))),
    "labels": lambda rule: optfx.partition(
        {"x": optfx.sgd(0.1), "y": optfx.adam(0.1)}, select.label({"x": rule}, default="y")
    ),
}
MISSPELT = {
    "path": select.path("encodr.*"),
    "or": select.path("encodr.*") | select.path("tail"),
    "and": select.path("encodr.*") & select.ndim(min=1),
}
MEANT = {
    "all": True,
    "none": False,
    "found": select.path("encoder.*"),
    "found by one": select.path("encoder.*") | select.path("*.norm*"),
    "no matrices": select.ndim(min=5),
    "no big ones": select.size(min=100),
    "all but": ~select.path("*.norm*"),
    "a function": lambda params: tree.map(lambda x: False, params),
}


@pytest.mark.parametrize("make", IDLE.values(), ids=IDLE)
@pytest.mark.parametrize("rule", MISSPELT.values(), ids=MISSPELT)
def test_a_path_that_no_parameter_has_is_a_warning(make, rule):
    with pytest.warns(
        UserWarning, match=r"no parameter; did you mean 'encoder\.\*'.*; the paths are encoder\.bias, e"
    ) as found:
        make(rule).init(P)
    assert len(found) == 1
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    ("pattern", "near"), [("bias", "'*.bias'"), ("encodr.bias", "'encoder.bias'"), ("hed", "'head'"), ("zzz", None)]
)
def test_a_pattern_that_matches_no_path_is_told_near_ones(pattern, near):
    with pytest.warns(UserWarning, match="selects no parameter") as found:
        optfx.masked(optfx.scale(0.0), select.path(pattern)).init(P)
    said = str(found[0].message)
    assert ("did you mean" in said) == (near is not None)
    assert near is None or f"did you mean {near}" in said


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.parametrize("rule", MEANT.values(), ids=MEANT)
def test_no_false_alarm(name, rule):
    if name == "labels" and not isinstance(rule, select.Selector):
        rule = select.path("*")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IDLE[name](rule).init(P)
        optfx.masked(IDLE[name](rule), {"encoder": True, "head": False}).init(
            {"encoder": P["encoder"], "head": P["head"]}
        )


def test_a_rule_inside_a_part_is_judged_by_the_whole():
    head = select.path("head")
    inner = {"x": optfx.chain(optfx.freeze(head), optfx.sgd(0.1)), "y": optfx.sgd(0.1)}
    tx = optfx.partition(inner, {"encoder": "x", "head": "y"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx.init(P)
        groups = [[("encoder", torch.nn.Parameter(torch.ones(2)))], [("head", torch.nn.Parameter(torch.ones(2)))]]
        TorchOptimizer([{"params": group} for group in groups], optfx.adamw(0.1, mask=head))
        optfx.adamw(0.1, mask=head).init({})
    with pytest.warns(UserWarning, match=r"add_decayed_weights: .* the paths are encoder\.bias"):
        optfx.partition(inner | {"y": optfx.adamw(0.1, mask=select.path("tail"))}, {"encoder": "x", "head": "y"}).init(
            P
        )


# ---- uphill ------------------------------------------------------------------------------------------

W = select.ndim(min=2)
UPHILL = {
    "two optimizers": lambda: optfx.chain(optfx.adam(0.1), optfx.sgd(0.1)),
    "a rate after an optimizer": lambda: optfx.chain(optfx.adam(0.1), optfx.scale_by_learning_rate(0.1)),
    "named": lambda: optfx.named_chain(("a", optfx.adam(0.1)), ("b", optfx.sgd(0.1))),
    "wrapped": lambda: optfx.chain(optfx.apply_if_finite(optfx.adam(0.1), 3), optfx.clip(1.0), optfx.sgd(0.1)),
    "after groups": lambda: optfx.chain(
        optfx.partition({"a": optfx.sgd(0.1), "b": optfx.adam(0.1)}, "a"), optfx.sgd(1.0)
    ),
}
DOWNHILL = {
    "one": lambda: optfx.chain(optfx.clip(1.0), optfx.adam(0.1)),
    "no flip": lambda: optfx.chain(optfx.adam(0.1), optfx.scale_by_learning_rate(0.1, flip_sign=False)),
    "a factor": lambda: optfx.chain(optfx.adam(0.1), optfx.scale(0.5)),
    "uphill on purpose": lambda: optfx.chain(optfx.adam(0.1), optfx.scale(-1.0)),
    "halves": lambda: optfx.chain(optfx.masked(optfx.adam(0.1), W), optfx.masked(optfx.sgd(0.1), ~W)),
    "a half at another rate": lambda: optfx.chain(
        optfx.masked(optfx.scale_by_learning_rate(2.0, flip_sign=False), W), optfx.adam(0.1)
    ),
    "groups": lambda: optfx.partition({"a": optfx.sgd(0.1), "b": optfx.adam(0.1)}, "a"),
}


@pytest.mark.parametrize("make", UPHILL.values(), ids=UPHILL)
def test_two_learning_rates_would_go_uphill(make):
    with pytest.raises(ValueError, match=r"the steps \d and \d have a learning rate each"):
        make()


@pytest.mark.parametrize("make", DOWNHILL.values(), ids=DOWNHILL)
def test_one_learning_rate_for_each_leaf(make):
    make()


# ---- which tensors are batches -----------------------------------------------------------------------


@tree.record
class gated(core.Stateless):
    """Multiplies by a tensor that all members share."""

    rate: core.Hyper
    gate: torch.Tensor

    def apply(self, updates, params, rate):
        return tree.scale(rate, tree.mul(updates, {"w": self.gate}))


def test_a_shared_tensor_is_no_batch():
    rates, gate, g = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0, 1.0]), {"w": torch.ones(3)}
    tx = gated(rates, gate)
    axes = sweep.in_axes(tx)
    assert (axes.rate, axes.gate) == (0, None)
    out = torch.func.vmap(lambda tx: tx.update(g, tx.init(g))[0]["w"], (axes,))(tx)
    assert out.tolist() == [[1.0, 0.0, 1.0], [2.0, 0.0, 2.0]]
    both = sweep.stack([gated(1.0, gate), gated(2.0, gate)])
    assert sweep.in_axes(both).gate == 0
    assert sweep.in_axes(optfx.sgd(optfx.schedules.table_schedule(torch.ones(2, 5)))).steps[0].learning_rate.values == 0
    table = optfx.sgd(optfx.schedules.table_schedule(torch.ones(5)), momentum=torch.tensor([0.5, 0.9]))
    assert sweep.in_axes(table).steps[1].learning_rate.values is None
