"""Kernels for accelerators, written in Triton: one launch for all leaves of a group, whatever their sizes."""

from optfx.compiler.kernels.triton.loop import launcher
from optfx.compiler.kernels.triton.scalar import scalar_work

NAME = "Triton"
ROWS_TWICE = False

__all__ = ["NAME", "ROWS_TWICE", "launcher", "scalar_work"]
