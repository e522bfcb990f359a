"""Kernels in Triton as code for a GPU that need not be there: the compiler refuses what the interpreter lets pass."""

import pytest
import torch

import optfx

pytest.importorskip("triton")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from optfx.compiler.kernels import triton as writer
from optfx.compiler.kernels import workshop
from optfx.compiler.kernels.split import split
from optfx.compiler.kernels.triton import build
from optfx.compiler.kernels.triton.loop import Loop
from optfx.compiler.kernels.triton.nest import Nest
from optfx.compiler.plan.groups import groups_of
from optfx.compiler.record.recording import record

H100 = GPUTarget("cuda", 90, 32)
CONSTANTS = {"BLOCK": 1024, "RESULTS": 32, "TOGETHER": 32, "ALIGNED": True}
POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64"}


def programs(tx, params):
    recording = record(tx, params, tx.init(params), params, {})
    return {work.program for group in groups_of(recording) for work in group.stages}


def compiled(program):
    """How many kernels of a program the compiler takes."""
    graph = split(program, torch.device("cpu")).loop
    k = len(program.parts)
    loop = Loop(graph, len(program.masks), k) if program.is_flat else Nest(graph, program.masks, k)
    sums = {f"sums{j}": POINTERS[dtype] for j, dtype in enumerate(loop.sum_dtypes())}
    sums |= {name: POINTERS[dtype] for (_, dtype), name in loop.tables.items()}
    every = [f for f in vars(build.module(loop.source())).values() if isinstance(f, triton.JITFunction)]
    every = [f for f in every if f.arg_names[0] in ("P", "first_of")]
    for f in every:
        kinds = {"leaves": "i32", **sums, **dict.fromkeys(CONSTANTS, "constexpr")}
        signature = {name: kinds.get(name, "*i64") for name in f.arg_names}
        constants = {(k,): CONSTANTS[name] for k, name in enumerate(f.arg_names) if name in CONSTANTS}
        assert triton.compile(ASTSource(f, signature, constants), target=H100).asm["ptx"]
    return len(every)


if __name__ == "__main__":
    workshop.writer_for = lambda device: writer
    leaves = {"w": torch.ones(20, 30), "c": torch.ones(3, 4, 2, 2, dtype=torch.bfloat16), "b": torch.ones(5)}
    codecs = optfx.combinators.codecs
    coded = [optfx.stored(optfx.adamw(0.1), bits(block=4, least=4)) for bits in (codecs.eight_bits, codecs.four_bits)]
    txs = optfx.came(0.1), optfx.sm3(0.1), optfx.lamb(0.1), optfx.adam_atan2(0.1), *coded
    every = {p for tx in txs for p in programs(tx, leaves)}
    print(sum(map(compiled, every)), "kernels")
