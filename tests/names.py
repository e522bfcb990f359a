"""The cheat sheet: what optax and torch call it, and what it is called here.

    python -m tests.names        writes the tables of docs/names.md anew

A name that optax and optfx share needs no entry, and one that differs is in `optfx.elsewhere`, which the errors read
too. `LOOP` and `ALSO` have what is neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import optax
import optax.contrib
import torch

import optfx
from optfx import hints

PAGE = Path(__file__).parents[1] / "docs/names.md"
BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"
PARTS = ("transforms", "schedules", "losses", "projections", "tree", "tree_utils", "assignment", "perturbations")
OPTAX = (
    "optax.contrib",  # what is also in the next one is deprecated there
    "optax",
    *(f"optax.{part}" for part in (*PARTS, "second_order", "microbatching")),
)
TORCH = ("torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils", "torch.nn.utils", "torch.nn", "torch")


class Row(NamedTuple):
    optax: str
    torch: str
    here: str


LOOP = [
    Row(
        "`GradientTransformation`",
        "`Optimizer`",
        "`optfx.core.GradientTransformation`, a base class; `optfx.core.from_functions` makes one of two functions; "
        "`optfx.interop.TorchOptimizer` is an optimizer of torch around one",
    ),
    Row("`GradientTransformation.init`", "", "`state = tx.init(params)`"),
    Row("`GradientTransformation.update`", "", "`updates, state = tx.update(grads, state, params)`"),
    Row(
        "`apply_updates`",
        "`Optimizer.step`",
        "`optfx.apply_updates`; `optfx.fuse` has a step that does all of it in place",
    ),
    Row(
        "",
        "`Module.zero_grad`, `Tensor.backward`",
        "the same, then `optfx.grads`; or gradients are values, by `torch.func.grad`",
    ),
    Row("", "`Module.parameters`, `Module.named_parameters`", "`optfx.params`, by name"),
    Row("", "`Module.load_state_dict`", "`optfx.load_params`"),
    Row(
        "",
        "`Optimizer.state_dict`, `save`",
        "`optfx.interop.state_dict` of any tree; `optfx.interop.save` of a whole run, in one file",
    ),
    Row("", "`Optimizer.load_state_dict`, `load`", "`optfx.interop.load_state_dict`, `optfx.interop.load`"),
    Row(
        "",
        "`Optimizer.add_param_group`",
        "`optfx.partition`: an optimizer for each label; `optfx.masked`: a step for some parameters",
    ),
    Row("", "`LRScheduler.step`", "nobody steps a schedule: it is given as the learning rate"),
    Row("", "`compile`", "`optfx.fuse` for an optimizer; `optfx.donate` in a step that is compiled as a whole"),
    Row("", "`amp.GradScaler`", "`optfx.apply_if_finite` skips steps that are not finite"),
    Row("", "`Tensor.requires_grad_`", "`optfx.freeze`"),
]
"""What is done in a training loop."""

ALSO = {
    "optfx.amsgrad": "`Adam(amsgrad=True)`",
    "optfx.scale_by_stddev": "`RMSprop(centered=True)`",
    "optfx.trace": "`SGD(momentum=0.9)`",
    "optfx.add_decayed_weights": "`AdamW(weight_decay=0.01)`",
    "optfx.scale": "`SGD(maximize=True)`",
    "optfx.params_ema": "`get_ema_multi_avg_fn`",
    "optfx.params_average": "`get_swa_multi_avg_fn`",
    "optfx.tree.norm": "`get_total_norm`",
}
"""`{name here: what is like it in torch}`"""


def resolve(path: str) -> Any:
    first, *rest = path.split(".")
    x = {"optax": optax, "optfx": optfx, "torch": torch}[first]
    for name in rest:
        x = getattr(x, name)
    return x


def there(name: str, modules: tuple[str, ...]) -> str:
    """The name in code, as the first of the modules has it that does, or nothing. A part of optax is a prefix."""
    for module in modules:
        if hasattr(resolve(module), name):
            return f"`{module}.{name}`".replace("optax.", "") if module in OPTAX else f"`{name}`"
    return ""


def joined(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, names)))


def same_thing(hint: str) -> list[str]:
    """The names here that a hint puts in the place of another one, where it says no more before a semicolon."""
    whole = re.fullmatch(r"(`optfx\.[\w.]+`(?: (?:and|or) `optfx\.[\w.]+`)*)(?:;.*|, and `eval_params`)?", hint)
    return re.findall(r"`([\w.]+)`", whole[1]) if whole else []


def code(path: str, layer: str) -> str:
    """The name in code, with a link to the reference, which has all but aliases of types."""
    x = resolve(path)
    if not getattr(x, "__module__", "").startswith("optfx"):
        return f"`{path}`"
    return f"[`{path}`](reference/{layer}.md#{x.__module__}.{x.__qualname__})"


def rows_of(layer: str) -> Iterator[Row]:
    """What a layer exports and optax or torch has, by the same name or another."""
    module = resolve(f"optfx.{layer}")
    for name in sorted(module.__all__, key=str.lower):
        flat = getattr(optfx, name, None) is getattr(module, name)
        path = f"optfx.{name}" if flat else f"optfx.{layer}.{name}"
        others = [other for other, hint in hints.NAMES.items() if path in same_thing(hint)]
        of_trees = layer in ("tree", "random")
        same = f"`tree.{name}`" if of_trees and hasattr(optax.tree, name) else "" if of_trees else there(name, OPTAX)
        theirs = [same, *(there(other, OPTAX) for other in others)]
        torchs = [there(other, TORCH) for other in others if not there(other, OPTAX)]
        row = Row(joined(theirs), joined([*torchs, ALSO.get(path, "")]), code(path, layer))
        if (row.optax or row.torch) and row.optax not in {done.optax for done in LOOP if done.optax}:
            yield row


def rows_of_others() -> Iterator[Row]:
    """What optax or torch has, and has no one name here. What is left out of optax is on a page of its own."""
    said: dict[str, list[str]] = {}
    for name, hint in hints.NAMES.items():
        theirs = there(name, TORCH if hint.startswith("not here") else OPTAX) or there(name, TORCH)
        if theirs and not same_thing(hint) and theirs not in {row.torch for row in LOOP}:
            said.setdefault(linked(hint), []).append(name)
    for hint, names in said.items():
        torchs = [there(name, TORCH) for name in names if not there(name, OPTAX)]
        yield Row(joined(there(name, OPTAX) for name in names), joined(torchs), hint)


def linked(hint: str) -> str:
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", hint)


def elsewhere() -> str:
    """What only papers and other packages call so."""
    names = sorted((n for n in hints.NAMES if not there(n, OPTAX) and not there(n, TORCH)), key=str.lower)
    return "\n".join(["| there | here |", "|---|---|", *(f"| `{n}` | {linked(hints.NAMES[n])} |" for n in names)])


def table(*rows: Row) -> str:
    lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join(["| optax | torch | optfx |", "|---|---|---|", *lines])


def arguments() -> str:
    lines = ["| there | here |", "|---|---|"]
    for name, hint in hints.ARGUMENTS.items():
        here = hint if isinstance(hint, str) else ", ".join(f"`{x}`".replace(" and ", "` and `") for x in hint)
        lines.append(f"| `{name}` | {here} |")
    return "\n".join(lines)


def tables() -> str:
    sections = {
        "The training loop": [table(*LOOP, *rows_of("core"))],
        "Optimizers": [table(*rows_of("optimizers"))],
        "Transforms: scaling, clipping, averages": [table(*rows_of("transforms"))],
        "Combinators": [table(*rows_of("combinators"))],
        "Schedules": [
            "All of them count updates; inside `optfx.schedules.per_epoch` they count epochs.",
            table(*rows_of("schedules")),
        ],
        "Trees and random numbers": [table(*rows_of("tree"), *rows_of("random"))],
        "Not one to one": [
            table(*rows_of_others()),
            "What of optax is left out, and why: [every name of optax](from-optax.md#every-name-of-optax).",
        ],
        "In papers and other packages": [elsewhere()],
        "Arguments": ["Of several names, the first counts that the function has.", arguments()],
    }
    return "\n\n".join(f"## {title}\n\n" + "\n\n".join(parts) for title, parts in sections.items())


def page(path: Path, tables: str) -> str:
    """A page with the tables in their place."""
    text = path.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    return f"{before}{BEGIN}\n\n{tables}\n\n{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE, tables()))
