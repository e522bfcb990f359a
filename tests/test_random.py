"""Random numbers: published vectors, jax's numbers to the last bit, purity, vmap, compile, trees."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, hessian, vmap

from optfx import random, tree
from optfx.random import like

SEEDS = [0, 1, 42, 2**31, 2**32 - 1]
SHAPES = [(), (1,), (7,), (0,), (3, 0, 2), (5, 3), (2, 3, 4), (1001,)]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WORD = 0xFFFFFFFF


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def jax_key(key: torch.Tensor):
    return jax.random.wrap_key_data(np.array(key.tolist(), dtype=np.uint32))


def assert_same(ours: torch.Tensor, theirs) -> None:
    """To the last bit: float64 holds every number of the other dtypes, and the words."""
    theirs = np.asarray(theirs)
    assert name(ours.dtype).removeprefix("int64") in ("", theirs.dtype.name)
    assert tuple(ours.shape) == theirs.shape
    if theirs.dtype == np.float64:
        np.testing.assert_array_equal(ours.numpy(), theirs)
    np.testing.assert_array_equal(ours.double().numpy(), theirs.astype(np.float64))


def rotate(x: int, by: int) -> int:
    return (x << by | x >> (32 - by)) & WORD


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> list[int]:
    """Threefry-2x32-20 as the paper writes it, on Python's integers."""
    schedule = [*key, 0x1BD11BDA ^ key[0] ^ key[1]]
    x0, x1 = (counter[0] + key[0]) & WORD, (counter[1] + key[1]) & WORD
    for i, by in enumerate([13, 15, 26, 6, 17, 29, 16, 24] * 2 + [13, 15, 26, 6]):
        x0 = (x0 + x1) & WORD
        x1 = rotate(x1, by) ^ x0
        if i % 4 == 3:
            s = i // 4 + 1
            x0, x1 = (x0 + schedule[s % 3]) & WORD, (x1 + schedule[(s + 1) % 3] + s) & WORD
    return [x0, x1]


# ---- the hash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123
        (0x0000000000000000, (0x00000000, 0x00000000), [0x6B200159, 0x99BA4EFE]),
        (0xFFFFFFFFFFFFFFFF, (0xFFFFFFFF, 0xFFFFFFFF), [0x1CB996FC, 0xBB002BE7]),
        (0x243F6A8885A308D3, (0x13198A2E, 0x03707344), [0xC4923A9C, 0x483DF7A0]),
    ],
)
def test_published_vectors(counter, key, expected):
    assert random.fold_in(torch.tensor(key), counter).tolist() == expected
    signed = counter - 2**64 if counter >= 2**63 else counter
    assert random.fold_in(torch.tensor(key), torch.tensor(signed)).tolist() == expected
    assert threefry(key, (counter >> 32, counter & WORD)) == expected


