"""Modes in which torch asks us instead of computing."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """A `TorchDispatchMode` that no compiler need be kept out of.

    Torch keeps Dynamo out of each mode that does not say otherwise, and imports it for that, which takes longer than
    all that optfx does before a first step.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
