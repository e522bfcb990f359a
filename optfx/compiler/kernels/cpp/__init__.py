"""Kernels and scalar work in C++, for the CPU."""

from optfx.compiler.kernels.cpp.build import Compilers
from optfx.compiler.kernels.cpp.loop import launcher
from optfx.compiler.kernels.cpp.scalar import scalar_work

NAME = "C++"

__all__ = ["NAME", "Compilers", "launcher", "scalar_work"]
