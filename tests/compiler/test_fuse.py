"""What `fuse` promises beside the numbers: in place, nothing compiled twice, foreign things as they are, errors."""

import copy
import os
import pickle
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import optfx
from optfx import select, tree
from optfx.compiler.kernels import workshop
from optfx.compiler.kernels.cpp import build
from optfx.tree.words import difference
from tests.compiler.harness import distance, eager, events, fused, grads, params, units


def recipe(rate=0.1):
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.scale_by_adam(),
        optfx.masked(optfx.add_decayed_weights(0.1), select.ndim(min=2)),
        optfx.scale_by_learning_rate(rate),
        optfx.params_ema(0.9),
    )


@pytest.fixture
def compilations(monkeypatch, tmp_path):
    """What is compiled from now on, with nothing on disk: programs that become kernels, and sources given to the C++
    compiler."""
    seen = []
    make, start = workshop.Workshop._make, subprocess.Popen

    def count_kernel(self, program, device):
        seen.append(program)
        return make(self, program, device)

    def count_source(command, **options):
        if "run.cpp" in command:
            seen.append((options["cwd"] / "run.cpp").read_text())
        return start(command, **options)

    monkeypatch.setattr(workshop.Workshop, "_make", count_kernel)
    monkeypatch.setattr(subprocess, "Popen", count_source)
    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    return seen


def sources(seen):
    return [c for c in seen if isinstance(c, str)]


# ---- in place ----------------------------------------------------------------------------------


def test_the_tensors_stay_the_same_and_those_given_are_left_alone():
    p = tree.map(torch.clone, params())
    opt = optfx.fuse(recipe())
    q, state = opt.init(p)
    owned = [x.data_ptr() for x in tree.leaves((q, state))]
    assert not set(owned) & {x.data_ptr() for x in tree.leaves(p) if x.numel()}
    before = [id(x) for x in tree.leaves((q, state))]
    for step in range(3):
        q, state = opt.step(grads(step), state, q)
    assert [id(x) for x in tree.leaves((q, state))] == before
    assert [x.data_ptr() for x in tree.leaves((q, state))] == owned
    assert distance(p, params()) == 0


def test_foreign_tensors_are_copied_in():
    tx = recipe()
    opt = optfx.fuse(tx)
    opt.init(params())
    p, state = params(seed=7), tx.init(params(seed=7))
    for step in range(3):  # always with tensors that are not the optimizer's
        q, s = opt.step(grads(step), state, p)
        updates, state = tx.update(grads(step), state, p)
        p = optfx.apply_updates(p, updates)
        assert distance((q, s), (p, state)) < 1e-6


def test_own_tensors_in_other_places():
    opt = optfx.fuse(optfx.sgd(1.0))
    p, state = opt.init({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])})
    q, _ = opt.step(tree.zeros_like(p), state, {"a": p["b"], "b": p["a"]})
    assert (float(q["a"]), float(q["b"])) == (2.0, 1.0)


def test_a_module_goes_on_working():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    mine, theirs = make(), make()
    theirs.load_state_dict(mine.state_dict())
    mine[0].bias.requires_grad_(False)
    theirs[0].bias.requires_grad_(False)
    opt = optfx.fuse(optfx.adamw(0.1))
    p, state = opt.init(mine)
    assert set(p) == {"0.weight", "2.weight", "2.bias"}
    torch_opt = torch.optim.AdamW([x for x in theirs.parameters() if x.requires_grad], lr=0.1, weight_decay=1e-4)
    x = torch.randn(16, 4)
    for _ in range(5):
        for module in (mine, theirs):
            module.zero_grad()
            module(x).square().mean().backward()
        p, state = opt.step(optfx.grads(mine), state, p)
        torch_opt.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert all(p[name].data_ptr() == x.data_ptr() for name, x in mine.named_parameters() if name in p)


def test_a_state_comes_from_anywhere_and_goes_anywhere():
    tx, p = recipe(), params()
    straight, _ = fused(tx, p, steps=4)
    (q, state), _ = fused(tx, p, steps=2)
    flat = tree.map(torch.clone, tree.to_dict(state))
    opt = optfx.fuse(tx)
    q, state = opt.init(q, tree.from_dict(tx.init(p), flat))
    for step in (2, 3):
        q, state = opt.step(grads(step), state, q)
    assert distance((q, state), straight) == 0
    updates, state = tx.update(grads(4), state, q)  # and `tx` itself goes on from it
    assert bool(tree.all_finite(updates))


