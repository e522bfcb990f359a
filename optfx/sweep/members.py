"""What members are and do: the functions of the user, checked, and given what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import _unwrap_for_grad
from torch._functorch import eager_transforms as functorch
from torch.func import vmap

from optfx import random, tree
from optfx.core import GradientTransformation, apply_updates, as_transform
from optfx.sweep.advice import advised
from optfx.sweep.configs import SEED, TRIAL, Reading, asks_for
from optfx.sweep.stacking import stacked
from optfx.sweep.window import ends, of_tensors
from optfx.tree import Tree
from optfx.tree.closures import closure_of, records_in

LOSS, BATCHES = -1, -2  # folded into the key of a member, which is that of its init


def owned(x: Tree) -> Tree:
    """A contiguous copy that shares no memory: it can be donated, and compiles to one graph."""
    return tree.map(lambda leaf: leaf.detach().clone(memory_format=torch.contiguous_format), x)


class Recipe:
    """The functions of the user.

    What a member has of its own is given to a function that has a parameter `config` or `key`. A batch is
    `(shared, own)`: what all members see, and what has a leading dimension over them.

    Args:
        make_optimizer, loss_fn, init, batches, evaluate, seed: see `Trainer`.
        fixed: settings of all members, which `config` has besides its own.
    """

    def __init__(
        self,
        make_optimizer: Any,
        loss_fn: Callable[..., Tensor],
        init: Any,
        batches: Any,
        evaluate: Callable[..., dict[str, Tensor]] | None,
        seed: int,
        fixed: Mapping[str, Any],
    ) -> None:
        if isinstance(init, torch.nn.Module):
            raise TypeError("init: a module is not a tree of parameters, pass optfx.params(module)")
        self.make_optimizer, self.loss_fn, self.init, self.evaluate = make_optimizer, loss_fn, init, evaluate
        self.batches = _batches(batches)
        self.seed, self.fixed = seed, dict(fixed)
        self.read: set[str] | None = None  # where names are noted
        # A function is its own only leaf; a callable tree, such as a record, is still a tree.
        self.draws = callable(init) and tree.leaves(init) == [init]
        self.loss_takes = [name for name in ("config", "key") if asks_for(loss_fn, name)]
        self.batches_take = [name for name in ("config", "key") if asks_for(batches, name)]
        self.init_takes = ["config"] * asks_for(init, "config")
        self.evaluate_takes = ["config"] * asks_for(evaluate, "config")
        if not isinstance(init, stacked) and not self.draws:
            self._check_tensors(init)

    @contextmanager
    def reading(self) -> Iterator[set[str]]:
        """Note which settings are read."""
        self.read = found = set()
        try:
            yield found
        finally:
            self.read = None

    def unread(self, names: Sequence[str], read: set[str] | None) -> set[str]:
        """The settings that no function reads, as far as we know."""
        starts = self.draws or isinstance(self.init, stacked)  # members of one setting differ
        if starts or "key" in (*self.loss_takes, *self.batches_take):
            names = [name for name in names if name != SEED]
        return set() if read is None else {*names, *self.fixed} - read - {TRIAL}

    def config(self, config: Mapping[str, Tensor]) -> dict[str, Any]:
        """The settings of one member, as functions get them."""
        whole = {**config, **self.fixed}
        return whole if self.read is None else Reading(whole, self.read)

    # ---- how members begin -------------------------------------------------------------------------

    def keys(self, configs: Mapping[str, Tensor], member: Tensor) -> Tensor:
        """(n, 2), a key for each: that of its seed, or of its number."""
        seeds = configs.get(SEED, member)
        if seeds.is_floating_point():
            raise ValueError(f"configs: {SEED!r} holds integers, got {seeds.dtype}")
        return vmap(random.fold_in, in_dims=(None, 0))(random.key(self.seed).to(seeds.device), seeds)

    def params(self, configs: Mapping[str, Tensor], keys: Tensor, rows: Tensor) -> Tree:
        """The parameters that members start with.

        Args:
            configs, keys: theirs.
            rows: (n,) int64, their places in a stack.
        """
        if isinstance(self.init, stacked):
            return tree.map(lambda x: x[rows.to(x.device)], self.init.params)
        if not self.draws:
            return tree.map(lambda x: x.expand(len(rows), *x.shape), self.init)
        one = lambda key, config: self._check_tensors(self.init(key, **self._own(self.init_takes, config, key)))
        with advised("init"):
            return vmap(one)(keys.to(torch.get_default_device()), dict(configs))

    def check_stack(self, n: int, rows: Tensor | None) -> None:
        """Raises ValueError if parameters were stacked for another number of members.

        Args:
            n: how many members there are.
            rows: (n,) int64, their places in the stack; None for all of it.
        """
        if isinstance(self.init, stacked):
            self._check_tensors(self.init.params)
            given = tree.leaves(self.init.params)[0].shape[0]
            if given != n if rows is None else int(rows.max()) >= given:
                raise ValueError(f"init: parameters are stacked for {given} members, and configs has {n}")

    def _check_tensors(self, params: Tree) -> Tree:
        if not tree.leaves(params):
            raise ValueError("init: there are no parameters")
        for path, x in ends(params):
            if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
                kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"init: {path!r} is {kind}, expected a floating or complex tensor")
        return params

    def optimizers(self, configs: Mapping[str, Tensor], device: torch.device) -> Any:
        """The optimizers of members, as one with a leading dimension over them."""
        with advised("make_optimizer"):
            return owned(vmap(self._optimizer)(of_device(configs, device)))

    def _optimizer(self, config: dict[str, Tensor]) -> GradientTransformation:
        try:
            tx = self.make_optimizer(self.config(config))
        except KeyError as error:
            if error.args and isinstance(name := error.args[0], str) and name not in (names := self.config(config)):
                raise KeyError(f"make_optimizer reads {name!r}; configs has {', '.join(map(repr, names))}") from None
            raise
        try:
            tx = as_transform(tx)
        except TypeError as error:
            raise TypeError(f"make_optimizer: {error}") from None
        for cls in {*map(type, records_in(tx))}:
            for name, f in vars(cls).items():
                if isinstance(f, FunctionType) and closure_of(f) is not None:
                    raise TypeError(
                        f"make_optimizer: {cls.__name__}.{name} uses a number of config that is none of its fields: "
                        "give it a field, and use self"
                    )
        return tx

    # ---- what they do ------------------------------------------------------------------------------

    def _own(self, takes: Sequence[str], config: Mapping[str, Tensor], key: Tensor) -> dict[str, Any]:
        values = {"config": self.config(config), "key": key}
        return {name: values[name] for name in takes}

    def given(self, configs: Mapping[str, Tensor], keys: Tensor) -> dict[str, Any]:
        """What the loss takes besides parameters and a batch, for some members."""
        values = {"config": of_device(configs, keys.device), "key": keys}
        return {name: values[name] for name in self.loss_takes}

    def loss(self, params: Tree, given: dict[str, Any], batch: Any) -> Tensor:
        """`loss_fn` for one member, checked: () and floating."""
        shared, own = batch
        extra = dict(given)
        if "config" in given:
            extra["config"] = self.config(given["config"])
        if "key" in given:
            extra["key"] = random.fold_in(random.fold_in(given["key"], LOSS), shared["count"])
        return loss_of(self.loss_fn)(params, own["batch"] if own else shared["batch"], **extra)

    def batch(self, step: int, configs: Mapping[str, Tensor], keys: Tensor) -> tuple[Any, Any]:
        """The batch of a step for some members."""
        shared: dict[str, Any] = {"count": torch.tensor(step, device=keys.device)} if "key" in self.loss_takes else {}
        if not self.batches_take:
            return {"batch": self.batches(step), **shared}, {}
        one = lambda config, key: of_tensors(
            self.batches(step, **self._own(self.batches_take, config, random.fold_in(key, BATCHES)))
        )
        with advised("batches"):
            return shared, {"batch": vmap(one)(dict(configs), keys)}

    def metrics(self, params: Tree, config: dict[str, Tensor]) -> dict[str, Tensor]:
        """`evaluate` for one member, checked: {metric: ()}."""
        if self.evaluate is None:
            return {}
        found = self.evaluate(params, **self._own(self.evaluate_takes, config, torch.empty(0)))
        if not isinstance(found, dict):
            raise TypeError(f"evaluate returned a {type(found).__name__}, expected {{metric: () tensor}}")
        for name, x in found.items():
            if not isinstance(x, Tensor) or x.ndim:
                got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"evaluate: the metric {name!r} is {got}, expected a () tensor")
            if name in (*TAKEN, *config, *self.fixed):
                raise ValueError(f"evaluate: no metric may be called {name!r}, which has another meaning here")
        return found


def check_read(unread: Sequence[set[str]]) -> None:
    """Raises ValueError if there is a setting that no function reads, for members of no structure."""
    if names := set.intersection(*unread):
        raise ValueError(
            f"configs: no function reads {', '.join(map(repr, sorted(names)))}, so it changes nothing. (Repetitions "
            f"are told apart by {SEED!r}, where init is a function of a key.)"
        )


TRAIN_LOSS = "train_loss"
TAKEN = TRAIN_LOSS, "diverged", "member", "age"  # names of columns, so no metric has them


def of_device(configs: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Settings where members train, as wide as numbers are there."""
    return {
        k: x.to(device, tree.scalar_dtype(device) if x.is_floating_point() else x.dtype) for k, x in configs.items()
    }


