"""Sharded parameters: every transform gives what one process gives, on meshes of 2 and 4 processes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optfx
from optfx import tree
from optfx.combinators.codecs import eight_bits, four_bits
from optfx.interop import TorchOptimizer
from optfx.tree.words import difference
from tests.harness import PARTS
from tests.interop import ranks

SHAPES = {"w": (9, 4), "square": (4, 4), "bias": (1,), "vector": (5,), "kernel": (3, 2, 2)}


def whole(x):
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def draw(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in SHAPES.items()
    }


def run(tx, params, grads, extra=None):
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params, **(extra or {}))
        params = optfx.apply_updates(params, updates)
    return params, state


def pair(x, y):
    """The part of `x` that is here, and the same part of `y`; what is pending is summed first."""
    from torch.distributed.tensor import distribute_tensor

    if not hasattr(x, "placements"):
        return x, y
    if any(p.is_partial() for p in x.placements):
        return x.full_tensor(), y
    return x.to_local(), distribute_tensor(y, x.device_mesh, x.placements, src_data_rank=None).to_local()


def compare(where, tx, mine, reference, spread):
    """Params and state against those of one process; the state is spread as the params are."""
    (params, state), (expected, its_state) = mine, reference
    assert difference(its_state, state) is None, where
    for x, y in zip(tree.leaves((params, state)), tree.leaves((expected, its_state)), strict=True):
        assert x.shape == y.shape, where
        torch.testing.assert_close(*pair(x, y), rtol=1e-9, atol=1e-11, msg=lambda m: f"{where}: {m}")
    for name, p in params.items():
        assert type(p) is type(spread[name]), where
        for path, x in tree.to_dict(state).items():
            if path.endswith(f".{name}") and x.shape == p.shape and hasattr(p, "placements"):
                if hasattr(x, "placements"):
                    assert x.placements == p.placements, (where, path)
                else:
                    assert x.numel() <= 9, (where, path)  # small enough to be everywhere


def layouts(world):
    """Ways to spread a tree over the processes: (name, function of a name and a tensor)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    line = init_device_mesh("cpu", (world,))

    def over(mesh, placements):
        return lambda name, x: distribute_tensor(x, mesh, placements(x), src_data_rank=None)

    yield "rows", over(line, lambda x: [Shard(0)])
    yield "columns", over(line, lambda x: [Shard(x.ndim - 1)])
    yield "everywhere", over(line, lambda x: [Replicate()])
    rows = over(line, lambda x: [Shard(0)])
    yield "some plain", lambda name, x: x.clone() if name in ("bias", "square") else rows(name, x)
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2))
        both = over(grid, lambda x: [Shard(0), Shard(x.ndim - 1)])
        yield "grid", both
        yield "grid, replicated rows", over(grid, lambda x: [Replicate(), Shard(0)])
        yield "two meshes", lambda name, x: (both if name in ("w", "vector") else rows)(name, x)


def rows_of(world):
    """The rows that are no mere chains of others (`test_shards.py` has those too, fused): a chain does with leaves what
    its parts do. Four processes take longer, and their layouts show little that is new."""
    return PARTS if world == 2 else PARTS[::3]


def every_row(rank, world):
    torch.set_num_threads(1)
    some = rows_of(world)
    plain = [draw(k) for k in range(4)]
    reference = {row.id: run(row.make(**row.hypers), plain[0], plain[1:], row.extra) for row in some}
    for name, lay in layouts(world):
        if world == 4 and name in ("everywhere", "some plain"):
            continue  # no part of a leaf is smaller for it than with two
        spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
        for row in some:
            tx = row.make(**row.hypers)
            if row.name == "stored":
                continue  # which blocks there are depends on the layout: see below
            if row.name == "flatten":
                with pytest.raises(TypeError, match="is sharded"):
                    tx.init(spread)
                continue
            compare(f"{row.id}, {name}", tx, run(tx, spread, grads, row.extra), reference[row.id], spread)
    return len(reference)


@pytest.mark.parametrize("world", [2, 4])
def test_every_transform_on_every_layout(world):
    assert ranks.run(every_row, world) == [len({row.id for row in rows_of(world)})] * world