def test_memory_is_that_of_params_state_and_little_else():
    p = {str(i): torch.randn(100, 100) for i in range(20)}
    opt = optfx.fuse(recipe())
    q, state = opt.init(p)
    mine = {x.untyped_storage().data_ptr() for x in tree.leaves((q, state))}
    others = [x for x in opt._plan.values if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in mine]
    given = {id(x) for x in tree.leaves(q)}
    assert sum(x.numel() for x in others if id(x) not in given) < 100


# ---- nothing is compiled twice --------------------------------------------------------------------


def test_other_values_compile_nothing(compilations):
    rate = torch.tensor(0.1)
    fused(recipe(rate), params())
    assert len(sources(compilations)) == len(set(sources(compilations))) > 0
    compilations.clear()
    (q, state), opt = fused(recipe(rate), params())
    assert not sources(compilations)  # they are on disk
    compilations.clear()
    before = tree.map(torch.clone, q)
    rate.fill_(0.0)  # a tensor hyperparameter is read at each step
    q, state = opt.step(grads(1), state, q)
    assert distance(q, before) == 0
    assert not compilations


def test_injected_hyperparameters_are_set(compilations):
    tx = optfx.inject_hyperparams(optfx.adamw(0.1))
    (q, state), opt = fused(tx, params())
    compilations.clear()
    before = tree.map(torch.clone, q)
    state = tree.set(state, learning_rate=0.0)
    q, state = opt.step(grads(1), state, q)
    assert distance(q, before) == 0
    assert float(tree.get(state, "learning_rate")) == 0
    assert not compilations


def test_leaves_share_kernels_whatever_their_number(compilations):
    fused(optfx.sgd(0.1, momentum=0.9), params())
    compilations.clear()
    p = {str(i): torch.randn(i + 1) for i in range(30)}
    opt = optfx.fuse(optfx.sgd(0.1, momentum=0.9))
    q, state = opt.init(p)
    opt.step(p, state, q)
    assert not [source for source in sources(compilations) if "omp parallel" in source]
    assert len(units(opt)) == 1


def test_a_second_process_finds_everything_on_disk(tmp_path):
    script = """
import subprocess, sys, torch, optfx
if sys.argv[1] == "second":
    def refused(*a, **k): raise AssertionError("a compiler was started")
    subprocess.Popen = refused
    from optfx.compiler.kernels.cpp import build
    build.compiler = lambda: (sys.argv[2], sys.argv[3])
opt = optfx.fuse(optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(optfx.cosine_decay_schedule(0.1, 10))))
p, s = opt.init({"w": torch.ones(3)})
p, s = opt.step({"w": torch.ones(3)}, s, p)
print(p["w"].tolist())
"""
    env = os.environ | {"OPTFX_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", script, which, *build.compiler()],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for which in ("first", "second")
    ]
    assert said[0] == said[1] != ""
    assert not [f for f in tmp_path.iterdir() if f.suffix != ".so"]


@pytest.mark.parametrize("cxx", ["no-such-compiler", "/bin/false"])
def test_a_machine_without_a_compiler(cxx, monkeypatch):
    monkeypatch.setenv("CXX", cxx)
    build.compiler.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="is no C\\+\\+ compiler here: install"):
            optfx.fuse(optfx.adam(0.1)).init(params())
        w = torch.ones(2, 3)
        with pytest.warns(UserWarning, match="for want of a compiler, is not written in C|is not fused"):
            found = optfx.sweep.fit(
                lambda config: optfx.sgd(config["rate"]),
                {"rate": torch.tensor([0.1, 0.2])},
                lambda p, batch: (batch @ p["w"]).sum(),
                {"w": w.T},
                [w],
                steps=1,
                progress=False,
            )
        torch.testing.assert_close(found.params["w"][1], w.T - 0.4)
    finally:
        monkeypatch.undo()
        build.compiler.cache_clear()


# ---- what cannot be fused ---------------------------------------------------------------------------


