"""Whatever is wrong with whichever leaf of whatever tree: an error that names the path, and nothing changed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optfx
from optfx import tree

NAMES = st.text("abw", min_size=1, max_size=2)
SHAPE = st.lists(st.integers(1, 3), max_size=3).map(tuple)
LEAF = st.builds(lambda shape: torch.ones(shape, dtype=torch.float64), SHAPE)
TREES = st.recursive(
    LEAF,
    lambda inner: (
        st.dictionaries(NAMES, inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
).filter(lambda t: not isinstance(t, torch.Tensor))

OPTIMIZERS = {
    "adamw": lambda: optfx.adamw(0.1),
    "clipped": lambda: optfx.chain(optfx.clip_by_global_norm(1.0), optfx.sgd(0.1, momentum=0.9)),
    "masked": lambda: optfx.masked(optfx.adam(0.1), optfx.select.ndim(min=1)),
    "partition": lambda: optfx.partition(
        {"m": optfx.rmsprop(0.1), "r": optfx.adam(0.1)}, optfx.select.label({"m": optfx.select.ndim(min=2)}, "r")
    ),
    "finite": lambda: optfx.apply_if_finite(optfx.adagrad(0.1), 2),
    "injected": lambda: optfx.inject_hyperparams(optfx.amsgrad(0.1)),
}

SPOILED = {
    "none": lambda x: None,
    "longer": lambda x: torch.ones((*x.shape, 2), dtype=x.dtype),
    "other shape": lambda x: torch.ones([n + 1 for n in x.shape] or [2], dtype=x.dtype),
    "a tree": lambda x: {"deeper": x},
    "another device": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
}


def spoil(t, index, how):
    leaves = tree.leaves(t)
    leaves[index] = SPOILED[how](leaves[index])
    return tree.unflatten_like(t, leaves)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(OPTIMIZERS)), TREES, st.sampled_from(sorted(SPOILED)), st.data())
def test_a_spoiled_gradient(name, params, how, data):
    index = data.draw(st.integers(0, len(tree.leaves(params)) - 1))
    path = tree.paths(params)[index]
    tx = OPTIMIZERS[name]()
    state = tx.init(params)
    before = tree.map(torch.clone, (params, state))
    with pytest.raises((ValueError, TypeError)) as error:
        optfx.apply_updates(params, tx.update(spoil(params, index, how), state, params)[0])
    assert path in str(error.value)
    assert tree.allclose((params, state), before)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(OPTIMIZERS)), TREES, st.data())
def test_integer_and_foreign_parameters(name, params, data):
    index = data.draw(st.integers(0, len(tree.leaves(params)) - 1))
    leaves = tree.leaves(params)
    for value in (leaves[index].to(torch.int64), leaves[index].to(torch.bool), 1.0, "w"):
        spoiled = tree.unflatten_like(params, [value if i == index else x for i, x in enumerate(leaves)])
        if name in ("masked", "partition") and not isinstance(value, torch.Tensor):
            continue  # the rules ask for ndim, which a float lacks
        seen = not (name == "masked" and leaves[index].ndim == 0)
        if seen:
            with pytest.raises(TypeError, match=r"the parameter at '" + tree.paths(params)[index].replace(".", r"\.")):
                OPTIMIZERS[name]().init(spoiled)


@settings(max_examples=40, deadline=None)
@given(TREES, st.sampled_from(sorted(SPOILED)), st.data())
def test_a_spoiled_state(params, how, data):
    """A state that is not the optimizer's own, as after a wrong load."""
    tx = optfx.scale_by_adam()
    state = tx.init(params)
    index = data.draw(st.integers(0, len(tree.leaves(params)) - 1))
    bad = state._replace(mu=spoil(state.mu, index, how))
    before = tree.map(torch.clone, (params, state))
    with pytest.raises((ValueError, TypeError), match=r"adam: .*argument 1") as error:
        tx.update(params, bad, params)
    assert tree.paths(params)[index] in str(error.value)
    assert tree.allclose((params, state), before)


def test_sparse_parameters_and_what_is_no_module():
    with pytest.raises(TypeError, match=r"the parameter at 'w' is torch\.sparse_coo, expected torch\.strided"):
        optfx.adam(0.1).init({"w": torch.eye(2).to_sparse()})
    for f in (optfx.params, optfx.grads, lambda x: optfx.load_params(x, {})):
        with pytest.raises(TypeError, match=r"expected an nn\.Module, got a generator"):
            f(torch.nn.Linear(1, 1).parameters())