def in_bytes(rank, world):
    codec = {"mu": eight_bits(), "nu": four_bits(signed=False)}
    tx, names = optfx.stored(optfx.adamw(0.1), codec), ("w", "v", "uneven")
    draws = [torch.Generator().manual_seed(k) for k in range(3)]
    plain = [{k: torch.randn(64 if k != "uneven" else 65, 256, generator=g) for k in names} for g in draws]
    for name, lay in layouts(world):
        spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
        (p, state), (_, expected) = run(tx, spread, grads, {}), run(tx, plain[0], plain[1:], {})
        coded = state.inner[0].mu["w"].dtype == torch.uint8
        assert coded == (name in ("rows", "everywhere", "some plain", "grid, replicated rows", "two meshes")), name
        if name == "rows":
            assert state.inner[0].mu["w"].placements == state.scales[0].mu["w"].placements == spread["w"].placements
            assert torch.equal(whole(state.inner[0].mu["w"]), expected.inner[0].mu["w"])
            assert torch.equal(whole(state.scales[0].nu["v"]), expected.scales[0].nu["v"])
            assert state.inner[0].mu["uneven"].dtype == torch.float32
        assert p["w"].shape == plain[0]["w"].shape
    return True


def test_states_in_fewer_bits():
    assert ranks.run(in_bytes, 2) == [True] * 2


def reductions(rank, world):
    from torch.distributed.tensor import DTensor, Partial
    from torch.distributed.tensor.debug import CommDebugMode

    for name, lay in layouts(world):
        plain = draw(0)
        spread = {k: lay(k, x) for k, x in plain.items()}
        with CommDebugMode() as collectives:
            norm = tree.norm(spread)
        assert type(norm) is torch.Tensor
        torch.testing.assert_close(norm, tree.norm(plain), rtol=1e-14, atol=0)
        ways = {"everywhere": 0, "grid": 2, "two meshes": 3}.get(name, 1)  # one for each way and dimension of a mesh
        assert collectives.get_total_counts() == ways, (name, collectives.get_comm_counts())
        for f in (tree.sum, tree.max, tree.all_finite):
            torch.testing.assert_close(f(spread), f(plain), rtol=1e-13, atol=0)
        torch.testing.assert_close(tree.vdot(spread, spread), tree.vdot(plain, plain), rtol=1e-13, atol=0)
    line = next(layouts(world))[1]("w", draw(0)["w"]).device_mesh
    pending = DTensor.from_local(torch.ones(2), line, [Partial()])
    assert float(tree.sum({"a": pending})) == 2 * world
    shards = {"a": line_up(line, torch.ones(4))}
    # a sum that is pending: taken, and the state stays spread as the params are
    tx = optfx.adam(0.1)
    waiting = {"a": DTensor.from_local(torch.full((4,), 0.5), line, [Partial()])}
    updates, state = tx.update(waiting, tx.init(shards), shards)
    assert state[0].mu["a"].placements == shards["a"].placements
    torch.testing.assert_close(whole(state[0].mu["a"]), torch.full((4,), 0.05 * world))
    assert whole(optfx.apply_updates(shards, updates)["a"]).tolist() == pytest.approx([0.9] * 4)
    key = optfx.random.key(3)
    noise = optfx.random.random_like(key, shards)["a"]
    assert noise.placements == shards["a"].placements
    assert torch.equal(whole(noise), optfx.random.random_like(key, {"a": torch.ones(4)})["a"])
    with pytest.raises(TypeError, match="at 'a': a plain leaf where a sharded one was expected"):
        tree.add(shards, {"a": torch.ones(4)})


SEEN = []


def cubed(x):
    SEEN.append(len(x) if x.ndim > 2 else 1)
    return x @ x.mT @ x


