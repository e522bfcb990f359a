"""Extra arguments on their way in: each transform gets those that it knows, for the leaves that it sees."""

import pytest
import torch

import optfx
from optfx import core, select, tree


@tree.record
class raw(core.GradientTransformation):
    """The gradient before any transform, whatever became of it."""

    needs = ("grad",)

    def begin(self, params):
        return ()

    def step(self, updates, state, params, *, grad):
        assert tree.flatten(grad)[1] == tree.flatten(updates)[1]
        return tree.map(torch.clone, grad), state


@tree.record
class along(core.GradientTransformation):
    """Adds a direction, if one is given, times the loss."""

    takes = ("direction", "value")

    def begin(self, params):
        return ()

    def step(self, updates, state, params, *, direction=None, value=1.0):
        return updates if direction is None else tree.add(updates, tree.scale(value, direction)), state


def numbers(w, b):
    return {"w": torch.tensor([w]), "b": torch.tensor([b])}


PARAMS, GRADS, DIRECTION = numbers(1.0, 2.0), numbers(3.0, 4.0), numbers(10.0, 20.0)
B = select.path("b")


def updated(tx, **extra):
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, **extra)
    return {name: x.item() for name, x in updates.items()}


WRAPPED = {
    "chain": lambda tx: optfx.chain(tx),
    "named_chain": lambda tx: optfx.named_chain(("a", optfx.identity()), ("b", tx)),
    "masked": lambda tx: optfx.masked(tx, True),
    "partition": lambda tx: optfx.partition({"all": tx}, "all"),
    "inject_hyperparams": lambda tx: optfx.inject_hyperparams(tx),
    "apply_if_finite": lambda tx: optfx.apply_if_finite(tx, 3),
    "nested": lambda tx: optfx.chain(optfx.masked(optfx.inject_hyperparams(optfx.chain(tx)), True)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_chain_hands_on_the_gradient_that_it_was_given(name):
    tx = optfx.chain(optfx.scale(0.5), WRAPPED[name](raw()), optfx.scale(2.0))
    assert updated(tx) == {"w": 6.0, "b": 8.0}
    assert updated(tx, grad=DIRECTION) == {"w": 20.0, "b": 40.0}  # the caller's own comes first
    assert updated(optfx.named_chain(("half", optfx.scale(0.5)), ("raw", WRAPPED[name](raw())))) == {"w": 3.0, "b": 4.0}


def test_in_a_chain_inside_a_chain_it_is_that_of_the_outer_one():
    assert updated(optfx.chain(optfx.scale(0.5), optfx.chain(optfx.scale(7.0), raw()))) == {"w": 3.0, "b": 4.0}


def test_masked_and_partition_hand_on_their_part_of_the_gradient():
    assert updated(optfx.chain(optfx.scale(0.5), optfx.masked(raw(), B))) == {"w": 1.5, "b": 4.0}
    two = optfx.partition({"raw": raw(), "rest": optfx.scale(2.0)}, select.label({"raw": B}, default="rest"))
    assert updated(optfx.chain(optfx.scale(0.5), two)) == {"w": 3.0, "b": 4.0}
    assert updated(optfx.masked(optfx.chain(optfx.scale(0.5), raw()), B)) == {"w": 3.0, "b": 4.0}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_needed_and_missing_is_an_error_by_name(name):
    needy = WRAPPED[name](raw()) if "chain" not in name and name != "nested" else raw()
    message = r"raw needs the extra argument grad \(the gradient .*\): give grad=\.\.\. to `update` or `step`"
    with pytest.raises(ValueError, match=message):
        updated(needy)
    assert updated(needy, grad=GRADS) == {"w": 3.0, "b": 4.0}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_taken_may_be_missing(name):
    tx = WRAPPED[name](along())
    assert updated(tx) == {"w": 3.0, "b": 4.0}
    assert updated(tx, direction=DIRECTION, value=torch.tensor(0.5)) == {"w": 8.0, "b": 14.0}
    with pytest.raises(TypeError, match=r"unknown argument way; known are .*direction"):
        updated(tx, way=DIRECTION)


def test_what_is_shaped_like_params_is_split_as_the_updates_are():
    half = torch.tensor(0.5)
    assert updated(optfx.masked(along(), B), direction=DIRECTION, value=half) == {"w": 3.0, "b": 14.0}
    two = optfx.partition({"along": along(), "rest": raw()}, select.label({"along": B}, default="rest"))
    assert updated(two, direction=DIRECTION, value=half, grad=GRADS) == {"w": 3.0, "b": 14.0}
    deep = optfx.masked(optfx.chain(optfx.identity(), optfx.masked(along(), B)), True)
    assert updated(deep, direction=DIRECTION) == {"w": 3.0, "b": 24.0}


def test_beside_a_single_parameter_the_loss_is_not_split():
    tx, w = optfx.masked(optfx.chain(along(), raw()), False), torch.ones(2)
    assert torch.equal(tx.update(w, tx.init(w), w, value=torch.tensor(0.5), grad=w)[0], w)
    tx = optfx.masked(along(), True)
    updates, _ = tx.update(w, tx.init(w), w, value=torch.tensor(0.5), direction=w)
    assert updates.tolist() == [1.5, 1.5]
