"""Results as files: tensors and JSON, complete or absent, and the folder of a run that may be killed at any moment."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optfx import files, tree
from optfx.sweep.history import History
from optfx.sweep.population import Mixed, Population
from optfx.sweep.probes import alike
from optfx.sweep.result import Result
from optfx.sweep.spaces import Labels
from optfx.tree import Tree

if TYPE_CHECKING:
    from optfx.sweep.trainer import Trainer

KIND, NAME = "optfx sweep", "sweep.pt"
FACTS = ("chunk_size", "compile_seconds", "run_seconds")
LATER = {"seconds": math.nan, "mode": None, "metric": None}  # facts that the first files did not hold


def write(path: str | Path, result: Result, job: dict[str, Any] | None = None) -> None:
    """Write everything into one file, completely or not at all."""
    if isinstance(result.params, Mixed):
        raise ValueError("save: members of several structures have a file each: result.parts()")
    words = {k: list(x) for k, x in result.configs.items() if isinstance(x, Labels)}
    groups: dict[str, Tree] = {"params": result.params}
    if result.population is not None:
        groups |= {"population": tree.replace(result.population, params=(), state=())}
        groups |= {"trained": result.population.params, "state": result.population.state}
    if result.history is not None:
        groups["history"] = result.history
    tensors = {"losses": result.losses, "diverged": result.diverged}
    tensors |= {f"configs/{name}": x for name, x in result.configs.items() if isinstance(x, Tensor)}  # in their order
    tensors |= {f"metrics/{name}": x for name, x in result.metrics.items()}
    for group, of in groups.items():
        tensors |= {f"{group}/{name}": x.contiguous() for name, x in tree.to_dict(of).items()}
    facts = {
        "kind": KIND,
        "names": [*result.configs],
        "words": words,
        "job": job,
        **{name: getattr(result, name) for name in (*FACTS, *LATER)},
    }
    files.write(path, {"facts": json.dumps(facts), "tensors": tensors})


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The facts, the groups of tensors, and the tensors that are in none."""
    found = files.read(path)
    facts = json.loads(found["facts"]) if isinstance(found, dict) and "facts" in found else {}
    if not isinstance(facts, dict) or facts.get("kind") != KIND:
        raise ValueError(f"{path} holds no {KIND}")
    groups: dict[str, dict[str, Tensor]] = {}
    alone = {}
    for name, x in found["tensors"].items():
        group, slash, rest = name.partition("/")
        if slash:
            groups.setdefault(group, {})[rest] = x
        else:
            alone[name] = x
    return facts, groups, alone


def load(path: str | Path, params: Tree = None) -> Result:
    """Read what `Result.save` wrote, or what is in the folder of a run, also while it runs. No code in it is run.

    Args:
        path: the file, or the folder.
        params: the parameters of one member, which give the structure of the tree; None for a flat dict by path, which
            suits parameters that were `{name: tensor}`.

    Raises:
        FileNotFoundError: nothing was written yet.
        ValueError: the file is of another kind; parameters that do not fit, listing their paths.
    """
    if Path(path).is_dir():
        parts = sorted(Path(path).glob(f"*/{NAME}"), key=lambda file: (len(file.parent.name), file.parent.name))
        if parts and not (Path(path) / NAME).exists():
            from optfx.sweep.joining import join

            return join([load(part, params) for part in parts])
        path = Path(path) / NAME
    facts, groups, alone = read(path)
    # a leaf alone is a tree too, whose path is empty; `losses` and `diverged` are no trees
    plain = {"losses": alone.pop("losses"), "diverged": alone.pop("diverged")}
    n = len(plain["diverged"])
    found = groups.get("params", {})
    if params is not None:
        like = tree.map(lambda x: x.detach().cpu().expand(n, *x.shape), params)
        found = tree.from_dict(like, found)
    configs: dict[str, Any] = {**groups.get("configs", {}), **{k: Labels(x) for k, x in facts.get("words", {}).items()}}
    own: dict[str, Any] = {name: facts[name] for name in FACTS} | {k: facts.get(k, x) for k, x in LATER.items()}
    return Result(
        configs={k: configs[k] for k in facts.get("names", configs)}, metrics=groups.get("metrics", {}),
        params=found, population=_population(groups), history=_history(groups), **plain, **own,
    )  # fmt: skip


