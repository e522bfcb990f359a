"""Checkpoints: what goes through a file comes back bit for bit, and what does not fit is refused."""

from __future__ import annotations

import io
import os
import re
import zipfile

import pytest
import torch
from torch.func import vmap

import optfx
from optfx import interop, tree
from optfx.tree.words import difference
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
    assert difference(a, b) is None
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
    assert_equal(state, interop.load(tx.init(p), tmp_path / "state.pt"))
    assert_equal(state, interop.load_state_dict(tx.init(p), through_safetensors(interop.state_dict(state))))


def test_paths_are_readable():
    state = optfx.chain(optfx.clip(1.0), optfx.adam(0.1)).init(params())
    assert list(interop.state_dict(state)) == [
        "0.count", "1.0.count", "1.0.mu.bias", "1.0.mu.layer.0.weight",
        "1.0.nu.bias", "1.0.nu.layer.0.weight", "1.1.count",
    ]  # fmt: skip


def test_state_of_a_sweep():
    tx = optfx.adam(torch.tensor([0.1, 0.2, 0.3]))
    many = vmap(lambda tx, p: tx.init(p), (0, None))(tx, params())
    assert any(0 in x.stride() for x in tree.leaves(many))
    flat = interop.state_dict(many)
    assert all(x.is_contiguous() for x in flat.values())
    assert_equal(many, interop.load_state_dict(many, through_safetensors(flat)))


def test_fused_and_back(tmp_path):
    """Eager, then fused, then eager: a file between any two, and the numbers of each alone."""
    tx = optfx.adamw(0.1)
    path, template = tmp_path / "run.pt", {"params": params(), "state": tx.init(params())}

    def eager(p, state, steps=3):
        for _ in range(steps):
            updates, state = tx.update(tree.map(torch.cos, p), state, p)
            p = optfx.apply_updates(p, updates)
        return p, state

    def fused(p, state, steps=3):
        opt = optfx.fuse(tx)
        p, state = opt.init(p, state)
        for _ in range(steps):
            p, state = opt.step(tree.map(torch.cos, p), state, p)
        return p, state

    def through_file(p, state):
        interop.save({"params": p, "state": state}, path)
        return interop.load(template, path).values()

    begin = tuple(template.values())
    mixed = eager(*through_file(*fused(*through_file(*eager(*begin)))))
    assert tree.allclose(mixed, eager(*begin, steps=9), rtol=1e-5, atol=1e-6)
    assert_equal(fused(*through_file(*fused(*begin))), fused(*begin, steps=6))
    assert_equal(eager(*through_file(*eager(*begin))), eager(*begin, steps=6))


def test_leaves_that_a_fused_optimizer_packed(no_cpp, monkeypatch, tmp_path):
    """Where Inductor writes the kernels, small leaves are views of one buffer; the checkpoint does not know."""
    monkeypatch.setattr("optfx.compiler.fused.SMALL", 1000)
    tx = optfx.sgd(0.1, momentum=0.9)
    opt = optfx.fuse(tx)
    p, state = opt.init(params())
    p, state = opt.step(tree.map(torch.cos, p), state, p)
    assert len({x.untyped_storage().data_ptr() for x in tree.leaves(p)}) == 1
    flat = interop.state_dict({"params": p, "state": state})
    assert all(x.untyped_storage().nbytes() == x.numel() * x.itemsize for x in flat.values())
    interop.save({"params": p, "state": state}, tmp_path / "run.pt")
    saved = interop.load({"params": params(), "state": tx.init(params())}, tmp_path / "run.pt")
    assert_equal(saved, {"params": p, "state": state})
    again, its_state = optfx.fuse(tx).init(saved["params"], saved["state"])
    assert_equal((again, its_state), (p, state))


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
    with pytest.raises(TypeError, match=r"the leaf at 'step' is a int, expected a tensor: 3"):
        interop.state_dict({"step": 3})