def test_foreign_transforms_are_stages_of_their_own():
    def update(updates, state, params=None):
        new = tree.map(lambda u, m: u.flip(0) if u.ndim else u + m, updates, state["m"])
        return new, {"n": state["n"] + 1, "m": tree.map(lambda m, u: m + u.abs(), state["m"], updates)}

    foreign = NamedTuple("pair", [("init", Any), ("update", Any)])(
        lambda p: {"n": torch.zeros((), dtype=torch.int64), "m": tree.zeros_like(p)}, update
    )
    tx = optfx.chain(optfx.clip_by_global_norm(1.0), foreign, optfx.scale_by_adam(), optfx.scale(-0.1))
    got, opt = fused(tx, params())
    assert distance(got, eager(tx, params())) < 1e-6
    assert {e.what for e in events(opt)} == {"flip"}
    assert "flip, as it is, for it sees whole leaves (test_fuse.py:239): 6 times" in opt.explain()


@pytest.mark.parametrize("make", [optfx.muon, optfx.adamuon, optfx.normuon, optfx.soap, optfx.shampoo])
def test_one_kernel_around_each_product_of_matrices(make):
    """Also where nothing is made of both: of a momentum and a parameter, say."""
    tx, p = make(0.1), {k: params()["w"][:6, :n] for k, n in {"u": 3, "v": 5, "w": 5}.items()}
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    for step in range(12):
        q, state = opt.step(tree.scale(float(step + 1), p), state, q)
    expected = p, tx.init(p)
    for step in range(12):
        updates, s = tx.update(tree.scale(float(step + 1), p), expected[1], expected[0])
        expected = optfx.apply_updates(expected[0], updates), s
    assert distance((q, state), expected) < 1e-4
    for stage in opt.explain().split("stage ")[1:]:
        loops = [line.split("[C++]: ")[1] for line in stage.splitlines() if "[C++]" in line]
        others = [x for x in loops if "left" in x or "right" in x or ".nu." in x]  # of other shapes
        assert [x for x in loops if x not in others] in ([], ["u, v, w"]), opt.explain()


def test_what_reads_the_value_of_a_tensor_is_a_stage_of_its_own():
    @tree.record
    class every_other(optfx.core.GradientTransformation):
        inner: optfx.core.GradientTransformation

        def begin(self, params):
            return optfx.core.Count(optfx.core.counter(params)), self.inner.init(params)

        def step(self, updates, state, params):
            count, inner = state
            if int(count.count) % 2:
                return tree.zeros_like(updates), (optfx.core.Count(count.count + 1), inner)
            updates, inner = self.inner.update(updates, inner, params)
            return updates, (optfx.core.Count(count.count + 1), inner)

    tx = optfx.chain(optfx.scale(2.0), every_other(optfx.scale_by_adam()), optfx.sgd(0.1))
    got, opt = fused(tx, params())
    assert distance(got, eager(tx, params())) < 1e-6
    assert "it reads the value of a tensor" in opt.explain()


def test_reductions_before_what_cannot_be_fused():

    def update(updates, state, params=None):
        size = tree.norm(updates)
        return tree.map(lambda u: u.flip(0) / (1 + size), updates), {
            "n": state["n"] + 1,
            "size": size.to(state["size"]),
        }

    init = lambda p: {"n": torch.zeros((), dtype=torch.int64), "size": torch.zeros((), dtype=torch.float64)}
    tx = optfx.chain(optfx.core.from_functions(init, update), optfx.clip_by_global_norm(0.5), optfx.sgd(1.0))
    p, g = ({"w": torch.randn(5), "v": torch.randn(3)} for _ in range(2))
    opt = optfx.fuse(tx)
    q, state = opt.step(g, *reversed(opt.init(p)))
    updates, s = tx.update(g, tx.init(p), p)
    assert distance((q, state), (optfx.apply_updates(p, updates), s)) < 1e-6
    assert [e.what for e in events(opt)] == ["flip", "flip"]


@tree.record
class backtracking(optfx.core.GradientTransformation):
    """The largest of a few steps that lowers the loss."""

    needs = ("value_fn",)

    def begin(self, params):
        return ()

    def step(self, updates, state, params, *, value_fn):
        for size in (1.0, 0.3, 0.1, 0.03, 0.0):
            step = tree.scale(size, updates)
            if value_fn(optfx.apply_updates(params, step)) <= value_fn(params):
                return step, state
        raise AssertionError


