"""The table of docs/from-torch.md: each optimizer of `torch.optim`, and how it is written here.

    python -m tests.interop.torch_table        # rewrites it from optfx/interop/torch_specs.py

The left side is torch's signature with its defaults, the right side the recipe as it stands in the source.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from pathlib import Path

import optfx
from optfx.interop.torch_specs import SPECS, Recipe, TorchSpec

PAGE = Path(__file__).parents[2] / "docs/from-torch.md"


def rows() -> list[tuple[TorchSpec, Recipe, str, str]]:
    """(spec, recipe, torch's call, our expression) of each recipe, that of torch's defaults first."""

    def rank(pair: tuple[TorchSpec, Recipe]) -> int:
        return len(pair[1].when.items() - pair[0].defaults.items())

    pairs = [pair for spec in SPECS.values() for pair in sorted([(spec, recipe) for recipe in spec.recipes], key=rank)]
    return [(spec, recipe, torchs(spec, recipe), expression(recipe)) for spec, recipe in pairs]


def torchs(spec: TorchSpec, recipe: Recipe) -> str:
    values = spec.defaults | recipe.when
    for other in spec.recipes:  # a default may belong to another recipe
        values |= {k: ... for k, x in other.when.items() if spec.defaults[k] == x and k not in recipe.when}
    given = [f"{name}={show(x)}" for name, x in values.items() if name in recipe.options or name in recipe.when]
    return f"torch.optim.{spec.optimizer.__name__}({', '.join(['params', *given])})"


def show(x: object) -> str:
    return "..." if x is ... else repr(x).replace("'", '"')


def expression(recipe: Recipe) -> str:
    """What a recipe returns, with optfx's names in full."""
    function = ast.parse(inspect.getsource(recipe.make)).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert isinstance(function.body[0], ast.Return)
    for node in ast.walk(function.body[0]):
        if isinstance(node, ast.Name) and node.id not in recipe.options and hasattr(optfx, node.id):
            node.id = f"optfx.{node.id}"
    return ast.unparse(function.body[0].value).replace("'", '"')


def table() -> list[str]:
    lines = [f"| `{theirs}` | `{ours}` |" for _, _, theirs, ours in rows()]
    return ["| `torch.optim` | optfx |", "|---|---|", *lines]


def put(page: Path, name: str, lines: Iterable[str]) -> None:
    """Write the lines into a page, between the comments `name:begin` and `name:end`."""
    before, begin, rest = page.read_text().partition(f"<!-- {name}:begin -->")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not (begin and end):
        raise ValueError(f"{page.name} has no place for the table")
    page.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}")


if __name__ == "__main__":
    put(PAGE, "optimizers", table())
