"""Who may import whom."""

import ast
import sys
from pathlib import Path

import pytest

import optfx

ROOT = Path(optfx.__file__).parent
BASE = {"hints", "tree", "random", "core"}
ALLOWED = {
    "files": set(),
    "elsewhere": set(),
    "hints": {"elsewhere"},
    "tree": {"hints"},
    "random": {"tree"},
    "core": {"hints", "tree", "random"},
    "schedules": BASE,
    "combinators": BASE,
    "transforms": BASE | {"schedules", "combinators"},
    "optimizers": BASE | {"schedules", "combinators", "transforms"},
    "compiler": {"hints", "tree", "core", "combinators"},
}
TOP = {"sweep", "interop"}  # on top of all, never each other; they alone may import files
OUTSIDE = {"tree": {"torch", "optree"}}  # else torch alone
BY_TRITON = {"functions.py"}  # a file that only kernels import, which Triton reads
STANDARD = set(sys.stdlib_module_names)


def layer_of(file):
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imports(file):
    """(module, whether at the top level of the file) of every import."""
    tree = ast.parse(file.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: a relative import"
            if node.module == "optfx":
                yield from ((f"optfx.{alias.name}", id(node) in top) for alias in node.names)
            else:
                yield node.module, id(node) in top


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports(file):
    layer = layer_of(file)
    for module, at_top in imports(file):
        head, *rest = module.split(".")
        if head == "optfx":
            other = rest[0] if rest else ""
            known = set(ALLOWED) | TOP
            if other not in known:  # a flat name: only the layers on top may use those
                assert layer in TOP, f"{file}: imports {module} from the flat surface"
            elif other != layer:
                allowed = ALLOWED.get(layer, set(ALLOWED))
                assert other in allowed, f"{layer} may not import {module}"
        elif head not in STANDARD:
            if layer in TOP and not at_top:
                continue
            allowed = {"triton"} if file.name in BY_TRITON and file.parent.name == "triton" else set()
            assert head in OUTSIDE.get(layer, {"torch"}) | allowed, f"{file}: imports {module}"


def test_files_are_one_idea():
    for file in FILES:
        assert len(file.read_text().splitlines()) <= 320, f"{file} has outgrown one idea"
        assert file.stem not in {"utils", "helpers", "misc"}