def test_what_has_no_values_is_refused():
    with pytest.raises(ValueError, match="the leaf at 'a' is on meta"):
        interop.load_state_dict({"a": torch.zeros(2, device="meta")}, {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match="the leaf at 'a' is on meta"):
        interop.state_dict({"a": torch.zeros(2, device="meta")})


def test_the_template_is_left_alone(tmp_path):
    template = {"a": torch.zeros(2), "b": torch.ones(1, dtype=torch.bool)}
    interop.save({"a": torch.ones(2), "b": torch.zeros(1, dtype=torch.bool)}, tmp_path / "run.pt")
    after = interop.load(template, tmp_path / "run.pt")
    assert_equal(template, {"a": torch.zeros(2), "b": torch.ones(1, dtype=torch.bool)})
    after["a"].add_(1)  # the memory is its own, not the file's
    assert_equal(interop.load(template, tmp_path / "run.pt")["a"], torch.ones(2))


def test_a_file_is_for_everyone(tmp_path):
    """`torch.load` reads it, on any terms, and nothing in it is of this library."""
    before = run(optfx.adam(0.1))
    interop.save(before, tmp_path / "new" / "run.pt")
    for mmap in (False, True):
        found = torch.load(tmp_path / "new" / "run.pt", weights_only=True, mmap=mmap)
        assert_equal(before, tree.from_dict(before, found))
    with zipfile.ZipFile(tmp_path / "new" / "run.pt") as archive:
        assert b"optfx" not in archive.read("archive/data.pkl")


def test_files_that_are_none(tmp_path):
    path, template = tmp_path / "run.pt", {"a": torch.zeros(2)}
    with pytest.raises(FileNotFoundError):
        interop.load(template, path)
    interop.save({"a": torch.ones(2)}, path)
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[: len(whole) // 2], whole[:-5], whole[10:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"run\.pt is cut short, or no file of tensors"):
            interop.load(template, path)
    torch.save(optfx.adam(0.1), path)  # would execute code
    with pytest.raises(ValueError, match=r"run\.pt holds objects that only code could restore"):
        interop.load(template, path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(ValueError, match=r"run\.pt holds a list, expected tensors by path"):
        interop.load(template, path)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match=r"run\.pt: .*\n  a: a int, expected a tensor"):
        interop.load(template, path)
    interop.save({"b": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"run\.pt: the dict does not fit the tree:\n  missing: a"):
        interop.load(template, path)


def test_one_bit_is_enough(tmp_path):
    """`torch.load` takes a changed number as it is."""
    path, value = tmp_path / "run.pt", torch.arange(1000.0)
    torch.serialization.set_crc32_options(False)  # a user's choice for other files
    try:
        interop.save({"a": value}, path)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(interop.load({"a": value}, path)["a"], value)
    content = bytearray(path.read_bytes())
    content[content.find(value.numpy().tobytes()) + 500] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["a"], value)
    with pytest.raises(ValueError, match=r"run\.pt is damaged: the checksum of .*data/0"):
        interop.load({"a": value}, path)


def test_a_failed_save_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    interop.save({"a": torch.ones(2)}, path)
    with pytest.raises(TypeError):
        interop.save({"a": "text"}, path)

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        interop.save({"a": torch.zeros(2)}, path)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(interop.load({"a": torch.zeros(2)}, path)["a"], torch.ones(2))


def test_the_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """What a loss of power needs: the content, then the name, then the folder that holds the name."""
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle):
        done.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{handle}'))}")
        fsync(handle)

    def noted_replace(old, new):
        assert os.path.getsize(old) > 80_000
        done.append(f"move {os.path.basename(old)} to {os.path.basename(new)}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    interop.save({"a": torch.ones(20_000)}, tmp_path / "run.pt")
    content, move, folder = done
    draft = content.removeprefix("fsync ")
    assert re.fullmatch(r"run\.pt\.[0-9a-f]{8}\.part", draft)
    assert (move, folder) == (f"move {draft} to run.pt", f"fsync {tmp_path.name}")


def test_drafts_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    others = ["run.pt.1.part", "run.pt.12345678", "run.pt.x.12345678.part", "xrun.pt.12345678.part"]
    for name in [*others, "run.pt.12345678.part", "run.pt.abcdef00.part"]:
        (tmp_path / name).write_text("half")
    interop.save({"a": torch.ones(2)}, tmp_path / "run.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "run.pt"])


def test_two_writers_of_one_file_are_found_out(tmp_path, monkeypatch):
    path, fsync = tmp_path / "run.pt", os.fsync

    def interrupted(handle):
        monkeypatch.setattr(os, "fsync", fsync)
        interop.save({"a": torch.ones(2)}, path)  # the other one
        fsync(handle)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(FileNotFoundError, match=r"run\.pt\.[0-9a-f]{8}\.part"):
        interop.save({"a": torch.zeros(2)}, path)
    assert torch.equal(interop.load({"a": torch.zeros(2)}, path)["a"], torch.ones(2))
