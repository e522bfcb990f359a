"""Numbers of four bits in kernels: what eager code makes of them, without a byte for each."""

import pytest
import torch

import optfx
from optfx import core, tree
from optfx.combinators.codecs import Codec, eight_bits, four_bits
from optfx.tree import nibbles
from tests.compiler.harness import events, units
from tests.harness import assert_close

FOUR = {"mu": four_bits(), "nu": four_bits(signed=False)}
EIGHT = {"mu": eight_bits(block=128), "nu": eight_bits(signed=False, block=128)}
SHAPES = {"w": (64, 128), "conv": (48, 16, 3, 2), "odd": (4097,), "wide": (6, 128 * 33), "small": (7, 2), "b": (64,)}
PARAMS = {k: torch.randn(n, generator=torch.Generator().manual_seed(len(k))) for k, n in SHAPES.items()}


def steps(tx, p, n=4, scale=0.1):
    """Params and state by `update`, and by `fuse`, and that."""
    g, (q, fused) = torch.Generator().manual_seed(1), (opt := optfx.fuse(tx)).init(p)
    state = tx.init(p)
    for _ in range(n):
        grads = tree.map(lambda x: (scale * torch.randn(x.shape, generator=g)).to(x.dtype), p)
        updates, state = tx.update(grads, state, p)
        p = optfx.apply_updates(p, updates)
        q, fused = opt.step(grads, fused, q)
    return (p, state), (q, fused), opt


def assert_equal(expected, found, exact=False):
    """The same steps. Where the last bits of sums and roots differ, one of very many codes may be its neighbor."""
    assert_close(found[0], expected[0], 1e-5, 0.0 if exact else 2e-3)
    for x, y in zip(tree.leaves(found[1]), tree.leaves(expected[1]), strict=True):
        if x.dtype == torch.uint8:
            assert (x != y).float().mean() <= (0.0 if exact else 1e-3)


def copies(opt):
    """The elements of the largest leaf that stands between two stages."""
    plan = opt._plan
    between = plan.values[len(plan.recording.inputs.leaves) :]
    return max((x.numel() for x in between), default=0)


def inside(tx, codec=FOUR):
    return optfx.stored(tx, codec)


ADAMW = optfx.adamw(0.1)
ALIKE = {
    "adamw": lambda codec: inside(ADAMW, codec),
    "a norm of all": lambda codec: optfx.chain(optfx.clip_by_global_norm(1.0), inside(ADAMW, codec)),
    "means of rows": lambda codec: inside(optfx.chain(optfx.centralize(), ADAMW), codec),
    "steps that are skipped": lambda codec: optfx.apply_if_finite(inside(ADAMW, codec), 3),
    "some of many steps": lambda codec: optfx.accumulate(inside(ADAMW, codec), 2),
    "a fresh state at times": lambda codec: optfx.reset_every(inside(ADAMW, codec), 2),
}


@pytest.mark.parametrize("name", ALIKE)
def test_kernels_are_those_of_eight_bits(name):
    expected, found, opt = steps(ALIKE[name](FOUR), PARAMS)
    assert_equal(expected, found)
    other = optfx.fuse(ALIKE[name](EIGHT))
    other.init(PARAMS)
    assert opt.explain() == other.explain()
    assert copies(opt) == copies(other)
    assert not events(opt)
    assert any(nibbles.UINT4 in unit.work.program.dtypes for unit in units(opt))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_dtypes(dtype):
    expected, found, opt = steps(inside(ADAMW), tree.cast(PARAMS, dtype))
    assert not events(opt)
    assert_equal(tree.cast(expected, torch.float32), tree.cast(found, torch.float32), exact=dtype == torch.float64)
    assert_equal(([], expected[1]), ([], found[1]))


