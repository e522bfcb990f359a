"""The public surface: every name has a row in the registry, a documented docstring, and one home."""

import importlib
import inspect

import pytest

import optfx
from tests.registry import ROWS

LAYERS = [
    "tree",
    "random",
    "core",
    "schedules",
    "combinators",
    "transforms",
    "optimizers",
    "compiler",
    "sweep",
    "interop",
]


def is_transform(x):
    if inspect.isclass(x):
        return issubclass(x, optfx.core.GradientTransformation) and hasattr(x, "_is_record")
    returns = inspect.signature(x).return_annotation if inspect.isfunction(x) else ""
    return "chain" in str(returns) or "masked" in str(returns) or "GradientTransformation" in str(returns)


def public(layer):
    module = importlib.import_module(f"optfx.{layer}")
    return {name: getattr(module, name) for name in module.__all__}


@pytest.mark.parametrize("layer", ["core", "combinators", "transforms", "optimizers"])
def test_every_transform_has_a_row(layer):
    names = {name for name, x in public(layer).items() if is_transform(x)} - {"as_transform", "need_params"}
    assert names <= {row.name for row in ROWS}
    assert layer == "core" or names


def test_every_row_is_public():
    assert {row.name for row in ROWS} <= set(optfx.__all__)


@pytest.mark.parametrize("layer", LAYERS)
def test_names_are_sorted_exist_and_are_documented(layer):
    module = importlib.import_module(f"optfx.{layer}")
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name, x in public(layer).items():
        if inspect.isclass(x) or inspect.isfunction(x):
            doc = x.__doc__ or ""
            assert doc.strip(), f"optfx.{layer}.{name} has no docstring"
            assert not doc.startswith(f"{name}("), f"optfx.{layer}.{name} has only a generated docstring"


def test_flat_names():
    """Flat in `optfx`: everything of core, combinators, transforms and optimizers, and optax's schedules."""
    for layer in ("core", "combinators", "transforms", "optimizers", "compiler"):
        for name, x in public(layer).items():
            assert getattr(optfx, name) is x
            assert name in optfx.__all__
    assert len([n for n in optfx.schedules.__all__ if n in optfx.__all__]) == 14
    for name in optfx.__all__:
        assert hasattr(optfx, name)


def test_what_optax_calls_by_these_names_exists_here():
    import optax

    theirs = {n for n in dir(optax) if n in set(optfx.__all__)}
    assert {"adamw", "chain", "cosine_decay_schedule", "apply_if_finite", "clip_by_global_norm"} <= theirs
