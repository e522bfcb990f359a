"""Checkpoints: what goes through a file comes back bit for bit, and what does not fit is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
import torch
from torch.func import vmap

import optfx
from optfx import interop, tree
from tests.registry import ROWS


def params():
    generator = torch.Generator().manual_seed(0)
    return {"layer.0": {"weight": torch.randn(4, 3, generator=generator)}, "bias": torch.randn(3, generator=generator)}


def run(tx, steps=3):
    p = params()
    state = tx.init(p)
    for _ in range(steps):
        updates, state = tx.update(tree.map(torch.cos, p), state, p, value=torch.tensor(1.0))
        p = optfx.apply_updates(p, updates)
    return {"params": p, "state": state, "step": torch.tensor(steps), "flags": torch.tensor([True, False])}


def through_torch(flat):
    file = io.BytesIO()
    torch.save(flat, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_safetensors(flat):
    import safetensors.torch

    return safetensors.torch.load(safetensors.torch.save(flat))


def assert_equal(a, b):
    assert tree.difference(a, b) is None
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert torch.equal(x, y)


@pytest.mark.parametrize("through", [through_torch, through_safetensors], ids=["torch", "safetensors"])
def test_round_trip(through):
    labels = optfx.select.label({"a": optfx.select.path("*.weight")}, default="b")
    tx = optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.inject_hyperparams(optfx.partition({"a": optfx.adamw(0.1), "b": optfx.sgd(0.1, 0.9)}, labels)),
        optfx.masked(optfx.params_ema(0.9), optfx.select.ndim(min=2)),
        optfx.add_noise(0.1, 0.5, optfx.random.key(0)),
    )  # fmt: skip
    before = run(tx)
    p = params()
    template = {"params": p, "state": tx.init(p), "step": torch.tensor(0), "flags": torch.zeros(2, dtype=torch.bool)}
    after = interop.load_state_dict(template, through(interop.state_dict(before)))
    assert_equal(before, after)
    step = lambda r: tx.update(r["params"], r["state"], r["params"])
    assert_equal(step(before), step(after))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_state_of_every_transform(row, tmp_path):
    tx = row.make(**row.hypers)
    p = params()
    state = tx.init(p)
    interop.save(state, tmp_path / "state.pt")
    assert_equal(state, interop.load(tmp_path / "state.pt", tx.init(p)))
    assert_equal(state, interop.load_state_dict(tx.init(p), through_safetensors(interop.state_dict(state))))


def test_paths_are_readable():
    state = optfx.chain(optfx.clip(1.0), optfx.adam(0.1)).init(params())
    assert list(interop.state_dict(state)) == [
        "0.count", "1.0.count", "1.0.mu.bias", "1.0.mu.layer.0.weight",
        "1.0.nu.bias", "1.0.nu.layer.0.weight", "1.1.count",
    ]  # fmt: skip


def test_state_of_a_sweep_and_of_a_fused_optimizer(tmp_path):
    tx = optfx.adam(torch.tensor([0.1, 0.2, 0.3]))
    many = vmap(lambda tx, p: tx.init(p), (0, None))(tx, params())
    assert any(0 in x.stride() for x in tree.leaves(many))
    flat = interop.state_dict(many)
    assert all(x.is_contiguous() for x in flat.values())
    assert_equal(many, interop.load_state_dict(many, through_safetensors(flat)))

    plain = optfx.adamw(0.1)
    opt = optfx.fuse(plain)
    p, state = opt.init(params())
    p, state = opt.step(tree.map(torch.cos, p), state, p)
    interop.save({"params": p, "state": state}, tmp_path / "fused.pt")
    saved = interop.load(tmp_path / "fused.pt", {"params": params(), "state": plain.init(params())})
    for _ in range(3):
        p, state = opt.step(tree.map(torch.cos, p), state, p)
    other = optfx.fuse(plain)
    q, again = other.init(saved["params"], saved["state"])
    for _ in range(3):
        q, again = other.step(tree.map(torch.cos, q), again, q)
    assert_equal((p, state), (q, again))
    updates, _ = plain.update(saved["params"], saved["state"], saved["params"])
    assert tree.difference(updates, saved["params"]) is None


def test_nothing_is_shared():
    packed = torch.arange(6.0)
    before = {"a": packed[:3], "b": packed[3:], "c": packed[::2], "d": torch.ones(1, requires_grad=True).expand(4)}
    flat = interop.state_dict(before)
    after = interop.load_state_dict(before, flat)
    memory = [x.untyped_storage().data_ptr() for x in (packed, *flat.values(), *tree.leaves(after))]
    assert len(set(memory)) == len(memory)
    assert not any(x.requires_grad for x in (*flat.values(), *tree.leaves(after)))
    assert all(x.untyped_storage().nbytes() == x.numel() * 4 for x in flat.values())


def test_what_does_not_fit_is_listed():
    template = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}
    flat = {"a": torch.zeros(3), "b": torch.zeros(2).double(), "d": torch.zeros(1)}
    with pytest.raises(ValueError, match="does not fit") as error:
        interop.load_state_dict(template, flat)
    for words in ("missing: c", "unexpected: d", "a: (3,) torch.float32, expected (2,)", "b: (2,) torch.float64"):
        assert words in str(error.value)
    with pytest.raises(ValueError, match=r"two leaves share the path 'a\.b\.c'"):
        interop.state_dict({"a.b": {"c": torch.ones(1)}, "a": {"b.c": torch.ones(1)}})
    with pytest.raises(TypeError, match=r"the leaf 'step' is a int, expected a tensor: torch\.tensor\(3\)"):
        interop.state_dict({"step": 3})


def test_files_that_are_none(tmp_path):
    path, template = tmp_path / "run.pt", {"a": torch.zeros(2)}
    with pytest.raises(FileNotFoundError):
        interop.load(path, template)
    interop.save({"a": torch.ones(2)}, path)
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[: len(whole) // 2], whole[:-5], whole[10:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"run\.pt is no checkpoint of optfx, or not all of one"):
            interop.load(path, template)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match=r"run\.pt holds no dict of tensors"):
        interop.load(path, template)
    torch.save(optfx.adam(0.1), path)  # would execute code
    with pytest.raises(ValueError, match=r"run\.pt is no checkpoint"):
        interop.load(path, template)
    interop.save({"b": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"run\.pt: the dict does not fit the tree:\n  missing: a"):
        interop.load(path, template)


def test_a_failed_save_leaves_the_last_one(tmp_path):
    path = tmp_path / "run.pt"
    interop.save({"a": torch.ones(2)}, path)
    with pytest.raises(TypeError):
        interop.save({"a": "text"}, path)
    os.mkdir(tmp_path / "run.pt.part")  # no place to write to
    with pytest.raises(OSError, match=r"run\.pt\.part"):
        interop.save({"a": torch.zeros(2)}, path)
    assert torch.equal(interop.load(path, {"a": torch.zeros(2)})["a"], torch.ones(2))


def test_killed_runs_go_on_bit_for_bit():
    command = [sys.executable, "-m", "tests.interop.crash", "--kills", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["kills"] >= 60
    assert seen["bit-equal"] == seen["runs"] > 0
    assert seen["while writing"] > 0
