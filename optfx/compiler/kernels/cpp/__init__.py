"""Kernels and scalar work in C++, for the CPU."""

from optfx.compiler.kernels.cpp.build import Compilers
from optfx.compiler.kernels.cpp.expressions import Unsupported
from optfx.compiler.kernels.cpp.loop import launcher
from optfx.compiler.kernels.cpp.scalar import scalar_work

__all__ = ["Compilers", "Unsupported", "launcher", "scalar_work"]
