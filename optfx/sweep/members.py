"""The members of a sweep: what each starts from, and what each does in a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import _unwrap_for_grad
from torch._functorch import eager_transforms as functorch
from torch.func import vmap

from optfx import random, tree
from optfx.core import GradientTransformation, apply_updates, as_transform, is_number
from optfx.sweep.advice import advised
from optfx.sweep.spaces import column
from optfx.sweep.stacking import stacked
from optfx.tree import Tree


def owned(x: Tree) -> Tree:
    """A contiguous copy that shares no memory: it can be donated, and compiles to one graph."""
    return tree.map(lambda leaf: leaf.detach().clone(memory_format=torch.contiguous_format), x)


def columns(configs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The settings as (n,) tensors: a sequence becomes one, and a single number is the same for all.

    Raises:
        ValueError: no settings, or tensors that are not all (n,) for the same n, naming them.
        TypeError: a value that is not made of numbers, naming it.
    """
    if not isinstance(configs, Mapping):
        raise TypeError(f"configs: expected {{name: numbers}}, one for each member, got a {type(configs).__name__}")
    if not configs:
        raise ValueError("configs: no hyperparameters")
    found: dict[str, Tensor] = {}
    for name, x in configs.items():
        if is_number(x) and not isinstance(x, Tensor):
            found[name] = column("configs", [x]).squeeze(0)
        elif isinstance(x, Tensor) and x.dtype != torch.bool and not x.is_complex():
            found[name] = x
        elif isinstance(x, (list, tuple)):
            found[name] = column(f"configs: {name!r}", x)
        else:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"configs: {name!r} is {kind}, expected numbers, an (n,) tensor or one for all")
    shapes = {name: tuple(x.shape) for name, x in found.items() if x.ndim}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"configs: expected one value for each member, (n,) for all, got {shapes}")
    n = next(iter(shapes.values()))[0] if shapes else 1
    if not n:
        raise ValueError("configs: no settings")
    return {name: x if x.ndim else x.repeat(n) for name, x in found.items()}


class Reading(dict[str, Tensor]):
    """The hyperparameters of one member, which note which of them are read.

    Args:
        config: `{name: () tensor}`.
        read: where the names are noted.
    """

    def __init__(self, config: Mapping[str, Tensor], read: set[str]) -> None:
        super().__init__(config)
        self.read = read

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.read.add(name)
        return super().pop(name, *default)

    def __iter__(self) -> Iterator[str]:  # without it, `f(**config)` would read past `__getitem__`
        return iter(self.keys())

    def items(self) -> Any:
        self.read.update(self.keys())
        return super().items()

    def values(self) -> Any:
        self.read.update(self.keys())
        return super().values()

    def copy(self) -> Any:
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()


class Members:
    """The n members. `start` makes what a chunk of them begins with.

    Args:
        make_optimizer: `{name: () tensor}` -> transform.
        configs: `{name: (n,)}`, or one number for all.
        init: a tree, `stacked(tree)`, or a function of a key.
        seed: the seed of the keys.
    """

    def __init__(self, make_optimizer: Any, configs: Mapping[str, Tensor], init: Any, seed: int) -> None:
        if isinstance(init, torch.nn.Module):
            raise TypeError("init: a module is not a tree of parameters, pass optfx.params(module)")
        self.configs = columns(configs)
        self.n = len(next(iter(self.configs.values())))
        self.make_optimizer, self.init = make_optimizer, init
        self.keys = random.split(random.key(seed), self.n)
        # A function is its own only leaf; a callable tree, such as a record, is still a tree.
        self.is_function = callable(init) and tree.leaves(init) == [init]
        if isinstance(init, stacked):
            self._check_tensors(init.params)
            if (given := tree.leaves(init.params)[0].shape[0]) != self.n:
                raise ValueError(f"init: parameters are stacked for {given} members, and configs has {self.n}")
        elif not self.is_function:
            self._check_tensors(init)
        self._check_names()

    def _check_names(self) -> None:
        """Warn of hyperparameters that `make_optimizer` does not read, unless they tell repetitions apart."""
        read: set[str] = set()

        def look(config: dict[str, Tensor]) -> Tensor:
            self.make_optimizer(Reading(config, read))
            return next(iter(config.values()))

        try:
            vmap(look)({name: x[:1] for name, x in self.configs.items()})
        except Exception:  # `start` makes the optimizers from a plain dict next, and says what is wrong with them
            return
        unread = [name for name in self.configs if name not in read]
        seen = [x.to(torch.float64) for name, x in self.configs.items() if name in read]
        distinct = len(torch.stack(seen).unique(dim=1).T) if seen else 1
        alike = not (self.is_function or isinstance(self.init, stacked))  # members that differ in nothing else
        if unread and (alike or distinct == self.n > 1):
            warnings.warn(
                f"configs: make_optimizer does not read {', '.join(map(repr, unread))}; it reads "
                f"{', '.join(map(repr, sorted(read))) or 'nothing'}",
                stacklevel=4,
            )

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
            with advised("init"):
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
        with advised("make_optimizer"):
            txs = owned(vmap(self._optimizer)(configs))
        return txs, params, owned(vmap(_init)(txs, params))

    def _optimizer(self, config: dict[str, Tensor]) -> GradientTransformation:
        try:
            tx = self.make_optimizer(config)
        except KeyError as error:
            if error.args and isinstance(name := error.args[0], str) and name not in config:
                raise KeyError(f"make_optimizer reads {name!r}; configs has {', '.join(map(repr, config))}") from None
            raise
        try:
            return as_transform(tx)
        except TypeError as error:
            raise TypeError(f"make_optimizer: {error}") from None


