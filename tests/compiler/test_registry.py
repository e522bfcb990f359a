"""Every row of the registry runs fused, with the numbers that it has in eager code."""

import collections

import pytest
import torch

import optfx
from optfx.compiler.kernels import inductor
from optfx.tree.recording import recording
from tests.compiler.harness import distance, eager, events, fused, grads, params, units
from tests.harness import Asked, parts, rows
from tests.schedules.rows import ROWS as SCHEDULES

NUMBERS_ALONE = {
    "lmo[rms]", "qk_clip", "scion_light",
    "adafactor", "adaptive_grad_clip", "came", "cautious", "centralize", "clip_by_block_rms", "fromage", "graft",
    "hyperball", "keep_norm", "lamb", "lars", "mars", "novograd", "orthograd", "radial_brake", "relative_update",
    "scale_by_confidence", "scale_by_factored_rms", "scale_by_novograd", "scale_by_param_block_norm",
    "scale_by_param_block_rms", "scale_by_shape", "scale_by_sm3", "scale_by_stable_adam", "scale_by_trust_ratio", "sm3",
    "stableadamw", "viewed", "zero_nans",
}  # fmt: skip
"""Functions of whole leaves that are no more than elementwise work and numbers of leaves, rows and columns, so that
kernels do all of it."""


def sees_whole_leaves(row, p):
    """Whether there is a function of whole leaves that no kernel of ours is."""
    if {row.name, row.id} & NUMBERS_ALONE:
        return row.option == "in parts"  # which are cut out of leaves
    if row.name == "flatten" or "grad_fn" in row.extra:
        return True  # with no verb to tell
    tx, asked = row.make(**row.hypers), Asked()
    state = tx.init(p)
    with recording(asked):
        tx.update(grads(0, torch.float64), state, p, **row.extra)
    return asked.sees_whole_leaves


@pytest.fixture(autouse=True)
def no_inductor(monkeypatch):
    """On the CPU all of this is C++ of our own."""

    def refused(*_):
        raise AssertionError("Inductor was asked")

    monkeypatch.setattr(inductor, "compiled", refused)


@rows
def test_fused_in_float64_is_eager(row):
    tx, p = row.make(**row.hypers), params(torch.float64)
    (q, state), opt = fused(tx, p, **row.extra)
    assert distance((q, state), eager(tx, p, **row.extra)) < (
        1e-5 if "bf16" in row.id or "float32" in row.id else 1e-12
    )
    assert all(unit.kernel.by == "C++" and unit.calls == 1 for unit in units(opt))
    done = collections.defaultdict(list)
    for level, stage in enumerate(opt._plan.stages):
        for unit in stage.units:
            for member in unit.members:
                done[tuple(member.inputs)].append((level, unit.work.program))
    assert all(len(stage.units) <= len({*map(tuple, done.values())}) for stage in opt._plan.stages)
    assert bool(events(opt)) == sees_whole_leaves(row, p)


@rows
def test_fused_in_float32_errs_no_more_than_twice_what_eager_does(row):
    if "bf16" in row.id:
        pytest.skip("its state is bfloat16: which way it is rounded is chance")
    tx = row.make(**row.hypers)
    exact = eager(tx, params(torch.float64), **row.extra)[0]
    wide = lambda p: optfx.tree.cast(p, torch.float64)
    start = optfx.tree.cast(params(torch.float64), torch.float32)
    mine, theirs = wide(fused(tx, start, **row.extra)[0][0]), wide(eager(tx, start, **row.extra)[0])
    assert distance(mine, exact) <= 2 * distance(theirs, exact) + 1e-6


@parts
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(row, dtype):
    if row.name == "stored":
        pytest.skip("which of two codes is nearer may hang on the last bit")
    tx, p = row.make(**row.hypers), params(dtype)
    (q, state), _ = fused(tx, p, steps=2, **row.extra)
    expected = eager(tx, p, steps=2, **row.extra)
    assert distance((q, state), expected) < 4 * torch.finfo(dtype).eps
    tensors = row.make(**{k: torch.tensor(v, dtype=torch.float64) for k, v in row.hypers.items()})
    assert distance(fused(tensors, p, steps=2, **row.extra)[0], expected) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    for make in SCHEDULES[name]:
        tx = optfx.chain(optfx.scale_by_schedule(make()), optfx.scale(0.1))
        p = params(torch.float64)
        assert distance(fused(tx, p, steps=6)[0], eager(tx, p, steps=6)) < 1e-12
