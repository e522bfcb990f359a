"""Kernels and scalar work in C++, for the CPU."""

from optfx.compiler.kernels.cpp.build import Compilers, check_compiler
from optfx.compiler.kernels.cpp.loop import launcher
from optfx.compiler.kernels.cpp.scalar import scalar_work

NAME = "C++"
ROWS_TWICE = True  # whether a kernel may use the numbers of a row on the row itself

__all__ = ["NAME", "ROWS_TWICE", "Compilers", "check_compiler", "launcher", "scalar_work"]
