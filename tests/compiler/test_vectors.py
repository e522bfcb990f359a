"""A loop over elements is made of vectors: the compiler says so itself."""

import re
import subprocess

import pytest
import torch

import optfx
from optfx.combinators.codecs import eight_bits, four_bits
from optfx.compiler.kernels.cpp import build

ALL = {
    "adamw": optfx.adamw(0.1),
    "a scalar that chooses": optfx.radam(0.1),
    "the first step": optfx.adan(0.1),
    "limits that are numbers": optfx.adopt(0.1),
    "all leaves choose twice": optfx.lookahead(optfx.adamw(0.1), 5, optfx.sgd(0.5)),
    "a cube root": optfx.madgrad(0.1),
    "norms of leaves": optfx.chain(optfx.scale_by_adam(), optfx.hyperball(0.1)),
    "elements that are counted": optfx.chain(optfx.scale_by_adam(), optfx.cautious(), optfx.scale(-0.1)),
    "states in eight bits": optfx.stored(optfx.adamw(0.1), eight_bits(block=4, least=4)),
    "states in four bits": optfx.stored(optfx.adamw(0.1), four_bits(block=4, least=4)),
    "a limit by a schedule": optfx.chain(optfx.clip(optfx.linear_schedule(1.0, 2.0, 9)), optfx.lion(0.1)),
}


@pytest.mark.skipif("Free Software Foundation" not in build.compiler()[1], reason="only g++ tells")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tx", ALL.values(), ids=ALL)
def test_the_loop_over_elements_is_made_of_vectors(tx, dtype, monkeypatch, tmp_path):
    if tx is ALL["a cube root"] and dtype == torch.float64:
        pytest.skip("powers of doubles are those of the C library")
    sources, library = [], build.Compilers.library

    def noted(self, source, *args, **kwargs):
        sources.append(source)
        return library(self, source, *args, **kwargs)

    monkeypatch.setattr(build.Compilers, "library", noted)
    optfx.fuse(tx).init({"w": torch.ones(100, dtype=dtype)})
    for source in (s for s in sources if "#pragma omp simd" in s):
        assert_vectors(source, tmp_path)


def assert_vectors(source, tmp_path):
    loops = ("for (int64_t i = at;", *(["i < n / 2;"] if " pack(h" in source else []))  # and what packs numbers
    lines = [i for i, text in enumerate(source.splitlines(), 1) if any(loop in text for loop in loops)]
    (tmp_path / "run.cpp").write_text(source)
    command = [build.compiler()[0], "-O3", *build.flags(), "-fopt-info-vec-optimized", "-c", "run.cpp", "-o", "run.o"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert lines
    for line in lines:
        assert re.search(rf"run.cpp:({line}|{line + 1}):\d+: optimized: loop vectorized", said), said