def _batches(batches: Any) -> Callable[..., Any]:
    if callable(batches):
        return batches
    if not isinstance(batches, Sequence):
        raise TypeError(
            f"batches: expected a sequence or a function of the step, got a {type(batches).__name__}; "
            "turn an iterator into a list"
        )
    if not batches:
        raise ValueError("batches: there are none")
    bare = isinstance(batches, tuple) and all(isinstance(x, Tensor) for x in batches)
    if bare and len({(x.ndim, x.dtype) for x in batches}) > 1:
        raise ValueError("batches: tensors of several kinds are one batch, and not several: write [(x, y)]")
    return lambda step: batches[step % len(batches)]


def init_state(tx: GradientTransformation, params: Tree) -> Tree:
    return tx.init(params)


def eval_params(tx: GradientTransformation, params: Tree, state: Tree) -> Tree:
    """The parameters to evaluate one member with: those it trains, or, say, an average of them."""
    return tx.eval_params(state, params)


def loss_of(loss_fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`loss_fn`, checked: () and floating."""

    def checked(params: Tree, *given: Any, **extra: Any) -> Tensor:
        loss = loss_fn(params, *given, **extra)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            got = f"{tuple(loss.shape)} {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn returned {got}, expected a () floating tensor")
        return loss

    return checked


def grad_and_value(loss_fn: Callable[..., Tensor]) -> Callable[..., tuple[Tree, Tensor]]:
    """`torch.func.grad_and_value`, which imports Dynamo in order to switch it off: that takes a second."""
    loss_of_one = loss_of(loss_fn)

    def gradient(params: Tree, *given: Any) -> tuple[Tree, Tensor]:
        if torch.compiler.is_compiling():
            return torch.func.grad_and_value(loss_of_one)(params, *given)
        leaves, structure = tree.flatten(params)
        with functorch.grad_increment_nesting() as level, torch.enable_grad():
            leaves = [functorch._wrap_tensor_for_grad(x, level) for x in leaves]
            functorch._create_differentiable(leaves, level)
            loss = loss_of_one(tree.unflatten(structure, leaves), *given)
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


def member_step(loss: Callable[[Tree, Any, Any], Tensor]) -> Callable[..., tuple[Tree, Tree, Tensor]]:
    """What one member does in a step: `(tx, params, state, given, batch) -> (params, state, loss)`."""

    def step(
        tx: GradientTransformation, params: Tree, state: Tree, given: Any, batch: Any
    ) -> tuple[Tree, Tree, Tensor]:
        grads, value = grad_and_value(loss)(params, given, batch)
        return *member_update(tx, grads, params, state, value), value

    return step
