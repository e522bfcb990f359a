"""A plain number that no optimizer can mean is refused when the transform is made; tensors and schedules never are."""

import math

import numpy as np
import pytest
import torch

import optfx
from optfx import core, tree
from optfx.core.hyper import KINDS, _alternatives
from tests.harness import each
from tests.registry import ROWS

REFUSED = {
    "adam(-1e-3)": lambda: optfx.adam(-1e-3),
    "sgd(nan)": lambda: optfx.sgd(math.nan),
    "adam b1": lambda: optfx.adam(0.1, b1=1.0),
    "adam b2": lambda: optfx.adam(0.1, b2=-0.1),
    "adam eps": lambda: optfx.adam(0.1, eps=-1e-8),
    "radam b2": lambda: optfx.radam(0.1, b2=1.0),
    "adamw decay": lambda: optfx.adamw(0.1, weight_decay=-0.1),
    "numpy": lambda: optfx.adam(np.float32(-0.1)),
    "int": lambda: optfx.sgd(-1),
    "in a wrapper": lambda: optfx.apply_if_finite(optfx.sgd(0.1), -1),
    "rmsprop": lambda: optfx.rmsprop(0.1, decay=1.1),
    "clip": lambda: optfx.clip_by_global_norm(-1.0),
    "muon": lambda: optfx.muon(0.1, beta=1.5),
    "params_ema": lambda: optfx.params_ema(1.5),
}
NO_NUMBER = {
    "str": lambda: optfx.adam("1e-3"),
    "a module": lambda: optfx.adam(torch.nn.Linear(2, 2)),
    "parameters": lambda: optfx.adam(torch.nn.Linear(2, 2).parameters()),
    "list of parameters": lambda: optfx.sgd(list(torch.nn.Linear(2, 2).parameters())),
    "dict": lambda: optfx.sgd({"w": torch.ones(2)}),
    "floats": lambda: optfx.sgd([0.1, 0.2]),
    "bool": lambda: optfx.sgd(True),
    "None": lambda: optfx.sgd(None),
    "complex": lambda: optfx.sgd(1j),
    "in a schedule's place": lambda: optfx.clip("1.0"),
}
# what torch or optax accept on purpose, and what users mean
ACCEPTED = {
    "zeros": lambda: optfx.adamw(0.0, b1=0.0, b2=0.0, eps=0.0, weight_decay=0.0),
    "no clip": lambda: optfx.clip_by_global_norm(math.inf),
    "clip to nothing": lambda: optfx.clip_by_global_norm(0),
    "uphill": lambda: optfx.scale(-1.0),
    "negative momentum": lambda: optfx.sgd(0.1, momentum=-0.5),
    "a sum": lambda: optfx.trace(1.0),
    "an average that stays": lambda: optfx.params_ema(1.0),
    "rho of torch": lambda: optfx.adadelta(1.0, rho=1.0),
    "alpha of torch": lambda: optfx.rmsprop(0.1, decay=1.0, initial_scale=1.0),
    "adamax": lambda: optfx.adamax(0.1, b2=1.0),
    "dampening": lambda: optfx.sgd(0.1, momentum=0.9, dampening=1.5),
    "rate of one": lambda: optfx.sgd(1e6),
    "no epsilon": lambda: optfx.adafactor(0.1, eps=None, eps_is_floor=True),
    "an average from before": lambda: optfx.params_average(-1.0),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_a_number_that_cannot_be_meant(make):
    with pytest.raises(ValueError, match=r"\w+\.\w+ is .*, expected (at least 0|a number that is not NaN)"):
        make()


@pytest.mark.parametrize("make", NO_NUMBER.values(), ids=NO_NUMBER)
def test_what_is_no_number(make):
    with pytest.raises(TypeError, match=r"\w+\.\w+ is .*, expected a number"):
        make()


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_meant(make):
    tx, p = make(), {"w": torch.ones(3)}
    tx.update(p, tx.init(p), p)


def fields():
    """Every number field with limits, of every transform of the registry."""
    found = {}
    for row in ROWS:
        for _, tx in each(row.make(**row.hypers)):
            for f in core.hyper_fields(tx):
                found[type(tx).__name__, f] = tx
    return found


@pytest.mark.parametrize("place", sorted(fields()), ids=".".join)
def test_every_field_keeps_its_annotation_and_looks_at_no_tensor(place):
    _, name = place
    tx = fields()[place]
    (kind,) = {KINDS[a] for a in _alternatives(type(tx).__dataclass_fields__[name].type) if a in KINDS}

    def given(value):
        new = tree.replace(tx, **{name: value})
        new.__post_init__()
        return new

    beyond = [math.nan, *([kind.least - 1] if kind.least > -math.inf else []), *([kind.most] if kind.below else [])]
    for value in beyond:
        with pytest.raises(ValueError, match=rf"\.{name} is"):
            given(value)
        given(torch.tensor(value))
        given(lambda count, value=value: value)
        torch.func.vmap(given)(torch.tensor([value, value]))
        assert getattr(tree.replace(tx, **{name: value}), name) is value  # a copy is not looked at


def test_numbers_of_an_authors_transform():
    @tree.record
    class mine(core.Stateless):
        share: core.Decay
        size: "core.NonNegative | None" = None
        free: float = -1.0
        later: core.Hyper = None  # a default is the author's affair
        word: "float | str" = "auto"

    mine(1.0)
    mine(1.0, 0.0, 5.0, -3.0, "manual")
    for bad in ({"share": 1.5}, {"share": 0.5, "size": -1.0}, {"share": 0.5, "free": math.nan}):
        with pytest.raises(ValueError, match=r"mine\.\w+ is"):
            mine(**bad)


def test_a_transform_made_in_a_compiled_function(fresh_dynamo):
    def step(rate, p):
        tx = optfx.chain(optfx.clip(1.0), optfx.adam(rate))
        return tx.update(p, tx.init(p), p)[0]

    p, rate = {"w": torch.ones(3)}, torch.tensor(0.1)
    out = torch.compile(step, fullgraph=True, backend="aot_eager")(rate, p)
    torch.testing.assert_close(out, step(rate, p))