def shares(rank, world):
    from torch.distributed.tensor.debug import CommDebugMode

    generator = torch.Generator().manual_seed(0)
    plain = {f"w{i}": torch.randn(6, 4, generator=generator, dtype=torch.float64) for i in range(5)}
    plain["alone"] = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    expected = tree.matrixwise(cubed, plain)
    for name, lay in layouts(world):
        spread = {k: lay(k, x) for k, x in plain.items()}
        SEEN.clear()
        with CommDebugMode() as collectives:
            found = tree.matrixwise(cubed, spread)
        share = -(-5 // world)
        mine = max(0, min(share, 5 - rank * share))
        assert sum(SEEN) == mine + 1, (name, SEEN)
        for k, x in expected.items():
            assert found[k].placements == spread[k].placements
            torch.testing.assert_close(whole(found[k]), x, rtol=1e-12, atol=0)
        if name in ("rows", "columns"):  # each leaf is gathered once, and the results of the five are exchanged once
            assert collectives.get_total_counts() == 6 + 1, (name, collectives.get_comm_counts())
        if name == "everywhere":
            assert collectives.get_total_counts() == 1
    return True


@pytest.mark.parametrize("world", [2, 4])
def test_each_process_multiplies_its_share_of_the_matrices(world):
    assert ranks.run(shares, world) == [True] * world


def line_up(mesh, x):
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(x, mesh, [Shard(0)])


@pytest.mark.parametrize("world", [2, 4])
def test_reductions_and_errors(world):
    ranks.run(reductions, world)


# ---- FSDP2 -----------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second, self.last = nn.Linear(5, 9), nn.Linear(9, 7), nn.Linear(7, 1)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) / 3

    def forward(self, x):
        return self.last(self.second(self.first(x).tanh()).tanh())


def batch(k):
    generator = torch.Generator().manual_seed(k)
    return torch.randn(8, 5, generator=generator, dtype=torch.float64)


def recipe():
    return optfx.chain(
        optfx.clip_by_global_norm(0.1),
        optfx.adamw(optfx.cosine_decay_schedule(1e-2, 20), weight_decay=0.1, mask=optfx.select.ndim(min=2)),
        optfx.params_ema(0.9),
    )


def sharded(net):
    from torch.distributed.fsdp import fully_shard

    for layer in (net.first, net.second):
        fully_shard(layer)
    return fully_shard(net)


def train_functional(net, compile=None):
    tx = recipe()

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optfx.apply_updates(params, updates), state

    step = optfx.donate(step, (0, 1))
    step = step if compile is None else torch.compile(step, fullgraph=True, backend=compile)
    params = optfx.params(net)
    state = tx.init(params)
    for k in range(6):
        net.zero_grad()
        net(batch(k)).square().mean().backward()
        params, state = step(params, state, optfx.grads(net))
    return params, state


def train_optimizer(net, optimizer, steps=6, begin=0):
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for k in range(begin, begin + steps):
        optimizer.zero_grad()
        net(batch(k)).square().mean().backward()
        optimizer.step()
        scheduler.step()


def assert_same_module(a, b, rtol=1e-10):
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(whole(p.detach()), whole(q.detach()), rtol=rtol, atol=1e-12)


def fsdp(rank, world, backends):
    reference = Net()
    expected, expected_state = train_functional(reference)
    for backend in (None, *backends):
        net = sharded(Net())
        params, state = train_functional(net, backend)
        for name in expected:
            assert params[name].placements == dict(net.named_parameters())[name].placements
            assert optfx.tree.get(state, "mu")[name].placements == params[name].placements
        assert_same_module(net, reference)
        for x, y in zip(tree.leaves(state), tree.leaves(expected_state), strict=True):
            torch.testing.assert_close(whole(x), y, rtol=1e-9, atol=1e-12)

    reference = Net()
    tx = optfx.chain(optfx.clip_by_global_norm(0.1), optfx.adamw(1e-2))
    theirs = TorchOptimizer(reference.named_parameters(), tx)
    train_optimizer(reference, theirs)
    net = sharded(Net())
    ours = TorchOptimizer(net.named_parameters(), tx)
    train_optimizer(net, ours)
    assert_same_module(net, reference)


def sharded_later(rank, world):
    """As accelerate does it: the model is sharded after its optimizer was made, which is then given the parameters."""
    reference = Net()
    tx = optfx.chain(optfx.clip_by_global_norm(0.1), optfx.adamw(1e-2))
    train_optimizer(reference, TorchOptimizer(reference.named_parameters(), tx))
    net = Net()
    optimizer = TorchOptimizer(net.named_parameters(), tx)
    sharded(net)
    for group in optimizer.param_groups:
        group["params"] = [dict(net.named_parameters())[name] for name in group["param_names"]]
    train_optimizer(net, optimizer)
    assert_same_module(net, reference)
    assert set(optimizer.state) == set(net.parameters())


def test_sharded_later():
    ranks.run(sharded_later, 2)


@pytest.mark.parametrize(("world", "backends"), [(2, ("aot_eager", "inductor")), (4, ("aot_eager",))])
def test_fsdp2(world, backends):
    ranks.run(fsdp, world, backends)


# ---- torch.distributed.checkpoint ------------------------------------------------------------------------------------
# of `TorchOptimizer`; that of trees is in test_dcp.py


def trained(world):
    net = sharded(Net()) if world > 1 else Net()
    optimizer = TorchOptimizer(net.named_parameters(), optfx.adamw(1e-2))
    train_optimizer(net, optimizer)
    return net, optimizer


def save(rank, world, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    net, optimizer = trained(world)
    dcp.save(get_optimizer_state_dict(net, optimizer), checkpoint_id=folder)


def load(rank, world, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    reference, theirs = trained(1)
    net = sharded(Net()) if world > 1 else Net()
    ours = TorchOptimizer(net.named_parameters(), optfx.adamw(1e-2))
    saved = get_optimizer_state_dict(net, ours)
    dcp.load(saved, checkpoint_id=folder)
    set_optimizer_state_dict(net, ours, saved)
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        for key, x in ours.state[p].items():
            torch.testing.assert_close(whole(x), theirs.state[q][key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2), (2, 4)])
def test_checkpoints_of_the_optimizer_between_worlds(first, second, tmp_path):
    ranks.run(save, first, str(tmp_path))
    ranks.run(load, second, str(tmp_path))
