"""What goes by another name elsewhere: the errors say where it is, and the page shows the same table."""

import inspect
import re

import pytest
import torch

import optfx
from optfx import core, hints, schedules, select
from optfx.interop import TorchOptimizer
from tests import from_optax, names

PAGE = names.PAGE
HERE = re.compile(r"`(optfx\.[\w.]+)`")


def resolve(path):
    x = optfx
    for name in path.split(".")[1:]:
        x = getattr(x, name)
    return x


@pytest.mark.parametrize("name", hints.NAMES)
def test_a_name_from_elsewhere_says_where_it_is(name):
    with pytest.raises(AttributeError) as error:
        getattr(optfx, name)
    assert str(error.value) == f"optfx has no {name!r}; {hints.NAMES[name]}"


@pytest.mark.parametrize("where", sorted({*hints.NAMES.values(), *map(str, hints.ARGUMENTS.values())}))
def test_what_is_said_to_be_here_is_here(where):
    for path in HERE.findall(where):
        resolve(path)
    for page in re.findall(r"docs/[\w-]+\.md", where):
        assert (PAGE.parents[1] / page).exists()


def test_every_optimizer_and_scheduler_of_torch_has_an_answer():
    names = {n for n in torch.optim.__all__ if n[0].isupper()}
    names |= {
        n
        for n, x in vars(torch.optim.lr_scheduler).items()
        if inspect.isclass(x)
        and x.__module__ == "torch.optim.lr_scheduler"
        and not n.startswith("_")
        and n != "LRScheduler"
    }
    assert names <= set(hints.NAMES)
    assert not set(hints.NAMES) & {*optfx.__all__, *optfx._MOVED}


def test_what_is_missing_is_optaxs():
    theirs = {part for path in from_optax.public() for part in path.split(".")}
    missing = {n for n, where in hints.NAMES.items() if where.startswith("not here")}
    assert missing <= {*theirs, "LBFGS", "SparseAdam"}
    _, section = (PAGE.parent / "index.md").read_text().split("## Not here yet\n")
    listed = set(re.findall(r"`(?:contrib\.)?(\w+)`", section.split("\n## ")[0]))
    assert {"LBFGS", "SparseAdam", "polyak_sgd", "dpsgd"} <= listed <= missing


@pytest.mark.parametrize(("name", "near"), [("adamm", "adam"), ("clip_by_globl_norm", "clip_by_global_norm")])
def test_a_near_miss(name, near):
    with pytest.raises(AttributeError, match=f"module 'optfx' has no attribute '{name}'; did you mean {near}"):
        getattr(optfx, name)


def test_a_name_of_a_module_says_which():
    for name, where in {
        "TorchOptimizer": "interop",
        "step_lr": "schedules",
        "log_uniform": "sweep",
        "norm": "tree",
    }.items():
        with pytest.raises(AttributeError, match=rf"^optfx has no '{name}'; `optfx\.{where}\.{name}`$"):
            getattr(optfx, name)


def test_schedules_know_the_schedulers_of_torch():
    with pytest.raises(AttributeError, match=r"optfx.schedules has no 'StepLR'; `optfx.schedules.step_lr`"):
        schedules.StepLR  # noqa: B018
    with pytest.raises(
        AttributeError, match=r"module 'optfx.schedules' has no attribute 'steplr'; did you mean step_lr"
    ):
        schedules.steplr  # noqa: B018


def test_a_name_that_is_like_no_other():
    with pytest.raises(AttributeError, match=r"^module 'optfx' has no attribute 'zzz'$"):
        optfx.zzz  # noqa: B018


# ---- arguments ---------------------------------------------------------------------------------------