def test_a_linesearch_with_a_new_function_at_each_step():
    p = {"w": torch.tensor([3.0, -2.0])}
    tx = optfx.chain(optfx.scale(-1.0), backtracking())
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    s = tx.init(p)
    for step in range(4):
        target = torch.full((2,), float(step))
        loss = lambda x, target=target: float(((x["w"] - target) ** 2).sum())
        g = {"w": 2 * (q["w"] - target)}
        q, state = opt.step(g, state, q, value_fn=loss)
        updates, s = tx.update({"w": 2 * (p["w"] - target)}, s, p, value_fn=loss)
        p = optfx.apply_updates(p, updates)
        torch.testing.assert_close(q, p)


def trust(u, p, eps):
    pn, un = torch.linalg.vector_norm(p), torch.linalg.vector_norm(u)
    return u * torch.where((pn > 0) & (un > 0), pn / (un + eps), 1.0)


@tree.record
class trust_ratio(optfx.core.Stateless):
    eps: optfx.core.Hyper = 0.0

    def apply(self, updates, params, eps):
        return tree.leafwise(trust, updates, params, eps=eps)


def test_lamb():
    tx = optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.scale_by_adam(),
        optfx.add_decayed_weights(0.1),
        trust_ratio(optfx.constant_schedule(1e-6)),
        optfx.sgd(optfx.cosine_decay_schedule(0.1, 100)),
    )
    got, opt = fused(tx, params())
    assert distance(got, eager(tx, params())) < 1e-6
    assert len(opt._plan.stages) == 3
    assert "as it is" not in opt.explain()


def blend(u, p, q, beta):
    return u + beta * (q - p), p


@tree.record
class pull_to_previous(optfx.core.GradientTransformation):
    """It keeps the params of the step before: an old leaf becomes part of the new state."""

    beta: Any

    def begin(self, params):
        return {"prev": tree.map(torch.clone, params), "count": optfx.core.counter(params)}

    def step(self, updates, state, params):
        updates, _ = tree.elementwise(blend, updates, params, state["prev"], outs=2, beta=self.beta)
        return updates, {"prev": params, "count": state["count"] + 1}


def test_a_state_that_keeps_old_params():
    tx = optfx.chain(optfx.scale_by_adam(), optfx.sgd(0.1), pull_to_previous(0.3))
    assert distance(fused(tx, params())[0], eager(tx, params())) < 1e-6


def test_states_that_change_places():
    def update(updates, state, params=None):
        a, b, c = state
        return updates, (b, c, tree.elementwise(torch.add, a, updates))

    tx = optfx.core.from_functions(lambda p: tuple(tree.scale(k, p) for k in (1.0, 2.0, 3.0)), update)
    assert distance(fused(tx, params())[0], eager(tx, params())) == 0
    scalars = optfx.core.from_functions(
        lambda p: tuple(torch.tensor(k) for k in (1.0, 2.0)), lambda u, s, params=None: (u, (s[1], s[0] + s[1]))
    )
    assert distance(fused(scalars, params())[0], eager(scalars, params())) == 0


def test_numbers_for_each_leaf():
    """A tree of () tensors beside the leaves, made by a leafwise function and used by another."""

    def update(updates, state, params=None):
        sizes = tree.leafwise(keep_size, state, updates, same_shapes=False)
        return tree.leafwise(shrink, updates, sizes, same_shapes=False), sizes

    tx = optfx.chain(
        optfx.core.from_functions(lambda p: tree.map(lambda x: x.new_zeros(()), p), update), optfx.scale(-0.1)
    )
    got, opt = fused(tx, params())
    assert distance(got, eager(tx, params())) < 1e-6
    assert not events(opt)


def keep_size(n, u):
    return 0.9 * n + u.abs().sum()


def shrink(u, n):
    return u / (1 + n)


def test_leaves_of_no_dimension_whose_state_is_scalar_work():
    def update(updates, state, params=None):
        old = tree.elementwise(torch.mul, updates, state)  # reads the state before it is written
        return old, tree.elementwise(twice, state)

    tx = optfx.core.from_functions(tree.ones_like, update)
    assert distance(fused(tx, params())[0], eager(tx, params())) < 1e-6


def twice(x):
    return 2 * x + 1


# ---- extra arguments, dtypes ---------------------------------------------------------------------------


