"""No name of optax goes unanswered: docs/from-optax.md has each of them once, and the errors say the same."""

import re

import optax
import pytest
import scipy.optimize
import torch

import optfx
from optfx import hints
from tests import from_optax, names

PUBLIC = from_optax.public()
PARTS = {module.removeprefix("optax.") for module in from_optax.MODULES} - {"optax"}
ALL = {path.rpartition(".")[2] for path in PUBLIC} | PARTS | {n for n in dir(optax.tree_utils) if n.startswith("tree_")}


@pytest.mark.parametrize("path", PUBLIC)
def test_every_name_of_optax_has_a_place(path):
    assert from_optax.answer(path), f"optax.{path}: a name of optfx, or a line in optfx/elsewhere.py"
    assert from_optax.section(path, PUBLIC[path])


def test_the_page_is_the_tables_and_has_every_name_once():
    tables = from_optax.tables()
    assert from_optax.PAGE.read_text() == names.page(from_optax.PAGE, tables), "python -m tests.from_optax writes it"
    rows = [line.split("|")[1] for line in tables.splitlines() if line.startswith("| ")]
    shown = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert sorted(shown) == sorted(PUBLIC)


def test_the_walk_sees_all_of_optax():
    flat = {name for name in dir(optax) if name[0] != "_" and not from_optax.is_state(name)}
    assert PARTS <= flat <= PARTS | set(PUBLIC)
    assert {"experimental", "contrib.muon", "tree.add", "losses.dice_loss", "transforms.unitwise_norm"} <= set(PUBLIC)
    of_trees = {name for name in dir(optax.tree) if name[0] != "_"}
    assert {f"tree_{name}" for name in of_trees} == {n for n in dir(optax.tree_utils) if n.startswith("tree_")}


def test_a_name_without_a_place_is_found_out(monkeypatch):
    monkeypatch.setattr(optax.contrib, "new_optimizer", lambda: None, raising=False)
    assert "contrib.new_optimizer" in from_optax.public()
    with pytest.raises(KeyError, match="new_optimizer"):
        from_optax.answer("contrib.new_optimizer")


@pytest.mark.parametrize("name", sorted(name for name in ALL if not hasattr(optfx, name)))
def test_a_name_that_is_not_flat_says_where_it_is(name):
    with pytest.raises(AttributeError, match=rf"^optfx has no '{name}'; |^optfx\.{name} is now "):
        getattr(optfx, name)


@pytest.mark.parametrize("name", [n for n in dir(optax.tree) if n[0] != "_" and not hasattr(optfx.tree, n)])
def test_a_name_of_trees_says_where_it_is(name):
    with pytest.raises(AttributeError, match=rf"^optfx\.tree has no '{name}'; "):
        getattr(optfx.tree, name)


@pytest.mark.parametrize("hint", sorted(set(hints.NAMES.values())))
def test_what_is_left_out_has_a_reason_and_what_is_elsewhere_exists(hint):
    assert not hint.startswith("not here") or re.match(r"not here( yet)?: \w", hint)
    for package, path in re.findall(r"`(torch|scipy)\.([\w.]+)", hint):
        x = {"torch": torch, "scipy": scipy}[package]
        for name in path.split("."):
            x = getattr(x, name)
