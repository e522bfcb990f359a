"""What a step is given: a recording numbers what one member is given, and here is that of all members."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.compiler.given import plain
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import AsLeaf
from optfx.compiler.record.recording import Recording


class Whole(NamedTuple):
    """Tensors by the numbers that a recording gives them."""

    leaves: list[Tensor]
    scalars: list[Tensor]
    own: int  # the leaves before this one are gradients, params and state


def whole(recording: Recording, given: list[Tensor], numbers: list[Tensor], extra: list[Any], members: Alone) -> Whole:
    """What all members are given.

    Args:
        recording: of one of them.
        given: gradients, params and state.
        numbers: those of the transform.
        extra: the leaves of the extra arguments.
        members: whose they are.
    """
    inputs = recording.inputs
    # not isinstance, which looks at what is given
    leaves = [*given, *(plain(x) for what, x in zip(inputs.extra, extra, strict=True) if type(what) is AsLeaf)]
    known = [*(leaves[i] for i in inputs.of_state), *numbers]
    outside = [x for _, x in recording.recorder.numbers]
    written = inputs.scalars[len(known) : len(inputs.scalars) - len(outside)]
    places = [torch.zeros(members.shape(x.shape), dtype=x.dtype, device=x.device) for x in written]
    return Whole(leaves, [*known, *places, *map(members.every, outside)], len(given))