CALLS = {
    "adam lr": (
        lambda: optfx.adam(lr=0.1),
        r"adam\(\) got an unexpected keyword argument 'lr': here it is learning_rate",
    ),
    "adam betas": (lambda: optfx.adam(0.1, betas=(0.9, 0.99)), r"here it is b1 and b2"),
    "rmsprop alpha": (lambda: optfx.rmsprop(0.1, alpha=0.99), r"rmsprop\(\) got .* 'alpha': here it is decay"),
    "transform": (lambda: optfx.scale_by_adam(betas=(0.9, 0.99)), r"scale_by_adam\(\) got .* here it is b1 and b2"),
    "trace": (lambda: optfx.trace(momentum=0.9), r"trace\(\) got .* 'momentum': here it is decay"),
    "rate": (lambda: optfx.scale_by_learning_rate(lr=0.1), r"here it is learning_rate"),
    "schedule": (lambda: schedules.step_lr(lr=0.1, step_size=3), r"step_lr\(\) got .* here it is base_lr$"),
    "optimizer of a schedule": (lambda: schedules.step_lr(optimizer=None, step_size=3), r"a function of the count"),
    "recipe": (lambda: schedules.polynomial_lr(0.1, last_epoch=3), r"polynomial_lr\(\) got .* has no state"),
    "wrapper": (lambda: optfx.apply_if_finite(optfx.sgd(0.1), max_errors=3), r"here it is max_consecutive_errors"),
    "option of speed": (lambda: optfx.adamw(0.1, fused=True), r"`optfx.fuse` makes a step fast"),
    "amsgrad": (lambda: optfx.adamw(0.1, amsgrad=True), r"the optimizer `optfx.amsgrad`"),
    "maximize": (lambda: optfx.sgd(0.1, maximize=True), r"`optfx.scale\(-1\.0\)` first in a chain"),
    "typing error": (lambda: optfx.adamw(0.1, weight_decy=0.1), r"here it is weight_decay"),
    "anything": (lambda: optfx.sgd(0.1, zzz=1), r"it takes learning_rate, momentum, nesterov"),
}