@pytest.mark.parametrize("block", [2, 6, 64, 66, 130, 1022, 1024, 1026, 4096])
def test_blocks_of_any_length(block):
    """One whose rows are short, and one that goes over a row twice, by 64 elements, of which the last are fewer."""
    codec = {"mu": four_bits(block=block, least=2), "nu": four_bits(False, block=block, least=2)}
    p = {"w": torch.randn(3, block), "v": torch.randn(20 * block), "two": torch.randn(block, 2)}
    expected, found, opt = steps(inside(ADAMW, codec), p)
    assert_equal(expected, found)
    assert not events(opt)


def test_one_block_that_is_cut_between_threads():
    n = 3 * 32769  # in three parts, of which two would begin within a byte
    codec = {"mu": four_bits(block=2 * n, least=2), "nu": four_bits(False, block=2 * n, least=2)}
    expected, found, opt = steps(inside(ADAMW, codec), {"w": torch.randn(2 * n)})
    assert_equal(expected, found)
    assert not events(opt)


# ---- numbers themselves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [four_bits(block=16, least=2), four_bits(False, block=16, least=2)], ids=repr)
def test_every_byte_is_read_as_in_eager_code(codec):
    """A trace that forgets nothing, and meets no gradients, is the decoded state."""
    opt = optfx.fuse(optfx.stored(optfx.trace(1.0), codec))
    p, state = opt.init({"w": torch.zeros(32, 16)})
    codes, scale = torch.arange(256, dtype=torch.uint8).view(32, 8), torch.linspace(0.5, 7.0, 32)
    state.inner.trace["w"].copy_(codes)
    state.scales.trace["w"].copy_(scale)
    p, _ = opt.step({"w": torch.zeros(32, 16)}, state, p)
    assert torch.equal(p["w"], codec.decode(codes, scale))


@pytest.mark.parametrize("signed", [True, False])
def test_numbers_beside_the_limits_have_the_codes_of_eager_code(signed):
    codec = four_bits(signed, block=16, least=2)
    limits, inf = torch.tensor(codec.table[1]), torch.tensor(torch.inf)
    rows = [limits, limits.nextafter(inf), limits.nextafter(-inf), torch.tensor(codec.table[0][:-1])]
    x = torch.stack([torch.cat([row, torch.ones(1)]) for row in rows])
    x = torch.cat([x, x.flip(1), torch.zeros(1, 16), 3 * x])
    opt = optfx.fuse(optfx.stored(optfx.trace(0.0), codec))  # whose state is the gradient
    p, state = opt.init({"w": torch.zeros_like(x)})
    _, state = opt.step({"w": x}, state, p)
    codes, scale = codec.encode(x)
    assert torch.equal(state.inner.trace["w"], codes)
    assert torch.equal(state.scales.trace["w"], scale)


class Sixteenths(Codec):
    """Numbers without scales, in leaves of any even length."""

    dtype, block, least = torch.uint8, 0, 2

    def fits(self, x):
        return super().fits(x) and x.ndim > 0 and x.shape[-1] % 2 == 0

    def encode(self, x):
        limits = torch.tensor([(k - 7.5) / 8 for k in range(15)], dtype=x.dtype)
        return nibbles.packed(torch.bucketize(x, limits, out_int32=True, right=True).to(torch.uint8)), None

    def decode(self, codes, scale):
        return torch.tensor([(k - 8) / 8 for k in range(16)])[nibbles.unpacked(codes).int()]


def test_leaves_of_all_lengths_in_one_loop():
    """They stand in one row, which is cut into chunks of 4096, and these into blocks of 64."""
    p = {str(n): torch.zeros(n) for n in (2, 10, 62, 4096, 130, 9000, 64, 66, 40002)} | {"m": torch.zeros(3, 5, 6)}
    expected, found, opt = steps(optfx.stored(optfx.trace(0.5), Sixteenths()), p, scale=0.5)
    assert_equal(expected, found, exact=True)
    (unit,) = units(opt)
    assert not events(opt)
    assert len(unit.members) == len(p)
    assert unit.work.program.is_flat
    assert nibbles.UINT4 in unit.work.program.dtypes


