"""Parts of a sweep on other processes have the bits of one process, also where workers are killed."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import optfx
from optfx import sweep
from optfx.sweep import engines
from tests.sweep.small import batches, configs, evaluate, init, loss_fn, make_optimizer, same, trainer

ROOT = str(Path(__file__).parents[2])


def fit(n=13, **options):
    """Halving and copying, so that who goes on depends on all."""
    told = {"rungs": [6, 12, 18, 24], "policy": sweep.halve(1.5), "compile": False, "evaluate": evaluate} | options
    return sweep.fit(make_optimizer, configs(n), loss_fn, init, batches, progress=False, **told)


def equal(a, b):
    return same((a.losses, a.params, a.metrics, a.history), (b.losses, b.params, b.metrics, b.history))


class Here(Executor):
    """Runs what it is given at once, in this process, and notes it."""

    def __init__(self):
        self.calls = []

    def submit(self, f, *given):
        future = Future()
        self.calls.append(given)
        future.set_result(f(*given))
        return future


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(engines, "_KEPT", {})
    return Here()


@pytest.mark.parametrize(("parts", "compile"), [(1, False), (5, False), (40, False), (1, True), (5, True), (40, True)])
def test_the_split_changes_no_bit(here, parts, compile):
    assert equal(fit(compile=compile, executor=here, parts=parts), fit(compile=compile))


def test_the_order_changes_no_bit(here):
    class Backwards(Here):
        def submit(self, f, *given):
            future = Future()
            self.calls.append((f, given, future))
            future.result = lambda timeout=None: self.all(future)
            return future

        def all(self, future):
            for f, given, other in reversed(self.calls):
                if not other.done():
                    other.set_result(f(*given))
            return Future.result(future)

    assert equal(fit(executor=Backwards(), parts=4), fit())


def test_members_of_several_ages_and_structures(here):
    there = trainer(compile=False, executor=here, parts=3)
    alone = trainer(compile=False)
    for one in (there, alone):
        old, _ = one.train(one.start(configs(4)), 5)
        young = one.start(configs(5), torch.arange(4, 9))
        one.found = one.train(sweep.join([old, young]), 4)
    assert same(there.found, alone.found)

    def build(config):
        return optfx.sgd(config["rate"]) if config["rule"] == "sgd" else optfx.adam(config["rate"])

    given = configs(6) | {"rule": ["sgd", "adam"] * 3}
    del given["b1"]
    run = lambda **options: sweep.fit(build, given, loss_fn, init, batches, steps=5, compile=False, **options)
    one, two = run(executor=here, parts=2), run()
    assert torch.equal(one.losses, two.losses)
    assert same(one.params, two.params)


def test_functions_are_sent_once_and_again_to_who_is_new(here):
    trained = trainer(compile=False, executor=here, parts=2)
    population = trained.start(configs(6))
    population, _ = trained.train(population, 3)
    population, _ = trained.train(population, 3)
    programs = [given[1] for given in here.calls]
    assert [x is None for x in programs] == [False, False, True, True]
    engines._KEPT.clear()  # as another process
    population, _ = trained.train(population, 3)
    assert [given[1] is None for given in here.calls[4:]] == [True, True, False, False]
    alone = trainer(compile=False)
    assert same(population, alone.train(alone.start(configs(6)), 9)[0])


def test_a_process_keeps_what_it_compiled(here):
    fit(compile=True, executor=here, parts=2)
    (kept,) = engines._KEPT.values()
    fit(n=9, compile=True, executor=here, parts=2)
    assert [*engines._KEPT.values()] == [kept]


def test_warnings_and_errors_come_back(here):
    def changing(params, batch):
        warnings.warn("of the loss", stacklevel=1)
        return loss_fn(params, batch)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alone = trainer(compile=False, executor=here, parts=2)
        alone.training.recipe.loss_fn = changing
        alone.train(alone.start(configs(4)), 2)
    assert any("of the loss" in str(w.message) for w in caught)

    def failing(step):
        if step == 3:
            raise OSError("no such batch")
        return batches(step)

    with pytest.raises(OSError, match="no such batch"):
        sweep.fit(make_optimizer, configs(4), loss_fn, init, failing, steps=6, compile=False, executor=here)


def test_members_are_evaluated_where_they_train(here):
    driver = os.getpid()

    def who(params):
        return evaluate(params) | {"away": torch.tensor(float(os.getpid() != driver))}

    run = lambda pool: fit(n=5, evaluate=who, metric="val_loss", executor=pool, parts=2)
    with process_pool() as pool:
        found = run(pool)
    assert found.metrics["away"].all()
    assert found.history.metrics["away"].nan_to_num(1.0).all()
    there = run(here)
    assert not there.metrics["away"].any()
    tasks = [given[3].__name__ for given in here.calls]
    assert set(tasks) == {"_train"}  # each said what it found with what it trained


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_a_product_of_all_members_is_evaluated_alike_in_any_parts(here, parts):
    """One vector times the weights of all members is one product, whose arithmetic depends on how many there are."""
    row = torch.sin(torch.arange(432.0))
    loss = lambda params, batch: params["w"].square().sum() * batch

    def run(**options):
        evaluate = lambda params: {"loss": row @ params["w"]}
        rule = lambda config: optfx.adam(config["rate"])
        start = sweep.stacked({"w": torch.cos(torch.arange(37 * 432.0)).view(37, 432)})
        return sweep.Trainer(rule, loss, start, [torch.tensor(1.0)], evaluate=evaluate, compile=False, **options)

    one, other = run(), run(executor=here, parts=parts)
    population, _ = one.train(one.start({"rate": torch.linspace(1e-3, 0.1, 37)}), 3)
    assert same(one.evaluate(population), other.evaluate(population))
    for rows in (slice(5, 9), slice(20, 33), slice(36, 37)):
        assert same(one.evaluate(population[rows])["loss"], one.evaluate(population)["loss"][rows])


def test_parts_need_an_executor(here):
    with pytest.raises(ValueError, match="at least 1 part, got 2 and None"):
        trainer(parts=2)
    with pytest.raises(ValueError, match="at least 1 part, got 0"):
        trainer(executor=here, parts=0)


def test_an_executor_that_forks_is_refused_before_training():
    """A fork has none of the threads that torch has started, and waits for them."""
    fork, spawn = map(multiprocessing.get_context, ("fork", "spawn"))
    with pytest.raises(ValueError, match=r"mp_context=multiprocessing.get_context\(\"spawn\"\)"):
        trainer(executor=ProcessPoolExecutor(2, mp_context=fork))
    default = multiprocessing.get_start_method()
    with pytest.raises(ValueError, match="forks") if default == "fork" else contextlib.nullcontext():
        trainer(executor=ProcessPoolExecutor(2))
    for pool in (ProcessPoolExecutor(2, mp_context=spawn), ThreadPoolExecutor(2)):
        trainer(executor=pool)


def test_dtype_and_rule_of_the_user():
    """What a script defines travels by value: classes, records of tensors, and the default dtype."""
    code = """
    import multiprocessing, warnings
    from concurrent.futures import ProcessPoolExecutor
    from typing import NamedTuple
    import torch, optfx
    from optfx import sweep, tree
    from optfx.core import GradientTransformation

    class State(NamedTuple):
        mean: object

    @tree.record
    class follow(GradientTransformation):
        rate: float
        def init(self, params):
            return State(tree.map(torch.zeros_like, params))
        def update(self, grads, state, params=None, **extra):
            mean = tree.map(lambda m, g: 0.9 * m + g, state.mean, grads)
            return tree.map(lambda m: -self.rate * m, mean), State(mean)

    def loss_fn(params, batch):
        return (params["w"] - batch).square().sum() + torch.zeros(()) * SCALE
    SCALE = 2.0

    def fit(**options):
        return sweep.fit(lambda c: follow(c["rate"]), {"rate": [0.1, 0.2, 0.3]}, loss_fn,
                         {"w": torch.zeros(2)}, [torch.ones(2)], steps=9, compile=False, **options)

    if __name__ == "__main__":
        torch.set_default_dtype(torch.float64)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            a, b = fit(), fit(executor=pool, parts=2)
        assert a.losses.dtype == torch.float64
        assert torch.equal(a.losses, b.losses) and torch.equal(a.params["w"], b.params["w"])
    """
    # the worker must not find the script: `-c` is no module
    code = textwrap.dedent(code)
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": ROOT}, timeout=100)
    assert found.returncode == 0


# ---- for real ------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch):
    """What other processes need to know."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the engines
        yield


