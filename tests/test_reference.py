"""The reference shows what the code has: its constructors, and no name that a layer does not export."""

import importlib
import inspect
import re
from pathlib import Path

import griffe
import pytest

import optfx

ROOT = Path(__file__).parents[1]


def required(parameter):
    return parameter.default is None or parameter.kind is griffe.ParameterKind.var_positional


def classes(module):
    """Every class that griffe finds in the package, with the class it stands for."""
    for member in module.members.values():
        if not member.is_alias and member.is_module:
            yield from classes(member)
        elif not member.is_alias and member.is_class and not module.is_class:
            yield member, getattr(importlib.import_module(module.path), member.name)


@pytest.fixture(scope="module")
def reference():
    extensions = griffe.load_extensions(str(ROOT / "docs/_griffe.py"))
    return griffe.load("optfx", search_paths=[ROOT], extensions=extensions)


def test_constructors(reference):
    shown = {}
    for documented, cls in classes(reference):
        if not hasattr(cls, "_is_record") and not hasattr(cls, "_fields"):
            continue
        parameters = list(documented.parameters)[1:]
        expected = inspect.signature(cls).parameters.values()
        assert [(p.name, p.kind.name, required(p)) for p in parameters] == [
            (p.name, p.kind.name.lower(), p.default is p.empty) for p in expected
        ], documented.path
        shown[cls.__name__] = documented
    assert "scale_by_adam" in shown
    assert "chain" in shown


def test_only_exported_names_are_shown(reference):
    def shown(module, whole=()):
        for member in module.members.values():
            if member.is_public and not member.is_alias and member.name not in whole:
                yield from shown(member) if member.is_module else [member.name]

    layers = [m for m in reference.modules.values() if m.is_init_module]
    assert layers
    for layer in layers:
        module = importlib.import_module(layer.path)
        whole = {name for name in module.__all__ if inspect.ismodule(getattr(module, name))}
        assert sorted(shown(layer, whole)) == sorted(set(module.__all__) - whole)


def test_a_page_opens_with_a_table_of_names(reference):
    for layer in (m for m in reference.modules.values() if m.is_init_module):
        module = importlib.import_module(layer.path)
        _, table, *_ = layer.docstring.value.split("\n\n")
        head, _, *rows = table.splitlines()
        assert head == "| name | one line |"
        shown = dict(re.fullmatch(r"\| \[`(\w+)`\]\[[\w.]+\] \| (.+) \|", row).groups() for row in rows)
        assert sorted(shown) == sorted(module.__all__)
        for name, line in shown.items():
            x = getattr(module, name)
            if inspect.ismodule(x) or getattr(x, "__module__", "").startswith("optfx."):  # not so an alias of a type
                assert " ".join(inspect.getdoc(x).split()).startswith(line.replace(r"\|", "|")), name


def test_every_layer_has_a_page():
    found = Path(optfx.__file__).parent.iterdir()
    layers = {p.stem for p in found if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    public = {name for name in layers if hasattr(importlib.import_module(f"optfx.{name}"), "__all__")}
    assert layers - public == {"elsewhere", "files", "hints"}  # one saves what others hand it, two are docs/names.md
    assert {p.stem for p in (ROOT / "docs/reference").glob("*.md")} == public