def test_extra_arguments_are_new_at_each_step(compilations):
    tx = optfx.chain(optfx.sgd(0.1), optfx.reduce_on_plateau(factor=0.5, patience=0))
    opt = optfx.fuse(tx)
    p, state = opt.init(params())
    q, s = params(), tx.init(params())
    for step, loss in enumerate((3.0, torch.tensor(2.0), 2, torch.tensor(5.0, dtype=torch.float64), 1)):
        p, state = opt.step(grads(step), state, p, value=loss, grad=grads(step))
        updates, s = tx.update(grads(step), s, q, value=loss, grad=grads(step))
        q = optfx.apply_updates(q, updates)
        assert distance((p, state), (q, s)) < 1e-6
        compilations.clear() if not step else None
    assert not compilations
    with pytest.raises(ValueError, match="reduce_on_plateau needs the extra argument value"):
        opt.step(grads(0), state, p)
    with pytest.raises(TypeError, match="unknown argument vlaue"):
        opt.step(grads(0), state, p, vlaue=1.0)
    p, state = opt.step(grads(5), state, p, value=0.0)


def test_extra_trees():
    def update(updates, state, params=None, *, noise):
        return tree.add_scale(updates, 0.1, noise), state

    tx = optfx.core.from_functions(lambda p: (), update)
    opt = optfx.fuse(tx)
    p, state = opt.init(params(), noise=params(seed=1))
    for step in range(2):
        noise = params(seed=step + 2)
        before = tree.map(torch.clone, p)
        p, state = opt.step(grads(step), state, p, noise=noise)
        want = optfx.apply_updates(before, tree.add_scale(grads(step), 0.1, noise))
        assert distance(p, want) < 1e-6


