"""A transform that owns the step: nothing may scale what it gives."""

import pytest

import optfx
from optfx import core, select, tree


@tree.record
class own_step(core.Stateless):
    """Decides the rate and the sign by itself."""

    final = True

    def apply(self, updates, params):
        return tree.scale(-0.1, updates)


@tree.record
class around(core.Wrapper):
    """A final transform that holds another, such as a line search around its direction."""

    final = True
    inner: core.GradientTransformation


RATE = optfx.scale_by_learning_rate(0.1)
MATRICES = select.ndim(min=2)
NESTED = {
    "chain": lambda tx: optfx.chain(optfx.identity(), tx),
    "named_chain": lambda tx: optfx.named_chain(("one", tx)),
    "deep": lambda tx: optfx.chain(optfx.chain(optfx.chain(tx), optfx.identity())),
    "inject_hyperparams": optfx.inject_hyperparams,
    "apply_if_finite": lambda tx: optfx.apply_if_finite(tx, 3),
}


@pytest.mark.parametrize("chained", [optfx.chain, lambda *steps: optfx.named_chain(*zip("abc", steps, strict=False))])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (own_step(), own_step()),
        (own_step(), RATE),
        (own_step(), optfx.sgd(0.1)),
        (around(optfx.identity()), RATE),
        (around(own_step()), own_step()),
    ],
)
def test_nothing_scales_a_final_step(chained, first, second):
    name = type(second).__name__ if second.final else "scale_by_learning_rate"
    message = (
        f"chain: {name} after {type(first).__name__}, which is final: its updates already have their rate and sign"
    )
    with pytest.raises(ValueError, match=message):
        chained(first, second)
    with pytest.raises(ValueError, match=message):
        chained(first, optfx.identity(), second)


@pytest.mark.parametrize("outer", NESTED)
@pytest.mark.parametrize("inner", NESTED)
def test_however_deep_they_are(outer, inner):
    for second in (own_step(), RATE):
        with pytest.raises(ValueError, match=r"chain: .* after own_step, which is final"):
            optfx.chain(NESTED[outer](own_step()), NESTED[inner](second))


def test_what_goes_well():
    optfx.chain(RATE, own_step())
    optfx.chain(optfx.clip(1.0), own_step(), optfx.scale(0.5), optfx.params_ema(0.9))
    around(own_step())
    optfx.chain(around(optfx.chain(optfx.scale_by_adam(), own_step())), optfx.identity())


def test_on_other_leaves_they_do_not_meet():
    optfx.chain(optfx.masked(own_step(), MATRICES), optfx.masked(own_step(), ~MATRICES))
    optfx.chain(optfx.masked(optfx.chain(own_step()), MATRICES), optfx.masked(optfx.sgd(0.1), ~MATRICES))
    optfx.partition({"a": own_step(), "b": own_step()}, select.label({"a": MATRICES}, default="b"))
    with pytest.raises(ValueError, match="chain: scale_by_learning_rate after own_step"):
        optfx.masked(optfx.chain(own_step(), RATE), MATRICES)


def test_side_by_side_they_do_not_meet_but_count_for_what_follows():
    two = optfx.parallel((own_step(), optfx.sgd(0.1)))
    optfx.chain(optfx.identity(), two)
    optfx.chain(optfx.parallel((optfx.sgd(0.1), own_step())), optfx.params_ema(0.9))
    for second in (own_step(), RATE, two):
        with pytest.raises(ValueError, match="after own_step, which is final"):
            optfx.chain(two, second)
    with pytest.raises(ValueError, match="scale_by_learning_rate after own_step"):
        optfx.chain(own_step(), optfx.graft(optfx.scale_by_sign(), optfx.sgd(0.1)))


def test_the_transforms_that_own_their_step():
    for own in (optfx.scale_by_asgd(0.1), optfx.asgd(0.1), optfx.hyperball(0.1)):
        with pytest.raises(ValueError, match=r"scale_by_learning_rate after \w+, which is final"):
            optfx.chain(own, RATE)
