"""`torch.distributed.checkpoint`: saved by 2 processes that share the params (FSDP2), loaded by 1, and back."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import optfx
from optfx import interop, tree
from tests.interop import ranks

TX = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(optfx.cosine_decay_schedule(0.1, 10)))


def model():
    """No dimension is divisible by 2, and the last bias has no part on the second rank."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3), nn.Tanh(), nn.Linear(3, 1))


def sharded_model():
    from torch.distributed.fsdp import fully_shard

    net = model()
    for layer in (net[0], net[2], net):
        fully_shard(layer)
    return net


def train(params, state, steps=3):
    for _ in range(steps):
        updates, state = TX.update(tree.map(torch.cos, params), state, params)
        params = optfx.apply_updates(params, updates)
    return params, state


def run_of(net, steps):
    params, state = train(optfx.params(net), TX.init(optfx.params(net)), steps)
    return {"params": params, "state": state, "step": torch.tensor(steps)}


def whole(run):
    """The whole tensors of a sharded run; every rank takes part."""
    return {path: x.full_tensor() if hasattr(x, "full_tensor") else x for path, x in tree.to_dict(run).items()}


def assert_equal(a, b):
    assert list(a) == list(b)
    assert [path for path in a if not torch.equal(a[path], b[path])] == []


def save_sharded(rank, world, folder):
    run = run_of(sharded_model(), 3)
    flat = interop.state_dict(run)
    mine, theirs = run["params"]["0.weight"], flat["params.0.weight"]
    assert type(mine) is type(theirs) is not torch.Tensor
    assert mine.to_local().data_ptr() != theirs.to_local().data_ptr()
    assert mine.to_local().shape == (5 - rank, 5)
    dcp.save(flat, checkpoint_id=f"{folder}/two")
    with pytest.raises(TypeError, match=r"'params\.0\.bias' is a DTensor: .* torch\.distributed\.checkpoint"):
        interop.save(run, f"{folder}/run.pt")
    with pytest.raises(ValueError, match=r"params\.0\.bias: a DTensor \(Shard\(dim=0\),\) .*, expected a whole tensor"):
        interop.load_state_dict(run_of(model(), 0), flat)
    return whole(run)


def load_sharded(rank, world, folder, names):
    """What each rank reads from the checkpoints, whole, and 3 steps later."""
    template, found = run_of(sharded_model(), 0), {}
    for name in names:
        if name.endswith(".pt"):
            run = interop.load(template, f"{folder}/{name}")
        else:
            flat = interop.state_dict(template)
            dcp.load(flat, checkpoint_id=f"{folder}/{name}")
            run = interop.load_state_dict(template, flat)
        assert run["params"]["0.weight"].to_local().shape == (len(torch.arange(9).chunk(world)[rank]), 5)
        params, state = train(run["params"], run["state"])
        found[name] = whole(run), whole({"params": params, "state": state})
    return found


pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # which is meant


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the checkpoints that two ranks wrote and that one process wrote, and what is in them."""
    folder = tmp_path_factory.mktemp("dcp")
    alone = run_of(model(), 4)
    dcp.save(interop.state_dict(alone), checkpoint_id=folder / "one")
    interop.save(alone, folder / "one.pt")
    return folder, ranks.run(save_sharded, 2, str(folder))[0], alone


def test_two_to_one(written):
    folder, expected, _ = written
    run = run_of(model(), 0)
    flat = interop.state_dict(run)
    saved = dcp.FileSystemReader(folder / "two").read_metadata().state_dict_metadata  # as docs/checkpoints.md compares
    assert {k: v.properties.dtype for k, v in saved.items()} == {k: x.dtype for k, x in flat.items()}
    dcp.load(flat, checkpoint_id=folder / "two")
    assert_equal(flat, expected)
    assert_equal(tree.to_dict(interop.load_state_dict(run, flat)), expected)
    alone = tree.to_dict(run_of(model(), 3))
    for path in alone:
        torch.testing.assert_close(alone[path], expected[path], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world", [2, 3])
def test_one_and_two_to_many(written, world):
    folder, expected, alone = written
    params, state = train(alone["params"], alone["state"])
    further = tree.to_dict({"params": params, "state": state})
    for found in ranks.run(load_sharded, world, str(folder), ["two", "one", "one.pt"]):
        assert_equal(found["two"][0], expected)
        for name in ("one", "one.pt"):
            whole_run, later = found[name]
            assert_equal(whole_run, tree.to_dict(alone))
            for path in further:
                torch.testing.assert_close(later[path], further[path], rtol=1e-5, atol=1e-6)
