"""States in fewer bits: codes are the nearest, fused steps copy no state, and states go where others go."""

import importlib.util
import warnings

import pytest
import torch

import optfx
from optfx import interop, select, tree
from optfx.combinators.codecs import FLOATS, TABLES, Table, eight_bits, four_bits, fp8, half
from tests.compiler.harness import events
from tests.harness import assert_close

ADAM = {"mu": eight_bits(), "nu": eight_bits(signed=False)}
CODECS = [eight_bits(), eight_bits(False), four_bits(), four_bits(False), fp8(), fp8(torch.float8_e5m2)]
PARAMS = {"w": torch.linspace(-1, 1, 64 * 128).reshape(64, 128), "b": torch.zeros(64), "odd": torch.zeros(4097)}


def blocks(codec, n=40, scale=1.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, codec.block, generator=g) * torch.rand(n, codec.block, generator=g) ** 4 * scale
    return x.abs() if not getattr(codec, "signed", True) else x


def trained(tx, steps=5, p=PARAMS, step=None):
    g = torch.Generator().manual_seed(1)
    state = tx.init(p)
    for _ in range(steps):
        grads = tree.map(lambda x: 0.1 * torch.randn(x.shape, generator=g), p)
        updates, state = tx.update(grads, state, p)
        p = optfx.apply_updates(p, updates)
    return p, state


# ---- codecs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_each_element_becomes_the_nearest_number_of_its_table(codec):
    x = blocks(codec)
    codes, scale = codec.encode(x)
    decoded = codec.decode(codes, scale)
    assert (codes.dtype, scale.shape, decoded.shape) == (torch.uint8, (len(x),), x.shape)
    table = torch.tensor(codec.table[0], dtype=torch.float64)
    y = x.double() / scale.double()[:, None]
    nearest = (y.unsqueeze(-1) - table).abs().amin(-1)
    assert ((y - decoded.double() / scale.double()[:, None]).abs() <= nearest + 1e-6 * table[-1]).all()


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_what_was_decoded_is_encoded_as_it_was(codec):
    if codec.table[0][0] > -codec.table[0][-1] and codec.table[0][0] < 0:
        pytest.skip("a block whose largest number is negative has another scale then")
    codes, scale = codec.encode(blocks(codec))
    again, same = codec.encode(codec.decode(codes, scale))
    torch.testing.assert_close(same, scale, rtol=1e-6, atol=0.0)
    assert torch.equal(again, codes)


@pytest.mark.parametrize("codec", [*CODECS, half(least=1)], ids=repr)
def test_zeros_and_what_is_not_finite(codec):
    x = torch.zeros(4, max(codec.block, 2))
    assert not codec.decode(*codec.encode(x)).any()
    x[1, 0], x[2, 0] = torch.nan, torch.inf
    decoded = codec.decode(*codec.encode(x))
    assert not decoded[[0, 3]].any()
    assert not decoded[1:3].isfinite().all(-1).any()


def test_tables_have_the_published_numbers():
    """A decade has half as many numbers as the one above it, the middles of equal steps."""
    signed, unsigned, four, linear = (table for table, _ in TABLES.values())
    for table, decades, n in ((signed, 7, 64), (unsigned, 7, 128), (four, 3, 4)):
        positive = [x for x in table if 0 < x < 1]
        for k in range(decades):
            decade = [x for x in positive if 10.0 ** (-k - 1) < x < 10.0**-k]
            m = n >> k
            middles = [(0.1 + 0.9 * (i + 0.5) / m) * 10.0**-k for i in range(m)]
            torch.testing.assert_close(torch.tensor(decade), torch.tensor(middles), rtol=1e-6, atol=0.0)
    assert linear == [k / 16 for k in range(1, 17)]
    assert [len(t) for t in (signed, unsigned, four)] == [256, 256, 16]
    assert sorted(-x for x in signed if -1 < x < 1) == [x for x in signed if -1 < x < 1]
    assert (min(unsigned), max(unsigned), max(signed), signed.count(0.0)) == (0, 1, 1, 1)