def _population(groups: dict[str, dict[str, Tensor]]) -> Population | None:
    if "population" not in groups:
        return None
    flat = groups["population"]
    configs = {k: flat[f"configs.{k}"] for k in groups["configs"] if f"configs.{k}" in flat}
    rest = {k: x for k, x in flat.items() if not k.startswith("configs.")}
    params, state = (_alone(groups.get(name, {})) for name in ("trained", "state"))
    return Population(configs=configs, params=params, state=state, **rest)


def _alone(flat: dict[str, Tensor]) -> Tree:
    """A tensor that is a tree by itself has no path."""
    return flat[""] if [*flat] == [""] else flat


def _history(groups: dict[str, dict[str, Tensor]]) -> History | None:
    if "history" not in groups:
        return None
    flat = groups["history"]
    of = lambda group: {k.removeprefix(group): x for k, x in flat.items() if k.startswith(group)}
    rest = {k: flat[k] for k in ("steps", "values", "parent")}
    return History(metrics=of("metrics."), configs=of("configs."), **rest)


class Job:
    """The folder of a run, and what makes the run this one.

    Args:
        folder: where its file is.
        trainer, population, end, points, policy: of the run.
    """

    def __init__(
        self, folder: str | Path, trainer: Trainer, population: Population, end: int, points: Sequence[int], policy: Any
    ) -> None:
        self.path, self.population, self.trainer = Path(folder) / NAME, population, trainer
        ages = population.age, population.best, population.best_age
        self.facts = {
            "settings": digest(population.configs), "parameters": digest(population.params),
            "states of optimizers": digest(population.state), "keys of members": digest(population.key),
            "ages": digest(ages), **trainer.training.probes,
            "seed": trainer.seed, "metric": [trainer.metric, trainer.mode],
            "policy": None if policy is None else getattr(policy, "__qualname__", type(policy).__name__),
            "looks": [*points[:-1]], "steps": end,
        }  # fmt: skip

    def found(self) -> Result | None:
        """What this run had come to, if it has begun.

        Raises:
            ValueError: the folder is that of another job, with what differs.
        """
        if not self.path.exists():
            return None
        facts, _, _ = read(self.path)
        before, differ = facts["job"] or {}, []
        for name, now in self.facts.items():
            then = before.get(name)
            if name in self.trainer.training.probes:
                same = alike(then, now)
            elif name == "steps":  # more are another run only where a policy would have acted at the old end
                same = then == now or (then is not None and then < now and self.facts["policy"] is None)
            else:
                same = then == now
            if not same:
                differ.append(name)
        if differ:
            raise ValueError(f"{self.path.parent} is the folder of another job, which differs in: {', '.join(differ)}")
        result = load(self.path)
        assert result.population is not None
        # what is written to must share no memory
        population = tree.map(torch.clone, self.trainer.training.adopted(result.population))
        return dataclasses.replace(result, population=population)

    def write(self, result: Result) -> None:
        write(self.path, result, self.facts)


def digest(x: Tree) -> str:
    """A hash of the bits of all tensors."""
    found = hashlib.sha256()
    for path, leaf in zip(tree.paths(x), tree.leaves(x), strict=True):
        leaf = leaf.detach().cpu().contiguous()
        found.update(f"{path} {leaf.dtype} {tuple(leaf.shape)}".encode())
        if leaf.nbytes:
            found.update((ctypes.c_char * leaf.nbytes).from_address(leaf.data_ptr()))
    return found.hexdigest()[:16]