def test_members():
    many = {"w": torch.stack([PARAMS["w"], 2 * PARAMS["w"], PARAMS["w"] - 1])}
    opt = optfx.fuse(inside(optfx.adamw(torch.tensor([0.1, 0.2, 0.3]))), members=3)
    q, state = opt.init(many)
    for _ in range(2):
        q, state = opt.step(many, state, q)
    assert not events(opt)
    assert all(unit.kernel.by == "C++" for unit in units(opt))
    for i, rate in enumerate((0.1, 0.2, 0.3)):
        tx, g = inside(optfx.adamw(rate)), {"w": many["w"][i]}
        p, alone = g, tx.init(g)
        for _ in range(2):
            updates, alone = tx.update(g, alone, p)
            p = optfx.apply_updates(p, updates)
        pick = lambda t, i=i: tree.map(lambda x: x[i], t)
        assert_equal((p, alone), (pick(q), pick(state)))


# ---- what no kernel does ---------------------------------------------------------------------------------------------


def test_blocks_that_begin_within_a_byte():
    codec = {"mu": four_bits(block=3, least=2), "nu": four_bits(False, block=3, least=2)}
    expected, found, opt = steps(inside(ADAMW, codec), {"w": torch.randn(100, 6)})
    assert_equal(expected, found)
    assert events(opt)


def exotic(u, p):
    return torch.special.bessel_j0(u)


@pytest.mark.parametrize("members", [None, 2])
def test_a_function_without_words(members):
    """C++ has none for it, so torch does the leaf, and has no numbers of four bits."""
    tx = inside(
        optfx.chain(optfx.trace(0.9), optfx.stateless(lambda u, p: tree.elementwise(exotic, u, p))), four_bits()
    )
    if members is None:
        expected, found, opt = steps(tx, {"w": PARAMS["w"]}, 2)
        assert_equal(expected, found)
        return
    opt, g = optfx.fuse(tx, members=2), {"w": torch.stack([PARAMS["w"], 2 * PARAMS["w"]])}
    q, state = opt.init(g)
    q, state = opt.step(g, state, q)
    updates, alone = tx.update({"w": g["w"][1]}, tx.init({"w": g["w"][1]}), {"w": g["w"][1]})
    assert_close(q["w"][1], g["w"][1] + updates["w"], 1e-5, 1e-6)
    assert torch.equal(state.inner[0].trace["w"][1], alone.inner[0].trace["w"])


BYTES = {  # what a transform sees of a state beside its numbers, and whether kernels see these all the same
    "nothing": (lambda old, new: 0.0, True),
    "the bytes that were": (lambda old, new: old.float(), False),
    "the bytes that come": (lambda old, new: new.float(), True),
    "other places of these": (lambda old, new: new.flip(0).float(), True),
    "their halves again": (lambda old, new: nibbles.unpacked(new.view(20, 16)).float()[:, ::2].reshape(40, 8), True),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_also_seen_as_such(name):
    look, in_kernels = BYTES[name]

    def init(params):
        return (torch.arange(320) * 37 % 256).to(torch.uint8).view(40, 8)

    def update(updates, state, params):
        table = torch.linspace(0, 1, 16)
        more = table[nibbles.unpacked(state).int()]
        new = torch.bucketize(more + updates["b"], table[1:].clone(), out_int32=True, right=True).to(torch.uint8)
        new = nibbles.packed(new)
        return {"a": updates["a"] + look(state, new), "b": updates["b"] + more}, new

    p = {"a": torch.randn(40, 8), "b": torch.randn(40, 16)}
    expected, found, opt = steps(core.from_functions(init, update), p, 3)
    assert_equal(expected, found, exact=True)
    assert any(nibbles.UINT4 in unit.work.program.dtypes for unit in units(opt)) == in_kernels