@pytest.mark.parametrize(("call", "words"), CALLS.values(), ids=CALLS)
def test_an_argument_from_elsewhere_says_what_it_is_called_here(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def functions():
    for layer in (optfx.optimizers, optfx.transforms, optfx.combinators, optfx.schedules):
        for name in layer.__all__:
            yield pytest.param(getattr(layer, name), id=name)


@pytest.mark.parametrize("f", list(functions()))
def test_every_public_maker_knows_its_arguments(f):
    parameters = inspect.signature(f).parameters
    with pytest.raises(TypeError, match=rf"^{f.__name__}\(\) got an unexpected keyword argument 'verbose'"):
        f(verbose=True)
    for name, hint in hints.ARGUMENTS.items():
        if name not in parameters and isinstance(hint, tuple) and hint[0] in parameters:
            with pytest.raises(TypeError, match=rf"^{f.__name__}\(\) got .* '{name}': here it is {hint[0]}$"):
                f(**{name: 0.1})


def test_signatures_and_docs_are_those_of_the_function():
    assert list(inspect.signature(optfx.adam).parameters)[:3] == ["learning_rate", "b1", "b2"]
    assert optfx.adam.__doc__.startswith("Adam")
    assert list(inspect.signature(optfx.scale_by_adam).parameters)[:2] == ["b1", "b2"]


# ---- things in the wrong place -----------------------------------------------------------------------

MODULE = torch.nn.Linear(2, 2)
PLACES = {
    "a function": (lambda: optfx.inject_hyperparams(optfx.adamw), r"got <function adamw.*call it first, adamw\(...\)"),
    "a class": (lambda: optfx.chain(optfx.scale_by_adam), r"call it first, scale_by_adam\(...\)"),
    "a list": (lambda: optfx.chain([optfx.scale(0.1)]), r"one by one, chain\(\*steps\)"),
    "a generator": (lambda: optfx.chain(optfx.scale(x) for x in (1.0, 2.0)), r"one by one, chain\(\*steps\)"),
    "torch's": (lambda: optfx.chain(torch.optim.SGD(MODULE.parameters())), r"interop\.from_torch makes a transform"),
    "a module": (lambda: optfx.adam(0.1).init(MODULE), r"is a Linear, expected a tensor: .* optfx.params\(module\)"),
    "parameters": (lambda: optfx.sgd(0.1).init(MODULE.parameters()), r"is a generator.* optfx.params\(module\)"),
    "a module to compile": (lambda: optfx.fuse(MODULE), r"a module is given to `init`"),
    "two functions": (
        lambda: optfx.chain((lambda p: (), lambda u, s, p=None: (u, s))),
        r"core\.from_functions\(init, update\)",
    ),
    "a rate": (lambda: optfx.lookahead(optfx.sgd(0.1), 5, 0.5), r"got 0\.5: a rate belongs .*sgd\(0\.5\)"),
    "a selector of labels": (
        lambda: optfx.partition({"a": optfx.sgd(0.1)}, select.path("a")).init({"a": torch.ones(1)}),
        r"the label at 'a' is True, expected a str: rules are made by select\.label",
    ),
    "no dtype": (
        lambda: optfx.sgd(0.1, 0.9, False, 5e-4),
        r"trace\.accumulator_dtype is 0\.0005, expected a torch\.dtype",
    ),
    "the optimizer first": (
        lambda: TorchOptimizer(optfx.sgd(0.1), MODULE.parameters()),
        r"parameters come first: TorchOptimizer\(params, tx\)",
    ),
    "something": (lambda: core.as_transform(3), r"expected a transform or a pair with init and update, got 3$"),
}


@pytest.mark.parametrize(("call", "words"), PLACES.values(), ids=PLACES)
def test_what_stands_in_the_wrong_place_says_what_to_do(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_a_module_where_its_gradients_belong():
    tx, params = optfx.sgd(0.1), optfx.params(MODULE)
    for grads in (MODULE, MODULE.parameters()):
        with pytest.raises(ValueError, match=r"it is a (Linear|generator), not a tree.*optfx\.grads\(module\)"):
            tx.update(grads, tx.init(params), params)


@pytest.mark.parametrize("name", hints.METHODS)
def test_a_method_of_other_optimizers_says_what_to_write(name):
    with pytest.raises(AttributeError) as error:
        getattr(optfx.fuse(optfx.sgd(0.1)), name)
    assert str(error.value) == f"'fuse' object has no attribute {name!r}; {hints.METHODS[name]}"


# ---- the page ----------------------------------------------------------------------------------------


def test_the_page_is_the_tables():
    assert PAGE.read_text() == names.page(PAGE, names.tables()), "python -m tests.names writes it anew"


def has(path, module):
    try:
        names.resolve(f"{module}.{path}")
    except AttributeError:
        return False
    return True


def test_every_name_of_the_page_exists():
    rows = [line[1:-1].split("|") for line in names.tables().splitlines() if line.count("|") == 4]
    seen = set()
    for optaxs, torchs, here in rows[1:]:
        for cell, modules in ((optaxs, ["optax"]), (torchs, names.TORCH)):
            for name in re.findall(r"`([A-Za-z][\w.]*)(?:\(.*?\))?`", cell):
                assert any(has(name, module) for module in modules), name
                seen.add(name)
        for path in HERE.findall(here):
            resolve(path)
    assert {"adamw", "contrib.muon", "tree.norm", "AdamW", "clip_grad_norm_", "AveragedModel", "StepLR"} <= seen


def test_every_name_that_optax_and_optfx_share_is_on_the_page():
    shown = set(re.findall(r"`([\w.]+)`", names.tables()))
    public = {
        name for name in optfx.__all__ if names.there(name, names.OPTAX) and not inspect.ismodule(getattr(optfx, name))
    }
    assert len(public) > 50
    assert {f"optfx.{name}" for name in public} <= shown
