"""The parameters and gradients of an `nn.Module` as trees.

The tensors of `params` share storage with the module, so a donated step trains the module in place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def params(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of a module by name: detached, in the module's own storage, tied weights once.

    Args:
        module: any module. Parameters with `requires_grad=False` are left out: `torch.func.functional_call` takes
            them from the module.

    Returns:
        `{name: tensor}`, ready for `tx.init` and `torch.func.functional_call(module, params, ...)`.

    Example:
        >>> import torch, optfx
        >>> {name: tuple(p.shape) for name, p in optfx.params(torch.nn.Linear(3, 2)).items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    return {name: p.detach() for name, p in _trained(module)}


def grads(module: nn.Module) -> dict[str, Tensor]:
    """The gradients that `loss.backward()` left in a module: a tree like `params(module)`.

    Args:
        module: a module after `loss.backward()`.

    Returns:
        `{name: tensor}`, detached.

    Raises:
        ValueError: some parameters have no gradient, naming them. The loss does not depend on them: freeze them with
            `requires_grad_(False)`, or mask them.

    Example:
        Train a module in place, without `torch.optim`:

        >>> import torch, optfx
        >>> model, tx = torch.nn.Linear(3, 1), optfx.adam(0.1)
        >>> def step(params, state, grads):
        ...     updates, state = tx.update(grads, state, params)
        ...     return optfx.apply_updates(params, updates), state
        >>> step = optfx.donate(step, argnums=(0, 1))
        >>> params = optfx.params(model)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     model.zero_grad()
        ...     model(torch.ones(4, 3)).square().mean().backward()
        ...     params, state = step(params, state, optfx.grads(model))
    """
    found = {name: p.grad for name, p in _trained(module)}
    if missing := [name for name, grad in found.items() if grad is None]:
        raise ValueError(
            f"no gradient for {', '.join(map(repr, missing))}: call loss.backward() first; "
            "if the loss does not depend on a parameter, freeze it with requires_grad_(False)"
        )
    return {name: grad.detach() for name, grad in found.items() if grad is not None}


def load_params(module: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Write parameters into a module: the inverse of `params(module)`.

    The module keeps its tensors and gets new values. Frozen parameters, buffers and the other names of tied weights are
    not in `params`, and are left as they are, where `module.load_state_dict` would miss them.

    Args:
        module: any module.
        params: `{name: tensor}`, as from `params` and a few steps, `eval_params`, or one member of a sweep.

    Raises:
        ValueError: names that are missing or unexpected, or tensors of another shape, listing all of them. Nothing has
            been written then.

    Example:
        >>> import torch, optfx
        >>> model = torch.nn.Linear(2, 1)
        >>> _ = model.bias.requires_grad_(False)
        >>> optfx.load_params(model, {"weight": torch.ones(1, 2)})
        >>> model.weight.detach()
        tensor([[1., 1.]])
    """
    own = dict(_trained(module))
    faults = [f"missing: {name}" for name in own if name not in params]
    faults += [f"unexpected: {name}" for name in params if name not in own]
    for name, value in params.items():
        if name in own and (not isinstance(value, Tensor) or value.shape != own[name].shape):
            got = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            faults.append(f"{name}: {got}, expected {tuple(own[name].shape)}")
    if faults:
        raise ValueError("the parameters do not fit the module:\n  " + "\n  ".join(faults))
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(params[name])


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"expected an nn.Module, got a {type(module).__name__}")
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]
