"""The parameters and gradients of an `nn.Module` as trees.

The tensors of `params` share storage with the module, so a donated step trains the module in place.
"""

from __future__ import annotations

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
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


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
    found = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    if missing := [name for name, grad in found.items() if grad is None]:
        raise ValueError(
            f"no gradient for {', '.join(map(repr, missing))}: call loss.backward() first; "
            "if the loss does not depend on a parameter, freeze it with requires_grad_(False)"
        )
    return {name: grad.detach() for name, grad in found.items() if grad is not None}
