"""The public surface: every transform has a row in the registry, every name a docstring, a place and no second one."""

import importlib
import inspect

import optax
import pytest

import optfx
from tests.registry import ROWS

FLAT = ["combinators", "transforms", "optimizers"]  # the layers of transforms, whose names are those of `optfx`
MODULES = ["core", "interop", "random", "schedules", "sweep", "tree"]
LOOP = ["apply_updates", "carry", "describe", "donate", "fuse", "grads", "hyperparams", "incremental_update"]
LOOP += ["load_params", "micro_grad", "params"]
PREDICATES = ["skip_large_updates", "skip_not_finite"]  # for a combinator
LAYERS = [*FLAT, *MODULES, "compiler"]


def public(layer):
    module = importlib.import_module(f"optfx.{layer}")
    return {name: getattr(module, name) for name in module.__all__}


TRANSFORMS = [name for layer in FLAT for name in public(layer) if name not in PREDICATES]
SCHEDULES = [name for name in optfx.schedules.__all__ if hasattr(optax, name)]


def test_every_transform_has_a_row_and_every_row_is_public():
    assert {row.name for row in ROWS} == {*TRANSFORMS, "from_functions"}
    assert len({row.id for row in ROWS}) == len(ROWS)


def test_flat_names():
    assert len(SCHEDULES) == 14
    names = [*TRANSFORMS, *PREDICATES, *SCHEDULES, *LOOP, *MODULES, "select"]
    assert sorted(optfx.__all__) == sorted(names)
    assert len(names) == len(set(names))


def test_a_flat_name_is_that_of_its_layer():
    for layer in [*FLAT, "schedules"]:
        for name, x in public(layer).items():
            if name in optfx.__all__:
                assert getattr(optfx, name) is x
    for name in LOOP:
        assert getattr(optfx, name) is getattr(optfx.compiler if name == "fuse" else optfx.core, name)
    for name in [*MODULES, "select"]:
        assert inspect.ismodule(getattr(optfx, name))


@pytest.mark.parametrize("layer", LAYERS)
def test_names_exist_once_and_are_documented(layer):
    names = importlib.import_module(f"optfx.{layer}").__all__
    assert len(set(names)) == len(names)
    for name, x in public(layer).items():
        if inspect.isclass(x) or inspect.isfunction(x):
            doc = x.__doc__ or ""
            assert doc.strip(), f"optfx.{layer}.{name} has no docstring"
            assert not doc.startswith(f"{name}("), f"optfx.{layer}.{name} has only a generated docstring"


@pytest.mark.parametrize("name", optfx._MOVED)
def test_a_moved_name_says_where_it_is(name):
    where = optfx._MOVED[name]
    with pytest.raises(AttributeError) as error:
        getattr(optfx, name)
    assert str(error.value) == f"optfx.{name} is now {where}"
    layer, _, new = where.partition(".")
    if new.isidentifier():
        assert new in public(layer)


def test_states_and_unknown_names():
    with pytest.raises(AttributeError, match="ScaleByAdamState: the class of a state stands in the file of its"):
        optfx.ScaleByAdamState  # noqa: B018
    with pytest.raises(AttributeError, match="module 'optfx' has no attribute 'adamm'"):
        optfx.adamm  # noqa: B018


def test_what_optax_calls_by_these_names_exists_here():
    theirs = {n for n in dir(optax) if n in set(optfx.__all__)}
    assert {"adamw", "chain", "cosine_decay_schedule", "apply_if_finite", "clip_by_global_norm"} <= theirs
