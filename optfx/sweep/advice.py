"""What to do about errors of `torch.func.vmap`, and of transforms, which are not about a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from optfx.core import GradientTransformation

_BATCH_NORM = (
    "BatchNorm does with its running statistics. Let it use those of the batch alone, before anything else:\n\n"
    "    torch.func.replace_all_batch_norm_modules_(model)\n\n"
    "Or take another norm, such as torch.nn.GroupNorm, or call model.eval()."
)
_RANDOM = "randomness error mode"
_OWN_KEY = "A key of your own will do: optfx.random.normal(optfx.random.key(0), shape). Or call model.eval()."
_DRAW = {  # a function of the user -> how it may draw
    "init": (
        "nn.Linear and nn.init draw with these, too. Draw with the key that it is given:\n\n"
        "    first, second = optfx.random.split(key)\n"
        "    weight = optfx.random.normal(first, (8, 4)) / 2\n\n"
        "Or make all models before: init=sweep.stacked(torch.func.stack_module_state(models)[0])."
    ),
    "batches": (
        "Draw with a key, which it is given if it asks for one:\n\n"
        "    batches = lambda step, key: optfx.random.normal(key, (8, 4))"
    ),
    "loss_fn": (
        "Put a key in the batch, and draw with it; this is dropout of a tenth:\n\n"
        "    batches = lambda step: (x, y, optfx.random.key(step))\n"
        "    kept = optfx.random.uniform(key, hidden.shape) < 0.9  # in loss_fn, after x, y, key = batch\n"
        "    hidden = hidden * kept / 0.9\n\n"
        "Or train without it: model.eval(), or p=0 for the layer."
    ),
    "evaluate": _OWN_KEY,
    "make_optimizer": _OWN_KEY,
}
_SPARSE = (
    "it works with a sparse tensor, which torch does not do for many members at once. Take it apart before, and add up "
    "what it does; this is `adjacency @ hidden`:\n\n"
    "    (rows, columns), values = adjacency.coalesce().indices(), adjacency.coalesce().values()\n"
    "    torch.zeros_like(hidden).index_add(0, rows, values[:, None] * hidden[columns])  # in loss_fn\n\n"
    "Or make it dense: adjacency.to_dense()."
)
_ADVICE = {  # part of a message of torch -> what is wrong, and what to do
    _RANDOM: "it draws random numbers, and torch's generators do not run for many members at once. ",
    ".out; the fallback path": (
        "it writes to a tensor that all members share (out=), as spectral_norm does in training. Divide in loss_fn "
        "instead: weight / torch.linalg.matrix_norm(weight, 2)"
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
    "unsupported for Sparse tensors": _SPARSE,
    "Sparse CSR tensors do not have": _SPARSE,
    "Tensor that doesn't have storage": (
        "it reads the memory of a tensor (numpy, tolist), and here a tensor stands for those of all members. Write it "
        "with functions of torch, or call it with the parameters of one member when training is over"
    ),
    "batching operators that can": (
        "a shape depends on values (a boolean mask as an index, nonzero, unique), and here members have values of "
        "their own. Use torch.where, or multiply by the mask"
    ),
    "vmap over torch.allclose": (
        "it asks whether tensors are alike, and here a tensor stands for those of all members. Use torch.where"
    ),
}


@contextmanager
def advised(who: str) -> Iterator[None]:
    """Say what is wrong with a function of the user, where vmap only says what it cannot do, or a transform what it
    needs."""
    try:
        yield
    except RuntimeError as error:
        who = "make_optimizer" if _is_of_optimizer(error.__traceback__) else who
        for part, words in _ADVICE.items():
            if part in str(error):
                how = _DRAW[who] if part == _RANDOM else ""
                raise RuntimeError(f"{who}: {words}{how}") from error
        raise
    except ValueError as error:
        needs, found, _ = str(error).partition(": give ")
        if not found or "needs the extra argument" not in needs:
            raise
        do = ": give it sync_period=2" if needs.startswith("sam ") else ""
        raise ValueError(f"make_optimizer: {needs}, and a sweep gives value and grad{do}") from error


def _is_of_optimizer(at: TracebackType | None) -> bool:
    """Whether a transform was taking a step."""
    while at is not None and at.tb_frame.f_code is not GradientTransformation.run.__code__:
        at = at.tb_next
    return at is not None
