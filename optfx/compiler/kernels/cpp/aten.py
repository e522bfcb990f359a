"""What ATen does as calls of C functions, by the interface that torch keeps stable for compiled code."""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import Any

import torch
from torch import Tensor

from optfx.compiler.kernels.cpp.calls import Call

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
CPU = 0


@functools.cache
def _torch() -> Any:
    return ctypes.CDLL(torch._C.__file__)


class Handle(ctypes.c_void_p):
    """A tensor as C functions of torch know it."""


def _handle(x: Tensor) -> Handle:
    """A handle for a strided tensor on the CPU; it keeps the tensor's memory."""
    lib, found, n = _torch(), Handle(), x.dim()
    sizes, strides = (ctypes.c_int64 * n)(*x.shape), (ctypes.c_int64 * n)(*x.stride())
    dtype = getattr(lib, f"aoti_torch_dtype_{DTYPES[x.dtype]}")()
    wrong = lib.aoti_torch_create_tensor_from_blob(
        *(ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(n), sizes, strides, ctypes.c_int64(0), dtype, CPU, 0),
        ctypes.byref(found),
    )
    if wrong:
        raise RuntimeError("torch has no handle for a tensor")
    found.tensor = x  # type: ignore[attr-defined]
    weakref.finalize(found, lib.aoti_torch_delete_tensor_object, ctypes.c_void_p(found.value))
    return found


def copy(to: Tensor, source: Tensor) -> Call:
    """The call of `to.copy_(source)` on these very tensors."""
    handles = [_handle(x) for x in (to, source)]
    return Call(_torch().aoti_torch_copy_, [*handles, 0], RuntimeError("a copy failed"))


def product(out: Tensor, a: Tensor, b: Tensor) -> Call | None:
    """The call of `torch.bmm(a, b, out=out)` on these very tensors; None where torch has none for them."""
    if a.dtype not in DTYPES or not hasattr(_torch(), "aoti_torch_cpu_bmm_out"):
        return None
    handles = [_handle(x) for x in (out, a, b)]
    return Call(_torch().aoti_torch_cpu_bmm_out, handles, RuntimeError("a product of matrices failed"))
