"""The members of a sweep: what each starts from, and what each does in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from optfx import random, tree
from optfx.core import GradientTransformation, apply_updates, as_transform
from optfx.sweep.stacking import stacked
from optfx.tree import Tree


def owned(x: Tree) -> Tree:
    """A contiguous copy that shares no memory: it can be donated, and compiles to one graph."""
    return tree.map(lambda leaf: leaf.detach().clone(memory_format=torch.contiguous_format), x)


def check_configs(configs: Mapping[str, Tensor]) -> int:
    """The number of settings.

    Raises:
        ValueError: no settings, or tensors that are not all (n,) for the same n, naming them.
        TypeError: a value that is not a tensor of numbers, naming it.
    """
    if not configs:
        raise ValueError("configs: no hyperparameters")
    for name, x in configs.items():
        if not isinstance(x, Tensor) or x.dtype == torch.bool or x.is_complex():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"configs: {name!r} is {kind}, expected an (n,) tensor of numbers")
    shapes = {name: tuple(x.shape) for name, x in configs.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"configs: expected one value for each member, (n,) for all, got {shapes}")
    n = next(iter(shapes.values()))[0]
    if not n:
        raise ValueError("configs: no settings")
    return n


class Members:
    """The n members. `start` makes what a chunk of them begins with.

    Args:
        make_optimizer: `{name: () tensor}` -> transform.
        configs: `{name: (n,)}`.
        init: a tree, `stacked(tree)`, or a function of a key.
        seed: the seed of the keys.
    """

    def __init__(self, make_optimizer: Any, configs: Mapping[str, Tensor], init: Any, seed: int) -> None:
        if isinstance(init, torch.nn.Module):
            raise TypeError("init: a module is not a tree of parameters, pass optfx.params(module)")
        self.n = check_configs(configs)
        self.make_optimizer, self.configs, self.init = make_optimizer, dict(configs), init
        self.keys = random.split(random.key(seed), self.n)
        # A function is its own only leaf; a callable tree, such as a record, is still a tree.
        self.is_function = callable(init) and tree.leaves(init) == [init]
        if isinstance(init, stacked):
            self._check_tensors(init.params)
            if (given := tree.leaves(init.params)[0].shape[0]) != self.n:
                raise ValueError(f"init: parameters are stacked for {given} members, and configs has {self.n}")
        elif not self.is_function:
            self._check_tensors(init)

    def _check_tensors(self, params: Tree) -> None:
        if not tree.leaves(params):
            raise ValueError("init: there are no parameters")
        for path, x in zip(tree.paths(params), tree.leaves(params), strict=True):
            if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
                kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"init: {path!r} is {kind}, expected a floating or complex tensor")

    def _params(self, index: Tensor) -> Tree:
        if isinstance(self.init, stacked):
            return tree.map(lambda x: x[index.to(x.device)], self.init.params)
        if self.is_function:
            params = vmap(self.init)(self.keys[index])
            self._check_tensors(params)
            return params
        return tree.map(lambda x: x.expand(len(index), *x.shape), self.init)

    def start(self, index: Tensor) -> tuple[Any, Tree, Tree]:
        """The optimizers, parameters and states of some members, each with a leading dimension over them.

        Args:
            index: (m,) int64, the members.
        """
        params = owned(self._params(index))
        device = tree.leaves(params)[0].device
        configs = {
            name: x[index.to(x.device)].to(device, tree.scalar_dtype(device) if x.is_floating_point() else x.dtype)
            for name, x in self.configs.items()
        }
        txs = owned(vmap(self._optimizer)(configs))
        return txs, params, owned(vmap(_init)(txs, params))

    def _optimizer(self, config: dict[str, Tensor]) -> GradientTransformation:
        tx = self.make_optimizer(config)
        try:
            return as_transform(tx)
        except TypeError as error:
            raise TypeError(f"make_optimizer: {error}") from None


def _init(tx: GradientTransformation, params: Tree) -> Tree:
    return tx.init(params)


def eval_params(tx: GradientTransformation, params: Tree, state: Tree) -> Tree:
    """The parameters to evaluate one member with: those it trains, or, say, an average of them."""
    return tx.eval_params(state, params)


def member_step(loss_fn: Callable[[Tree, Any], Tensor]) -> Callable[..., tuple[Tree, Tree, Tensor]]:
    """What one member does in a step: `(tx, params, state, batch) -> (params, state, loss)`."""

    def loss_of(params: Tree, batch: Any) -> Tensor:
        loss = loss_fn(params, batch)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            got = f"{tuple(loss.shape)} {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn returned {got}, expected a () floating tensor")
        return loss

    def step(tx: GradientTransformation, params: Tree, state: Tree, batch: Any) -> tuple[Tree, Tree, Tensor]:
        grads, loss = grad_and_value(loss_of)(params, batch)
        updates, state = tx.update(grads, state, params, value=loss, grad=grads)
        return apply_updates(params, updates), state, loss

    return step


def member_metrics(evaluate: Callable[[Tree], dict[str, Tensor]], taken: set[str]) -> Callable[[Tree], Any]:
    """`evaluate`, checked: params -> {metric: ()}; no metric may have a name in `taken`."""

    def metrics(params: Tree) -> dict[str, Tensor]:
        found = evaluate(params)
        if not isinstance(found, dict):
            raise TypeError(f"evaluate returned a {type(found).__name__}, expected {{metric: () tensor}}")
        for name, x in found.items():
            if not isinstance(x, Tensor) or x.ndim:
                got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"evaluate: the metric {name!r} is {got}, expected a () tensor")
            if name in taken:
                raise ValueError(f"evaluate: no metric may be called {name!r}, which has another meaning here")
        return found

    return metrics