def _init(tx: GradientTransformation, params: Tree) -> Tree:
    return tx.init(params)


def eval_params(tx: GradientTransformation, params: Tree, state: Tree) -> Tree:
    """The parameters to evaluate one member with: those it trains, or, say, an average of them."""
    return tx.eval_params(state, params)


def loss_of(loss_fn: Callable[[Tree, Any], Tensor]) -> Callable[[Tree, Any], Tensor]:
    """`loss_fn`, checked: () and floating."""

    def checked(params: Tree, batch: Any) -> Tensor:
        loss = loss_fn(params, batch)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            got = f"{tuple(loss.shape)} {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn returned {got}, expected a () floating tensor")
        return loss

    return checked


def grad_and_value(loss_fn: Callable[[Tree, Any], Tensor]) -> Callable[[Tree, Any], tuple[Tree, Tensor]]:
    """`torch.func.grad_and_value`, which imports Dynamo in order to switch it off: that takes a second."""
    loss_of_one = loss_of(loss_fn)

    def gradient(params: Tree, batch: Any) -> tuple[Tree, Tensor]:
        if torch.compiler.is_compiling():
            return torch.func.grad_and_value(loss_of_one)(params, batch)
        leaves, structure = tree.flatten(params)
        with functorch.grad_increment_nesting() as level, torch.enable_grad():
            leaves = [functorch._wrap_tensor_for_grad(x, level) for x in leaves]
            functorch._create_differentiable(leaves, level)
            loss = loss_of_one(tree.unflatten(structure, leaves), batch)
            found = loss.requires_grad and torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
            if not found or all(g is None for g in found):
                raise ValueError(
                    "loss_fn: the loss does not depend on params: call the model with them, "
                    "torch.func.functional_call(model, params, x)"
                )
            grads = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
            grads = [_unwrap_for_grad(g, level) for g in grads]
            return tree.unflatten(structure, grads), _unwrap_for_grad(loss, level)

    return gradient


def member_update(
    tx: GradientTransformation, grads: Tree, params: Tree, state: Tree, loss: Tensor
) -> tuple[Tree, Tree]:
    """What one member does with its gradients: `(params, state)`."""
    updates, state = tx.update(grads, state, params, value=loss, grad=grads)
    return apply_updates(params, updates), state


def member_step(loss_fn: Callable[[Tree, Any], Tensor]) -> Callable[..., tuple[Tree, Tree, Tensor]]:
    """What one member does in a step: `(tx, params, state, batch) -> (params, state, loss)`."""

    def step(tx: GradientTransformation, params: Tree, state: Tree, batch: Any) -> tuple[Tree, Tree, Tensor]:
        grads, loss = grad_and_value(loss_fn)(params, batch)
        return *member_update(tx, grads, params, state, loss), loss

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
