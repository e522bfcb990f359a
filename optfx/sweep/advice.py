"""What to do about errors of `torch.func.vmap`, which are about torch and not about a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_ADVICE = {  # part of a message of torch -> what is wrong, and what to do
    "randomness error mode": (
        "it draws random numbers, and torch's generators do not run for many members at once. If a layer does "
        "(dropout), call model.eval() or give it p=0; else put a key in the batch and draw with optfx.random"
    ),
    "would mutate a captured Tensor": (
        "it changes a tensor in place that all members share, as BatchNorm does with its running statistics. Use "
        "torch.func.replace_all_batch_norm_modules_(model), another norm, or model.eval()"
    ),
    "Batch norm got a batched tensor": (
        "BatchNorm keeps running statistics that all members would share. Use "
        "torch.func.replace_all_batch_norm_modules_(model), another norm, or model.eval()"
    ),
    "data-dependent control flow": (
        "it branches on a value, or turns one into a Python number (if, float, int, .item()), and here a value stands "
        "for those of all members. Use torch.where; a flag, or another optimizer, takes a sweep of its own"
    ),
    "calling .item() on a Tensor": (
        "it turns a value into a Python number (float, int, .item()), and here a value stands for those of all "
        "members. Leave it a tensor: every number of a transform or a schedule may be one"
    ),
}


@contextmanager
def advised(who: str) -> Iterator[None]:
    """Say what is wrong with a function of the user, where vmap only says what it cannot do."""
    try:
        yield
    except RuntimeError as error:
        for part, words in _ADVICE.items():
            if part in str(error):
                raise RuntimeError(f"{who}: {words}") from error
        raise
