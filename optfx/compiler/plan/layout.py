"""Where leaves lie. Where kernels do one leaf a call, the small leaves of an owner lie in one buffer and count as one.

Params and state move there once. What is another tensor in each step (gradients, results of events) is copied there in
each step, before the first stage that can read it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from optfx.compiler.kernels.program import of_nothing
from optfx.compiler.members import Alone
from optfx.compiler.plan.groups import Member
from optfx.compiler.record.inputs import AsLeaf, Input
from optfx.compiler.record.lazy import Event
from optfx.compiler.record.levels import Level
from optfx.compiler.record.recording import Recording
from optfx.tree.sharded import local_shape


class Packing(NamedTuple):
    """Leaves that are copied into a buffer."""

    views: list[Tensor]  # of the buffer
    inputs: list[Input]

    def run(self, values: list[Tensor]) -> None:
        if self.views:  # 3 times as fast as torch.cat
            torch._foreach_copy_(self.views, [values[i] for i in self.inputs])  # pyright: ignore[reportPrivateImportUsage]


class Layout:
    """The tensor that each input is now.

    Args:
        recording: what is done.
        small: how many elements a leaf has that may be packed with others.
        leaves: the tensors that the step is given.
        members: whose they are.
    """

    def __init__(self, recording: Recording, small: int, leaves: list[Tensor], members: Alone):
        recorder, inputs = recording.recorder, recording.inputs
        results = [i for e in recorder.log if isinstance(e, Event) for i in e.results]
        extra = [x.input for x in inputs.extra if type(x) is AsLeaf]  # not isinstance: see Given
        outside = [i for i, _ in recorder.outside]
        self.rebound = {*map(Input, range(inputs.n)), *extra, *outside, *results}
        empty = [
            torch.empty(members.shape(local_shape(x.shape, x.spread)), dtype=x.dtype, device=x.device)
            for x in recorder.inputs[len(leaves) :]
        ]
        self.values: list[Tensor] = [*leaves, *empty]
        for i, x in recorder.outside:
            self.values[i] = members.every(x.contiguous())
        self.moved: set[Input] = set()  # those that have been given other memory
        self.packings: dict[Level, Packing] = defaultdict(lambda: Packing([], []))  # what is packed before a stage
        self._levels, self._small, self._forms = recording.levels, small, recorder.inputs

    def places(self, members: list[Member], together: bool) -> list[tuple[Member, dict[Input, Input]]]:
        """The leaves that kernels see, each as a member and what stands in the place of its inputs.

        Where one call does all leaves `together`, nothing is packed.
        """
        small = [*filter(self._is_small, members)]
        if together or len(small) < 2:
            return [(m, {i: i for i in m.inputs}) for m in members]
        packed: dict[Input, Input] = {}
        for column in zip(*(m.inputs for m in small), strict=True):
            packed |= dict.fromkeys(column, Input(len(self.values)))
            self.values.append(self._packed(list(column)))
        large = [m for m in members if not self._is_small(m)]
        return [(small[0], packed), *((m, {i: i for i in m.inputs}) for m in large)]

    def _is_small(self, member: Member) -> bool:
        """Whether a leaf may be packed: not a part of one, whose memory is somebody else's."""
        return self.length(member) <= self._small and self._forms[member.inputs[0]].spread is None

    def length(self, member: Member) -> int:
        """How many elements a leaf has in this process."""
        i = member.inputs[0]
        return member.length if self._forms[i].spread is None else self.values[i].numel()

    def fill_empty(self, members: list[Member]) -> None:
        """Write the numbers of rows that have no elements: they are the same in each step."""
        for program, inputs, _, sizes in [placed for m in members for placed in m.placed if placed.program.rows]:
            found, _ = of_nothing(program, self.values[inputs[0]].device, sizes)
            for y, store in zip(found, program.stores, strict=True):
                place, form = self.values[inputs[store.to]], self._forms[inputs[store.to]]
                place.copy_(y.reshape(place.shape[place.ndim - len(form.shape) :]))

    def _packed(self, column: list[Input]) -> Tensor:
        """One buffer for what many leaves have in the same role: their own memory where they are neighbors already."""
        tensors = [self.values[i] for i in column]
        lengths = [x.numel() for x in tensors]
        if column[0] in self.rebound:
            buffer = tensors[0].new_empty(sum(lengths))
            packing = self.packings[self._levels.input(column[0])]
            packing.views.extend(part.view(x.shape) for x, part in zip(tensors, buffer.split(lengths), strict=True))
            packing.inputs.extend(column)
            return buffer
        if not _neighbors(tensors):
            for i, part in zip(column, torch.cat([x.reshape(-1) for x in tensors]).split(lengths), strict=True):
                self.values[i] = part.view(self.values[i].shape)
                self.moved.add(i)
        first = self.values[column[0]]
        return first.as_strided((sum(lengths),), (1,), first.storage_offset())


def _neighbors(tensors: list[Tensor]) -> bool:
    """Whether the tensors follow each other in one storage."""
    storage, offset = tensors[0].untyped_storage().data_ptr(), tensors[0].storage_offset()
    for x in tensors:
        if x.untyped_storage().data_ptr() != storage or x.storage_offset() != offset or not x.is_contiguous():
            return False
        offset += x.numel()
    return True