def mortal(note, die):
    """Batches at the tenth of which the first process that is not this one dies."""
    driver = os.getpid()

    def draw(step):
        if step == 10 and os.getpid() != driver:
            with contextlib.suppress(FileExistsError), open(note, "x") as file:
                die(file)
        return batches(step)

    return draw


def killed(note):
    os.kill(os.getpid(), signal.SIGKILL)


def sweep_with(draw, **options):
    told = {"rungs": [4, 24], "policy": sweep.halve(1.5), "compile": False, "progress": False} | options
    return sweep.fit(make_optimizer, configs(9), loss_fn, init, draw, evaluate=evaluate, **told)


@contextlib.contextmanager
def process_pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@contextlib.contextmanager
def loky_pool():
    loky = pytest.importorskip("loky", reason="loky is not here")
    pool = loky.ProcessPoolExecutor(2)
    yield pool
    pool.shutdown(kill_workers=True)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize("pool", [process_pool, loky_pool])
def test_a_killed_pool_goes_on_in_its_folder(pool, elsewhere, tmp_path):
    draw, folder = mortal(tmp_path / "note", killed), tmp_path / "run"
    with pool() as executor, pytest.raises(BrokenExecutor) as error:
        sweep_with(draw, executor=executor, parts=3, folder=folder)
    assert "goes on if it is called again" in "".join(error.value.__notes__)
    assert 0 < sweep.load(folder).age.max() < 24
    with pool() as executor:
        found = sweep_with(draw, executor=executor, parts=2, folder=folder)
    assert equal(found, sweep_with(batches))


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_dask_replaces_a_killed_worker(elsewhere, tmp_path):
    distributed = pytest.importorskip("distributed", reason='dask is not here: pip install "optfx[dask]"')
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        before = {w["pid"] for w in client.run(lambda: {"pid": os.getpid()}).values()}
        found = sweep_with(mortal(tmp_path / "note", killed), executor=client.get_executor(), parts=3)
        after = {w["pid"] for w in client.run(lambda: {"pid": os.getpid()}).values()}
    assert (tmp_path / "note").exists()
    assert before - after
    assert equal(found, sweep_with(batches))


