"""What to do about errors of `torch.func.vmap`, which are about torch and not about a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_BATCH_NORM = (
    "BatchNorm does with its running statistics. Let it use those of the batch alone, before anything else:\n\n"
    "    torch.func.replace_all_batch_norm_modules_(model)\n\n"
    "Or take another norm, such as torch.nn.GroupNorm, or call model.eval()."
)
_ADVICE = {  # part of a message of torch -> what is wrong, and what to do
    "randomness error mode": (
        "it draws random numbers, and torch's generators do not run for many members at once. Put a key in the batch, "
        "and draw with it; this is dropout of a tenth:\n\n"
        "    batches = lambda step: (x, y, optfx.random.key(step))\n"
        "    kept = optfx.random.uniform(key, hidden.shape) < 0.9  # in loss_fn, after x, y, key = batch\n"
        "    hidden = hidden * kept / 0.9\n\n"
        "Or train without it: model.eval(), or p=0 for the layer. A random init is a function key -> params."
    ),
    "would mutate a captured Tensor": f"it changes a tensor in place that all members share, as {_BATCH_NORM}",
    "Batch norm got a batched tensor": f"it changes tensors in place that all members share, as {_BATCH_NORM}",
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