@pytest.mark.parametrize("form", FLOATS, ids=str)
def test_floats_of_eight_bits_are_rounded_as_torch_rounds_them(form):
    numbers, limits = (torch.tensor(x) for x in FLOATS[form])
    limits = limits[limits.isfinite()]
    inf = torch.tensor(torch.inf)
    x = torch.cat([limits, limits.nextafter(inf), limits.nextafter(-inf), numbers, torch.randn(10_000)])
    x = x[x.abs() <= numbers[-1]]
    assert torch.equal(numbers[torch.bucketize(x, torch.tensor(FLOATS[form][1]), right=True)], x.to(form).float())


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("codec", CODECS[:4], ids=repr)
def test_codes_are_those_of_torchao(codec):
    with warnings.catch_warnings(action="ignore"):
        from torchao.optim import quant_utils as theirs

    bits = 8 if isinstance(codec, eight_bits) else 4
    numbers = theirs.create_dynamic_map(codec.signed) if bits == 8 else theirs.create_dynamic_map(True, 3, 4)
    if (bits, codec.signed) == (4, False):
        numbers = torch.linspace(0, 1, 17)[1:].tolist()
    assert numbers == codec.table[0]
    x = blocks(codec, 4000)
    y, scale = theirs.scale_tensor(x, codec.block)
    codes = getattr(theirs, f"quantize_{bits}bit_with_qmap")(y, torch.tensor(numbers))
    mine, scales = codec.encode(x)
    assert torch.equal(scales, scale)
    assert torch.equal(mine, codes if bits == 8 else codes[:, ::2] << 4 | codes[:, 1::2])


def test_limits_are_the_least_floats_that_are_rounded_up():
    """As torchao rounds: up where the way from the lower number is no less than half of that to the upper one."""
    for numbers, limits in TABLES.values():
        low, high, x = torch.tensor(numbers[:-1]), torch.tensor(numbers[1:]), torch.tensor(limits)
        half_way, below = (high - low) * 0.5, x.nextafter(torch.tensor(-torch.inf))
        assert (x - low >= half_way).all()
        assert (below - low < half_way).all()


# ---- which leaves ----------------------------------------------------------------------------------


def coded(tx, p=PARAMS):
    state = tx.init(p)
    return [
        path
        for path, x in zip(tree.paths(state.inner), tree.leaves(state.inner), strict=True)
        if x.dtype == torch.uint8
    ]


def test_small_leaves_and_those_of_no_whole_blocks_stay_as_they_are():
    assert coded(optfx.stored(optfx.scale_by_adam(), ADAM)) == ["mu.w", "nu.w"]
    assert coded(optfx.stored(optfx.scale_by_adam(), {"nu": eight_bits(False)})) == ["nu.w"]
    assert coded(optfx.stored(optfx.scale_by_adam(), eight_bits(block=1, least=4097))) == [
        "mu.odd", "mu.w", "nu.odd", "nu.w",
    ]  # fmt: skip


def test_parameters_are_selected_as_for_a_mask():
    p = {"mu": {"w": PARAMS["w"]}, "nu": {"w": PARAMS["w"]}}  # paths that look like those of fields
    assert coded(optfx.stored(optfx.scale_by_adam(), ADAM, select.path("mu.*")), p) == ["mu.mu.w", "nu.mu.w"]
    assert coded(optfx.stored(optfx.scale_by_adam(), ADAM, {"mu": False, "nu": True}), p) == ["mu.nu.w", "nu.nu.w"]
    alone = optfx.stored(optfx.scale_by_adam(), ADAM).init(PARAMS["w"])
    assert alone.inner.mu.dtype == torch.uint8


def test_memory():
    tx = optfx.adamw(1e-3)
    size = lambda tx: sum(x.nbytes for x in tree.leaves(tx.init({"w": torch.zeros(512, 512)})))
    assert size(optfx.stored(tx, ADAM)) / size(tx) < 0.255
    nibbles = {"mu": four_bits(), "nu": four_bits(signed=False)}
    assert size(optfx.stored(tx, nibbles)) / size(tx) < 0.135


# ---- steps -----------------------------------------------------------------------------------------