def test_submitit_runs_a_process_for_each_part(elsewhere, tmp_path):
    submitit = pytest.importorskip("submitit", reason="submitit is not here")
    executor = submitit.AutoExecutor(tmp_path, cluster="local")
    executor.update_parameters(timeout_min=5)
    found = sweep_with(batches, executor=executor, parts=2, rungs=[6])
    assert equal(found, sweep_with(batches, rungs=[6]))


def stands_still(note):
    import ray

    note.write(ray.get_runtime_context().get_node_id())
    note.flush()
    time.sleep(300)


@pytest.mark.skipif(sys.platform != "linux", reason="a cluster of Ray on one machine")
def test_ray_goes_on_when_a_node_is_killed(elsewhere, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason='ray is not here: pip install "optfx[ray]"')
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    note, node = tmp_path / "note", {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 0})
    try:
        nodes = [cluster.add_node(**node), cluster.add_node(**node)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        with ThreadPoolExecutor(1) as thread:
            draw = mortal(note, stands_still)
            run = thread.submit(sweep_with, draw, executor=sweep.RayExecutor(num_cpus=1), parts=2)
            while not run.done() and not (note.exists() and note.read_text()):
                time.sleep(0.1)
            (doomed,) = [n for n in nodes if n.node_id == note.read_text()]
            cluster.remove_node(doomed, allow_graceful=False)
            found = run.result(timeout=120)  # what stood still has been run again
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert equal(found, sweep_with(batches))
