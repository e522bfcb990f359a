"""Members in the middle of training, as a value: a tree whose tensors have a leading dimension over them.

Who goes on is an index, so successive halving is `population[best]`, and a copy is an index that names a member twice.
The optimizers are not in it. They are a function of the settings, made anew whenever members train: to change a number
of a member in the middle of a run is to change its row of `configs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.tree import Tree


@tree.record
class Population:
    """n members, each at its own place in training. It lies in the memory of the host, wherever members train.

    `population[index]` are some of them: a tensor of numbers or of bools, a list, a slice, or one number. What is done
    to a population makes a new one.

    Attributes:
        configs: `{name: (n,)}`, their settings.
        params: tree of (n, ...), the parameters that they train.
        state: tree of (n, ...), the states of their optimizers.
        age: (n,) int64, how many steps each was trained. It is also its place in the batches.
        key: (n, 2) int64, where each has its random numbers from.
        member: (n,) int64, which member of its sweep each is.
        best: (n,) float64, the best value that each was judged by so far, less is better; inf before the first.
        best_age: (n,) int64, how old it was then.

    Example:
        >>> import torch, optfx
        >>> from optfx import sweep
        >>> trainer = sweep.Trainer(
        ...     lambda config: optfx.sgd(config["rate"]), lambda params, batch: (params["w"] - batch).square().sum(),
        ...     {"w": torch.zeros(2)}, [torch.ones(2)], compile=False)
        >>> population = trainer.start({"rate": [0.1, 0.2, 0.3]})
        >>> population, losses = trainer.train(population, 2)
        >>> population[losses[-1].argsort()[:2]].configs
        {'rate': tensor([0.3000, 0.2000], dtype=torch.float64)}
    """

    configs: dict[str, Tensor]
    params: Tree
    state: Tree
    age: Tensor
    key: Tensor
    member: Tensor
    best: Tensor
    best_age: Tensor

    def __len__(self) -> int:
        return len(self.age)

    def __getitem__(self, index: Any) -> Population:
        rows = torch.arange(len(self.age), device=self.age.device)[index].reshape(-1)
        return tree.map(lambda x: x[rows], self)

    def __repr__(self) -> str:
        ages = sorted(set(self.age.tolist()))
        old = f"{ages[0]}" if len(ages) == 1 else f"{ages[0]} to {ages[-1]}" if ages else "0"
        return f"<population of {len(self)} settings of {', '.join(self.configs)}: {old} steps old>"


def join_populations(populations: Sequence[Population]) -> Population:
    """Several populations as one, in their order. Members that have one number twice get new ones.

    Raises:
        ValueError: populations of other settings or structure.
    """
    structures = {tree.flatten(x)[1] for x in populations}
    if len(structures) != 1:
        raise ValueError(f"join: populations of {len(structures)} structures; the results of several can be joined")
    whole = tree.map(lambda *xs: torch.cat(xs), *populations)
    return tree.replace(whole, member=renumbered([x.member for x in populations]))


def renumbered(members: Sequence[Tensor]) -> Tensor:
    """The numbers of members of several sweeps: as they are, if they tell them apart; else one after another."""
    whole = torch.cat([*members])
    return whole if len(whole.unique()) == len(whole) else torch.arange(len(whole), device=whole.device)


def kept_in(error: BaseException, population: Population) -> BaseException:
    """An error that has what was trained until then, so that it is not lost."""
    error.population = population  # type: ignore[attr-defined]
    error.add_note("What was trained until then is in the attribute `population` of this error.")
    return error


class Mixed(Sequence[Any]):
    """Trees of members that have no common structure: `mixed[i]` is that of member i.

    Args:
        parts: trees with a leading dimension over their members.
        part: (n,) int64, in which part each member is.
        row: (n,) int64, and where in it.
    """

    def __init__(self, parts: Sequence[Tree], part: Tensor, row: Tensor) -> None:
        self.parts, self.part, self.row = tuple(parts), part, row

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: Any) -> Any:
        """One member, or some of them as another `Mixed`."""
        if isinstance(index, int) or (isinstance(index, Tensor) and not index.ndim):
            tree_of_many, row = self.parts[int(self.part[index])], int(self.row[index])
            return tree.map(lambda x: x[row], tree_of_many)
        return Mixed(self.parts, self.part[index], self.row[index])


def some(x: Any, rows: Any) -> Any:
    """Some members of a tree with a leading dimension over them, or of a `Mixed`."""
    return x[rows] if isinstance(x, Mixed) else tree.map(lambda leaf: leaf[rows], x)


def together(parts: Sequence[Any]) -> Any:
    """The members of several trees, one after another: as one tree where their structure is the same."""
    if not any(isinstance(x, Mixed) for x in parts) and len({_form(x) for x in parts}) == 1:
        return tree.map(lambda *xs: torch.cat(xs), *parts)
    flat, part, row = [], [], []
    for x in parts:
        if isinstance(x, Mixed):
            part.append(x.part + len(flat))
            row.append(x.row)
            flat += x.parts
        else:
            n = len(tree.leaves(x)[0])
            part.append(torch.full((n,), len(flat)))
            row.append(torch.arange(n))
            flat.append(x)
    return Mixed(flat, torch.cat(part), torch.cat(row))


def _form(x: Tree) -> Any:
    leaves, structure = tree.flatten(x)
    return structure, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