def test_a_step_is_that_of_the_decoded_state():
    tx, inner = optfx.stored(optfx.adamw(0.1), ADAM), optfx.adamw(0.1)
    p, state = trained(tx)
    updates, new = tx.update(PARAMS, state, p)
    expected, decoded = inner.update(PARAMS, tx.states(state)[""], p)
    assert_close(updates, expected, 0)
    codes, scale = ADAM["nu"].encode(decoded[0].nu["w"])
    assert torch.equal(new.inner[0].nu["w"], codes)
    assert torch.equal(new.scales[0].nu["w"], scale)


@pytest.mark.parametrize("codec", [ADAM, fp8(), half()], ids=["eight bits", "fp8", "half"])
def test_fused_steps_have_the_same_codes_and_no_copy_of_the_state(codec):
    tx = optfx.stored(optfx.adamw(0.1), codec)
    (p, state), g = trained(tx), torch.Generator().manual_seed(1)
    opt = optfx.fuse(tx)
    q, fused = opt.init(PARAMS)
    for _ in range(5):
        q, fused = opt.step(tree.map(lambda x: 0.1 * torch.randn(x.shape, generator=g), PARAMS), fused, q)
    assert not events(opt)
    assert_close(q, p, 1e-5, 1e-6)
    for x, y in zip(tree.leaves(fused), tree.leaves(state), strict=True):
        assert (x.float() != y.float()).float().mean() < 1e-3 or torch.allclose(x, y, rtol=1e-4)
    plan = opt._plan
    between = [plan.values[i] for i in range(len(plan.recording.inputs.leaves), len(plan.values))]
    assert max(x.numel() for x in between) <= PARAMS["w"].numel() // 256 if isinstance(codec, dict) else True


def test_members_of_a_sweep():
    many = {"w": torch.stack([PARAMS["w"], 2 * PARAMS["w"]])}
    tx = optfx.stored(optfx.adamw(torch.tensor([0.1, 0.2])), ADAM)
    opt = optfx.fuse(tx, members=2)
    q, state = opt.init(many)
    q, state = opt.step(many, state, q)
    for i, rate in enumerate((0.1, 0.2)):
        alone, p = optfx.stored(optfx.adamw(rate), ADAM), {"w": many["w"][i]}
        updates, new = alone.update(p, alone.init(p), p)
        assert_close(q["w"][i], optfx.apply_updates(p, updates)["w"], 1e-6, 1e-6)
        assert (state.inner[0].nu["w"][i] == new.inner[0].nu["w"]).float().mean() > 0.999


def test_a_checkpoint(tmp_path):
    tx = optfx.stored(optfx.adamw(0.1), ADAM)
    _, state = trained(tx)
    interop.save(state, tmp_path / "state.pt")
    assert_close(interop.load(tx.init(PARAMS), tmp_path / "state.pt"), state, 0)


@pytest.mark.parametrize("compiled", [False, True])
def test_torch_optimizer(compiled):
    torch.manual_seed(0)
    model = torch.nn.Linear(128, 64)
    p, tx = optfx.params(model), optfx.stored(optfx.adamw(0.1), ADAM)
    p = tree.map(torch.clone, p)
    optimizer = interop.TorchOptimizer(model.named_parameters(), tx, compile=compiled)
    state, x = tx.init(p), torch.randn(8, 128)
    for step in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        updates, state = tx.update(optfx.grads(model), state, p)
        p = optfx.apply_updates(p, updates)
        optimizer.step()
        if step == 1:
            saved = optimizer.state_dict()
            optimizer = interop.TorchOptimizer(model.named_parameters(), tx, compile=compiled)
            optimizer.load_state_dict(saved)
    assert_close(tree.map(torch.clone, optfx.params(model)), p, 1e-5, 1e-5)


def test_a_codec_of_ones_own():
    class coarse(Table):
        signed, block, least = True, 4, 4
        table = [-1.0, 0.0, 1.0, 2.0], [-0.5, 0.5, 1.5]

    tx = optfx.stored(optfx.trace(0.5), coarse())
    _, state = tx.update({"w": torch.tensor([2.0, 0.6, 0.1, -3.0])}, tx.init({"w": torch.zeros(4)}))
    assert tx.states(state)[""].trace["w"].tolist() == [1.5, 0.0, 0.0, -1.5]