@pytest.mark.parametrize(("dtype", "of_grads"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_gradients_of_another_dtype(dtype, of_grads, compilations):
    tx, p = recipe(), params(dtype)
    got, opt = fused(tx, p, dtype=of_grads)
    assert distance(got, eager(tx, p, dtype=of_grads)) < 4 * torch.finfo(torch.bfloat16).eps
    compilations.clear()
    opt.step(grads(9, of_grads), got[1], got[0])
    opt.step(grads(9, dtype), got[1], got[0])  # as at first
    assert not compilations


def test_mixed_dtypes_and_gradients_that_are_not_contiguous():
    p = {"half": torch.randn(4, 3).bfloat16(), "single": torch.randn(4, 3), "double": torch.randn(4, 3).double()}
    tx = recipe()
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    g = {k: torch.randn(3, 4, dtype=torch.float64).to(x.dtype).T for k, x in p.items()}
    q, state = opt.step(g, state, q)
    updates, s = tx.update(g, tx.init(p), p)
    assert distance((q, state), (optfx.apply_updates(p, updates), s)) < 4 * torch.finfo(torch.bfloat16).eps
    strange = {"w": torch.randn(6, 5).T[::2]}
    q, state = opt.init(strange)
    assert q["w"].is_contiguous()
    q, _ = opt.step(strange, state, q)
    updates, _ = tx.update(strange, tx.init(strange), strange)
    assert distance(q, optfx.apply_updates(strange, updates)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_parameters(dtype):
    p, g = ({"z": torch.randn(50, dtype=dtype), "r": torch.randn(3)} for _ in range(2))
    for tx in (recipe(), optfx.apply_if_finite(optfx.adam(0.1), 2), optfx.rmsprop(0.1, momentum=0.9)):
        opt = optfx.fuse(tx)
        (q, state), s, last = opt.init(p), tx.init(p), p
        for grad in (g, {"z": g["z"].conj(), "r": g["r"]}):
            q, state = opt.step(grad, state, q)
            updates, s = tx.update(grad, s, last)
            last = optfx.apply_updates(last, updates)
        assert distance((q, state), (last, s)) < 1e-6


@pytest.mark.parametrize("p", [{}, {"a": None}, {"a": tree.Hole(), "b": []}, {"e": torch.zeros(0)}], ids=str)
def test_trees_without_numbers(p):
    tx = recipe()
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    q, state = opt.step(p, state, q)
    assert difference(q, p) is None
    assert int(tree.get(state, "1.count")) == 1


# ---- errors --------------------------------------------------------------------------------------


def first_of(x, scale):
    return scale * x / torch.linalg.vector_norm(x)


def running(x):
    return x.cumsum(0)


@pytest.mark.parametrize("f", [first_of, running])
def test_an_elementwise_function_that_looks_across_elements(f):
    scalars = {"scale": 1.0} if f is first_of else {}
    found = optfx.stateless(lambda updates, params: tree.elementwise(f, updates, **scalars))
    """The promise of `elementwise` is broken, and the numbers are still those of eager code."""
    opt, tx = optfx.fuse(optfx.chain(found, optfx.sgd(0.1))), optfx.chain(found, optfx.sgd(0.1))
    p, state = opt.init(params())
    assert ("as it is" in opt.explain()) == (f is running)
    p, state = opt.step(grads(0), state, p)
    updates, expected = tx.update(grads(0), tx.init(params()), params())
    assert distance((p, state), (optfx.apply_updates(params(), updates), expected)) < 1e-6


def rooted(x):
    return x.sqrt()


def test_a_second_try_leaves_no_compiler_at_work(compilations, tmp_path):
    """One function becomes a kernel, and the next turns out to look beyond one element."""

    def update(updates, params):
        size = tree.norm(tree.elementwise(rooted, updates))
        return tree.elementwise(running, tree.scale(size, updates))

    optfx.fuse(optfx.stateless(update)).init({"w": torch.ones(3)})
    assert sources(compilations)
    assert {file.suffix for file in tmp_path.iterdir()} == {".so"}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("members", [None, 2])
def test_a_copy_has_no_parameters_before_its_own_init(copied, members):
    tx = optfx.adam(0.1 if members is None else torch.tensor([0.1, 0.2]))
    opt, w = optfx.fuse(tx, members), {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    p, state = opt.init(w)
    other = copied(opt)
    with pytest.raises(RuntimeError, match="call init before step"):
        other.step(w, state, p)
    q, other_state = other.init(w)
    opt.step(w, state, p)
    assert torch.equal(q["w"], w["w"])
    other.step(w, other_state, q)
    assert torch.equal(q["w"], p["w"])


def test_errors():
    opt = optfx.fuse(recipe())
    with pytest.raises(RuntimeError, match="call init before step"):
        opt.step({}, (), {})
    p, state = opt.init(params())
    before = tree.map(torch.clone, (p, state))
    g = grads(0)
    bad = [
        ({k: v for k, v in g.items() if k != "w"}, "lacks the leaf 'w'"),
        (g | {"w": None}, "lacks the leaf 'w'"),
        (g | {"w": torch.zeros(20, 30)}, r"has the shape \(20, 30\) at 'w', expected \(30, 20\)"),
        (g | {"w": torch.zeros(30, 20, device="meta")}, "is on meta at 'w'"),
        (g | {"extra": torch.zeros(1)}, "unexpected leaf 'extra'"),
        (g | {"w": g["w"].to_sparse()}, r"is sparse at 'w' \(torch.sparse_coo\).*make it dense, by `to_dense\(\)`"),
    ]
    for wrong, words in bad:
        with pytest.raises(ValueError, match=words):
            opt.step(wrong, state, p)
    with pytest.raises(ValueError, match=r"params: the tree .*expected \(30, 20\)"):
        opt.step(g, state, p | {"w": torch.zeros(3)})
    with pytest.raises(ValueError, match="the state: the tree"):
        opt.step(g, state[:-1], p)
    assert distance((p, state), before) == 0
    with pytest.raises(ValueError, match="the state: the tree"):
        opt.init(params(), optfx.sgd(0.1).init(params()))
    with pytest.raises(TypeError, match="'w' is inside a function transform"):
        torch.func.vmap(lambda w: opt.init({"w": w})[0])(torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"the parameter at 'n' is torch\.int64"):
        opt.init({"n": torch.zeros(2, dtype=torch.int64)})
    counted = optfx.core.from_functions(lambda p: {"n": 0}, lambda u, s, params=None: (u, {"n": s["n"] + 1}))
    with pytest.raises(TypeError, match="the state at 'n' is a int, expected a tensor"):
        optfx.fuse(counted).init(params())
    grown = optfx.core.from_functions(lambda p: (), lambda u, s, params=None: (u, (*s, torch.zeros(()))))
    with pytest.raises(ValueError, match="the state after the update"):
        optfx.fuse(grown).init(params())


def test_meeting_complex_and_real_leaves_is_an_error_with_a_path():
    tx = optfx.trace(0.9, accumulator_dtype=torch.float32)
    with pytest.raises(TypeError, match="accumulate at 'z': complex and real leaves meet"):
        optfx.fuse(tx).init({"z": torch.zeros(2, dtype=torch.complex64)})