@given(st.tuples(st.integers(0, WORD), st.integers(0, WORD)), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_hash_of_any_key_and_counter(key, counter):
    """The upper word of the counter too, which is where an array of more than 2**32 elements goes on."""
    assert random.fold_in(torch.tensor(key), counter).tolist() == threefry(key, (counter >> 32, counter & WORD))


# ---- jax's numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [*SEEDS, 2**32, 2**32 + 5, 2**62 + 3, 2**63 - 1, -1, -5, -(2**31), -(2**63)])
def test_key_of_jax(seed):
    expected = np.asarray(jax.random.key_data(jax.random.key(seed)))
    assert_same(random.key(seed), expected)
    assert_same(random.key(torch.tensor(seed)), expected)
    with jax.enable_x64(False):  # jax drops the upper word here
        narrow = np.asarray(jax.random.key_data(jax.random.key(seed)))
    assert random.key(seed)[1] == narrow[1]
    if 0 <= seed < 2**32:
        assert_same(random.key(seed), narrow)


def test_key_beyond_the_seeds_of_jax():
    assert random.key(2**64 - 1).tolist() == [WORD, WORD] == random.key(-1).tolist()
    assert random.key(2**63 + 9).tolist() == [2**31, 9]
    assert random.key(np.int64(7)).tolist() == random.key(torch.tensor(7, dtype=torch.int32)).tolist() == [0, 7]


@pytest.mark.parametrize("seed", SEEDS)
def test_split_and_fold_in_of_jax(seed):
    key = random.key(seed)
    for num in (0, 1, 2, 5, 100):
        assert_same(random.split(key, num), jax.random.key_data(jax.random.split(jax_key(key), num)))
    for data in SEEDS:
        expected = jax.random.key_data(jax.random.fold_in(jax_key(key), data))
        assert_same(random.fold_in(key, data), expected)
        assert_same(random.fold_in(key, torch.tensor(data)), expected)
    first, second = random.split(key)
    assert torch.equal(second, random.fold_in(key, 1))
    deep = random.split(random.fold_in(first, 3), 4)[2]
    assert_same(deep, jax.random.key_data(jax.random.split(jax.random.fold_in(jax_key(first), 3), 4)[2]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_of_jax(shape):
    key = random.split(random.key(3))[1]
    assert_same(random.bits(key, shape), jax.random.bits(jax_key(key), shape, "uint32"))
    assert random.bits(key, torch.Size(shape)).shape == shape


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniform_of_jax(shape, dtype):
    key = random.key(11)
    assert_same(random.uniform(key, shape, dtype), jax.random.uniform(jax_key(key), shape, name(dtype)))


BOUNDS = [(-0.3, 1.1), (0.1, 0.7), (3.0, 10.0), (-1.0, 1.0), (2.0, 1.0), (1e-3, 1e3), (5, 6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name)
@pytest.mark.parametrize("bounds", BOUNDS)
def test_uniform_between_bounds_of_jax(bounds, dtype):
    key, shape = random.key(5), (20_000,)
    expected = jax.random.uniform(jax_key(key), shape, name(dtype), *bounds)
    assert_same(random.uniform(key, shape, dtype, *bounds), expected)
    assert_same(random.uniform(key, shape, dtype, *map(torch.tensor, bounds)), expected)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_uniform_between_bounds_of_jax_in_float16(bounds):
    """XLA rounds product and sum, as we do, or both at once where the CPU has such an instruction for halves."""
    key, shape = random.key(5), (20_000,)
    unit = random.uniform(key, shape, torch.float16).numpy()
    low, high = np.float16(bounds[0]), np.float16(bounds[1])
    twice = np.maximum(unit * (high - low) + low, low)
    once = np.maximum((unit.astype(np.float64) * np.float64(high - low) + np.float64(low)).astype(np.float16), low)
    assert_same(random.uniform(key, shape, torch.float16, *bounds), twice)
    assert_same(random.uniform(key, shape, torch.float16, *map(torch.tensor, bounds)), twice)
    theirs = np.asarray(jax.random.uniform(jax_key(key), shape, "float16", *bounds))
    assert np.array_equal(theirs, twice) or np.array_equal(theirs, once)


def test_uniform_between_bounds_of_jax_in_float64():
    key, shape = random.key(5), (20_000,)
    ours = random.uniform(key, shape, torch.float64, -0.3, 1.1).numpy()
    np.testing.assert_allclose(ours, jax.random.uniform(jax_key(key), shape, "float64", -0.3, 1.1), rtol=0, atol=3e-16)


def test_uniform_between_tensors():
    key = random.key(5)
    low, high = torch.tensor([[-1.0], [2.0]]), torch.tensor([0.5, 3.0, 4.0], dtype=torch.float64)
    expected = jax.random.uniform(
        jax_key(key), (2, 3), "float32", np.asarray(low), np.asarray(high).reshape(1, 3).astype(np.float32)
    )
    assert_same(random.uniform(key, (2, 3), minval=low, maxval=high), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_rademacher_of_jax(seed):
    key = random.key(seed)
    with jax.enable_x64(False):
        expected = np.asarray(jax.random.rademacher(jax_key(key), (501,), "float32"))
    assert_same(random.rademacher(key, (501,)), expected)
    for dtype in (*FLOATS, torch.int8, torch.int64, torch.complex64):
        ours = random.rademacher(key, (501,), dtype)
        assert ours.dtype == dtype
        assert ours.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"),
    [
        (torch.float32, 1e-5, 1e-6),
        (torch.float64, 1e-10, 1e-15),
        (torch.complex64, 1e-5, 1e-6),
        (torch.complex128, 1e-10, 1e-15),
    ],
    ids=str,
)
def test_normal_of_jax(dtype, rtol, atol):
    for seed in SEEDS:
        key = random.key(seed)
        for shape in ((), (100_000,), (3, 5)):
            ours = random.normal(key, shape, dtype)
            theirs = np.asarray(jax.random.normal(jax_key(key), shape, name(dtype)))
            assert (ours.dtype, tuple(ours.shape)) == (dtype, theirs.shape)
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=rtol, atol=atol)


def test_normal_in_half_precision_is_that_of_float32():
    key = random.key(1)
    wide = random.normal(key, (10_000,))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(random.normal(key, (10_000,), dtype), wide.to(dtype))


# ---- pure, under every transformation --------------------------------------------------------------------------------

FUNCTIONS = {
    "split": lambda key: random.split(key, 3),
    "fold_in": lambda key: random.fold_in(key, 7),
    "bits": lambda key: random.bits(key, (37,)),
    "uniform": lambda key: random.uniform(key, (5, 7), minval=-0.3, maxval=1.1),
    "uniform64": lambda key: random.uniform(key, (37,), torch.float64),
    "uniform16": lambda key: random.uniform(key, (37,), torch.bfloat16, -1.0, torch.tensor(2.0)),
    "normal": lambda key: random.normal(key, (37, 3)),
    "normal64": lambda key: random.normal(key, (), torch.float64),
    "normal16": lambda key: random.normal(key, (37,), torch.float16),
    "complex": lambda key: random.normal(key, (9,), torch.complex64),
    "rademacher": lambda key: random.rademacher(key, (37,), torch.bfloat16),
    "random_like": lambda key: random.random_like(key, {"a": torch.zeros(2, 3), "b": torch.zeros(())})["a"],
}
each_function = pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)


@each_function
def test_pure(f):
    key, state = random.key(9), torch.get_rng_state()
    before, version = key.clone(), key._version
    first, second = f(key), f(key)
    assert torch.equal(first, second)
    assert torch.equal(key, before)
    assert key._version == version
    assert first.data_ptr() != key.data_ptr()
    assert torch.equal(torch.get_rng_state(), state)


@each_function
def test_vmap_over_keys_is_a_loop(f):
    keys = random.split(random.key(9), 12)
    alone = torch.stack([f(key) for key in keys])
    assert torch.equal(vmap(f)(keys), alone)
    assert torch.equal(vmap(vmap(f))(keys.reshape(3, 4, 2)), alone.unflatten(0, (3, 4)))
    assert len({str(row.tolist()) for row in alone}) == 12


@each_function
def test_compiles_into_one_graph(f, fresh_dynamo):
    keys = random.split(random.key(9), 3)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for key in keys:
        assert torch.equal(compiled(key), f(key))
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
    assert torch.equal(torch.compile(vmap(f), fullgraph=True, backend="aot_eager")(keys), vmap(f)(keys))


def test_inductor_makes_the_same_numbers(fresh_dynamo):
    """The last bit of normal is its own: it has another inverse error function."""

    def draw(key):
        return random.split(key), random.uniform(key, (37,), minval=-0.3, maxval=1.1), random.normal(key, (37,))

    key = random.key(9)
    (keys, uniform, normal), expected = torch.compile(draw, fullgraph=True)(key), draw(key)
    assert torch.equal(keys, expected[0])
    assert torch.equal(uniform, expected[1])
    torch.testing.assert_close(normal, expected[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("f", [f for name, f in FUNCTIONS.items() if name != "random_like"])
def test_stays_on_the_device_of_the_key(f):
    assert f(random.key(9).to("meta")).device.type == "meta"


def test_vmap_over_seeds_and_data_is_a_loop():
    numbers = torch.tensor([0, 5, 2**32 + 5, -1])
    assert torch.equal(vmap(random.key)(numbers), torch.stack([random.key(n) for n in numbers.tolist()]))
    key = random.key(4)
    alone = torch.stack([random.fold_in(key, n) for n in numbers.tolist()])
    assert torch.equal(vmap(random.fold_in, (None, 0))(key, numbers), alone)
    keys = random.split(key, 3)
    table = vmap(vmap(random.fold_in, (None, 0)), (0, None))(keys, numbers)
    assert torch.equal(table[2, 3], random.fold_in(keys[2], -1))


def test_vmap_over_bounds():
    lows, keys = torch.tensor([-1.0, 0.0, 3.0]), random.split(random.key(4), 3)
    draw = lambda key, low: random.uniform(key, (4,), minval=low, maxval=5.0)
    assert torch.equal(vmap(draw)(keys, lows), torch.stack([draw(keys[i], lows[i]) for i in range(3)]))


def test_a_step_counted_in_python_compiles_twice_at_most(fresh_dynamo):
    key = random.key(0)
    compiled = torch.compile(random.fold_in, fullgraph=True, backend="aot_eager")
    for step in range(12):
        assert torch.equal(compiled(key, step), random.fold_in(key, step))
    assert fresh_dynamo["stats"]["unique_graphs"] <= 2


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use of it, in forward mode
def test_the_derivative_of_uniform_in_its_bounds():
    key = random.key(2)
    unit = random.uniform(key, (), torch.float64)
    draw = lambda b: random.uniform(key, (), torch.float64, b[0], b[1])
    bounds = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(grad(draw)(bounds), torch.stack([1 - unit, unit]))
    assert torch.equal(hessian(draw)(bounds), torch.zeros(2, 2, dtype=torch.float64))


def test_noise_is_on_the_device_of_its_leaf():
    noise = random.random_like(random.key(9), {"a": torch.zeros(3, device="meta"), "b": torch.zeros(3)})
    assert (noise["a"].device.type, noise["b"].device.type) == ("meta", "cpu")
    with torch.device("meta"):
        assert random.key(9).device.type == "meta"


def test_more_elements_than_a_word_can_count():
    assert random.normal(random.key(0).to("meta"), (2**17, 2**17)).shape == (2**17, 2**17)


# ---- good numbers ----------------------------------------------------------------------------------------------------


def test_moments_of_normal():
    n = 2**20
    for dtype in FLOATS:
        z = random.normal(random.key(123), (n,), dtype).double()
        for power, expected in enumerate([0, 1, 0, 3, 0, 15], start=1):
            scale = np.prod(np.arange(2 * power - 1, 0, -2.0)) ** 0.5  # of z**power
            assert abs((z**power).mean().item() - expected) < 5 * scale / n**0.5 + (dtype == torch.bfloat16) * 1e-3
        assert z.abs().max() > 4.5


def test_uniform_is_even():
    n = 2**20
    u = random.uniform(random.key(77), (n,))
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, bins=256, min=0, max=1)
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert 150 < chi2 < 380  # 255 degrees of freedom: 255 +- 23
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1]) < 5 / n**0.5


def test_every_bit_is_even():
    n = 2**18
    words = random.bits(random.key(5), (n,))
    assert words.min() >= 0
    assert words.max() <= WORD
    ones = torch.stack([(words >> b & 1).double().mean() for b in range(32)])
    assert (ones - 0.5).abs().max() < 5 * 0.5 / n**0.5
    assert abs(random.rademacher(random.key(5), (n,)).mean()) < 5 / n**0.5


def test_streams_of_steps_and_splits_are_independent():
    key = random.key(31)
    for keys in (
        torch.stack([random.fold_in(key, step) for step in range(64)]),
        random.split(key, 64),
        vmap(random.key)(torch.arange(64)),
    ):
        z = vmap(lambda k: random.normal(k, (4096,)))(keys)
        off = torch.corrcoef(z) - torch.eye(64)
        assert off.abs().max() < 5.5 / 4096**0.5


def test_bfloat16_of_jax_is_biased():
    """The reason why `normal` differs from it here; when this fails, jax has mended it."""
    z = np.asarray(jax.random.normal(jax.random.key(3), (200_000,), "bfloat16")).astype(np.float64)
    assert len(np.unique(z)) == 128
    assert z.mean() < -0.009
    ours = random.normal(random.key(3), (200_000,), torch.bfloat16).double()
    assert abs(ours.mean()) < 0.007


# ---- trees -----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    mu: object
    nu: object


def params():
    return {
        "layers": [{"weight": torch.zeros(4, 3), "bias": torch.zeros(3)}, {"weight": torch.zeros(4, 3), "bias": None}],
        "scale": torch.zeros(()),
        "pair": Pair(torch.zeros(3, dtype=torch.bfloat16), (torch.zeros(0), torch.zeros(4, 3, dtype=torch.float64))),
    }


def by_path(t):
    return dict(zip(tree.paths(t), tree.leaves(t), strict=True))


# published with the function: http://www.isthe.com/chongo/tech/comp/fnv
FNV_1A = {"a": 0xAF63DC4C8601EC8C, "b": 0xAF63DF4C8601F1A5, "foobar": 0x85944171F73967E8}


def test_the_key_of_a_leaf_is_the_hash_of_its_path():
    key = random.key(8)
    for path, published in FNV_1A.items():
        leaf_key = random.split_like(key, {path: 0})[path]
        assert torch.equal(leaf_key, random.fold_in(key, published))
        assert (leaf_key.shape, leaf_key.dtype) == ((2,), torch.int64)
    assert set(by_path(random.split_like(key, params()))) == set(tree.paths(params()))
    # a change here would change everyone's noise
    assert random.split_like(random.key(0), {"w": 0})["w"].tolist() == [1627977235, 851717442]
    assert random.split_like(random.key(0), {"größe": 0})["größe"].tolist() == [4261599962, 1101461135]


def test_leaves_have_noise_of_their_own():
    noise = random.random_like(random.key(8), params())
    assert noise["layers"][1]["bias"] is None
    assert isinstance(noise["pair"], Pair)
    like_params = by_path(params())
    for path, x in by_path(noise).items():
        assert (x.shape, x.dtype, x.device) == (like_params[path].shape, like_params[path].dtype, torch.device("cpu"))
    drawn = [str(x.flatten()[:3].double().tolist()) for x in by_path(noise).values() if x.numel() >= 3]
    assert len(drawn) == len(set(drawn)) == 5
    wide = {f"layer{i}": torch.zeros(2) for i in range(2000)}
    assert len({tuple(k.tolist()) for k in random.split_like(random.key(0), wide).values()}) == 2000


@pytest.mark.parametrize("sampler", [random.normal, random.uniform, random.rademacher])
def test_noise_is_that_of_the_sampler_with_the_key_of_the_leaf(sampler, monkeypatch):
    """Leaves of one shape are drawn together, in pieces: neither may show."""
    key = random.key(8)
    keys = by_path(random.split_like(key, params()))
    expected = {path: sampler(keys[path], x.shape, x.dtype) for path, x in by_path(params()).items()}
    for together in (like._TOGETHER, 24, 1):
        monkeypatch.setattr(like, "_TOGETHER", together)
        for path, x in by_path(random.random_like(key, params(), sampler)).items():
            assert torch.equal(x, expected[path])


def test_noise_does_not_depend_on_the_other_leaves():
    key, whole = random.key(8), params()
    noise = by_path(random.random_like(key, whole))
    for gone in range(len(noise)):
        part, rest = tree.split(whole, [i != gone for i in range(len(noise))])
        for half in (part, rest):
            for path, x in by_path(random.random_like(key, half)).items():
                assert torch.equal(x, noise[path])
    more = by_path(random.random_like(key, {"a": torch.zeros(4, 3), **whole, "zz": torch.zeros(4, 3)}))
    assert all(torch.equal(more[path], x) for path, x in noise.items())


def test_noise_for_a_tree_without_leaves_and_for_a_leaf():
    key = random.key(8)
    for empty in ({}, (), None, {"a": None, "b": []}, tree.Hole()):
        assert random.random_like(key, empty) == empty == random.split_like(key, empty)
    assert random.random_like(key, torch.zeros(3)).shape == (3,)


def test_noise_is_compiled_and_mapped(fresh_dynamo):
    key, whole = random.key(8), params()
    compiled = torch.compile(random.random_like, fullgraph=True, backend="aot_eager")
    for k in random.split(key, 2):
        ours, expected = by_path(compiled(k, whole)), by_path(random.random_like(k, whole))
        assert all(torch.equal(ours[path], x) for path, x in expected.items())
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
    renamed = {"other": whole["scale"]}  # the names are constants of the graph: others must compile another
    assert torch.equal(compiled(key, renamed)["other"], random.random_like(key, renamed)["other"])

    keys, stacked = random.split(key, 3), {"w": torch.zeros(3, 4), "b": torch.zeros(3)}
    together = vmap(random.random_like)(keys, stacked)
    for i, k in enumerate(keys):
        alone = random.random_like(k, {"w": torch.zeros(4), "b": torch.zeros(())})
        assert torch.equal(together["w"][i], alone["w"])
        assert torch.equal(together["b"][i], alone["b"])


def test_any_pure_sampler_will_do_but_no_generator():
    x = {"w": torch.zeros(3, dtype=torch.float64)}
    doubled = random.random_like(random.key(0), x, lambda *a: 2 * random.normal(*a))
    assert torch.equal(doubled["w"], 2 * random.random_like(random.key(0), x)["w"])
    with pytest.raises(RuntimeError, match="random"):
        random.random_like(random.key(0), x, lambda key, shape, dtype: torch.randn(shape, dtype=dtype))


# ---- bad input -------------------------------------------------------------------------------------------------------

USES = {
    "split": random.split,
    "fold_in": lambda key: random.fold_in(key, 1),
    "bits": random.bits,
    "uniform": random.uniform,
    "normal": random.normal,
    "rademacher": random.rademacher,
    "split_like": lambda key: random.split_like(key, {"w": torch.zeros(2)}),
    "random_like": lambda key: random.random_like(key, {"w": torch.zeros(2)}),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_no_key(use):
    for wrong in (torch.zeros(2), torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.uint32)):
        with pytest.raises(TypeError, match=f"a key is an int64 tensor.*got {wrong.dtype}"):
            use(wrong)
    for wrong in (0, None, [0, 1], np.zeros(2, np.int64)):
        with pytest.raises(TypeError, match=f"a key is an int64 tensor.*got {type(wrong).__name__}"):
            use(wrong)
    for wrong in (random.split(random.key(0), 3), torch.tensor(0), torch.tensor([0, 1, 2])):
        with pytest.raises(ValueError, match=r"a key has the shape \(2,\), got .*vmap"):
            use(wrong)


def test_wrong_seeds_and_data():
    for use, what in ((random.key, "a seed"), (lambda data: random.fold_in(random.key(0), data), "the data")):
        for wrong in (2**64, -(2**63) - 1):
            with pytest.raises(ValueError, match=f"{what}.*more than 64 bits"):
                use(wrong)
        for wrong in (1.0, "1", None):
            with pytest.raises(TypeError, match="integer"):
                use(wrong)
        for wrong in (torch.tensor(1.0), torch.tensor(True), torch.tensor(1j)):
            with pytest.raises(TypeError, match=f"{what}.*must be an integer, got a tensor of {wrong.dtype}"):
                use(wrong)
        with pytest.raises(ValueError, match=rf"{what}.*must be a scalar, got the shape \(2,\)"):
            use(torch.tensor([1, 2]))


def test_wrong_shapes_dtypes_and_bounds():
    key = random.key(0)
    for sampler in (random.bits, random.uniform, random.normal, random.rademacher):
        with pytest.raises(ValueError, match=r"negative size: \(3, -1\)"):
            sampler(key, (3, -1))
        with pytest.raises(TypeError, match="a shape is a tuple of ints, got 3"):
            sampler(key, 3)
    with pytest.raises(ValueError, match="negative"):
        random.split(key, -1)
    for sampler, dtypes in (
        (random.uniform, (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)),
        (random.normal, (torch.int64, torch.bool, torch.float8_e4m3fn)),
        (random.rademacher, (torch.bool, torch.uint8)),
    ):
        for dtype in dtypes:
            with pytest.raises(TypeError, match=f"{sampler.__name__} has no numbers of {dtype}"):
                sampler(key, (2,), dtype)
    for bound in (torch.zeros(3), torch.zeros(1, 2)):
        with pytest.raises(ValueError, match=r"a bound of shape .* does not broadcast to"):
            random.uniform(key, (2,), maxval=bound)


def test_wrong_leaves_are_named():
    key = random.key(0)
    with pytest.raises(TypeError, match=r"the leaf 'a.count': normal has no numbers of torch.int64"):
        random.random_like(key, {"a": {"count": torch.tensor(0), "w": torch.zeros(2)}})
    with pytest.raises(TypeError, match=r"the leaf 'a.lr' is a float, expected a tensor"):
        random.random_like(key, {"a": {"lr": 0.1, "w": torch.zeros(2)}})
    for use in (random.random_like, random.split_like):
        with pytest.raises(ValueError, match=r"two leaves share a path.*\['a.b.c'\]"):
            use(key, {"a.b": {"c": torch.zeros(1)}, "a": {"b.c": torch.zeros(1)}, "w": torch.zeros(1)})
