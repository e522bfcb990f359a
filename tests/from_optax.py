"""Every public name of optax and where it is here: the tables of docs/from-optax.md.

    python -m tests.from_optax        writes them anew

What has the same name here is found by it, and everything else in `optfx.elsewhere`, which the errors read too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optax

import optfx
from optfx import hints
from tests import names

PAGE = Path(__file__).parents[1] / "docs/from-optax.md"
MODULES = ["optax", *(module for module in names.OPTAX if module != "optax")]
LAYERS = ("optimizers", "transforms", "combinators", "schedules", "core")
SECTIONS = {
    "Optimizers": r"_src\.alias |functools ",
    "Transforms": r"optax\.transforms\.|_src\.(transform|factorized|linesearch|base) ",
    "Combinators and wrappers": r"\._(combining|masking|conditionality|layouts) |lookahead |MultiSteps|[sS]kip",
    "Schedules": r"\bschedules\.|collections\.abc ",
    "Updates and gradients": r"_src\.update |\b(microbatching|second_order)\.| scale_gradient",
    "Trees": r"\btree_utils\.",
    "Contrib": r"optax\.contrib\.",
    "Projections": r" projections\.",
    "Losses": r"optax\.losses\.",
    "Types, numerics and others": r"_src\.(utils|numerics|linear_algebra) (?!scale_gradient)|typing |\b(assignment"
    r"|perturbations)\.| experimental",
}
"""`{section: files of optax, and names}`. Of several sections, the last."""

KINDS = ("here", "elsewhere", "left out")


def is_state(name: str) -> bool:
    return name.endswith("State") and name not in hints.NAMES


def public() -> dict[str, Any]:
    """`{path: what optax has there}`, each thing once: in `optax` itself, or else in the part of it that has it."""
    found: dict[str, Any] = {}
    seen = set()
    for module in MODULES:
        for name, x in inspect.getmembers(names.resolve(module)):
            same = (name.removeprefix("tree_"), id(x))
            if not name.startswith("_") and not is_state(name) and not is_walked(x) and same not in seen:
                seen.add(same)
                found[f"{module}.{name}".removeprefix("optax.")] = x
    return found


def is_walked(x: Any) -> bool:
    """Whether x is a module whose names are here, or not optax's."""
    return inspect.ismodule(x) and (x.__name__ in MODULES or not x.__name__.startswith("optax."))


def section(path: str, x: Any) -> str:
    where = f"{getattr(x, '__module__', '')} {path}"
    return [title for title, pattern in SECTIONS.items() if re.search(pattern, where)][-1]


def same(path: str) -> str:
    """What has the same name here, as a link, or nothing."""
    part, _, name = path.rpartition(".")
    for layer in ("tree", "random") if part == "tree" else LAYERS:
        module = names.resolve(f"optfx.{layer}")
        if name in module.__all__:
            flat = getattr(optfx, name, None) is getattr(module, name)
            return names.code(f"optfx.{name}" if flat else f"optfx.{layer}.{name}", layer)
    return ""


def answer(path: str) -> str:
    """Where it is here, or elsewhere, or why it is left out."""
    return same(path) or names.linked(hints.NAMES[path.rpartition(".")[2]])


def kind(answer: str) -> str:
    """One of KINDS."""
    if answer.startswith("not here"):
        return "left out"
    return "elsewhere" if re.match(r"`(torch|scipy)\.", answer) else "here"


def rows(paths: list[str]) -> Iterator[tuple[str, str]]:
    """(names, where they are): those that are the same here first, then those of which the same is said."""
    by_answer: dict[str, list[str]] = {}
    for path in sorted(paths, key=str.lower):
        here = "optfx.tree" if path.startswith("tree.") else "optfx"
        link, name = answer(path), path.rpartition(".")[2]
        if link.startswith(f"[`{here}.{name}`]"):
            by_answer.setdefault(f"the same name in `{here}`", []).append(link.replace(f"`{here}.{name}`", f"`{path}`"))
        else:
            by_answer.setdefault(link, []).append(f"`{path}`")
    for where in sorted(by_answer, key=lambda where: (not where.startswith("the same"), KINDS.index(kind(where)))):
        yield ", ".join(by_answer[where]), where


def tables() -> str:
    found = public()
    kinds = [kind(answer(path)) for path in found]
    parts = [
        f"Of the {len(found)} names of optax {optax.__version__} {kinds.count('here')} are here, as they are or in "
        f"another form, {kinds.count('elsewhere')} are elsewhere, and {kinds.count('left out')} are left out."
    ]
    for title in SECTIONS:
        lines = [
            f"| {theirs} | {where} |" for theirs, where in rows([p for p, x in found.items() if section(p, x) == title])
        ]
        parts.append("\n".join([f"### {title}\n", "| optax | optfx |", "|---|---|", *lines]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(names.page(PAGE, tables()))
