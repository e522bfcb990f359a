"""Every optimizer against `torch.optim`'s, in float64, step by step: all option combinations, real and complex
parameters, at a constant rate and under a schedule."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

import optfx

STEPS = 15
SHAPES = {"scalar": (), "vector": (4,), "matrix": (3, 2), "kernel": (2, 2, 1, 3), "dead": (2,)}


@functools.cache
def problem():
    """Parameters and gradients, real and complex; "dead" never gets a gradient other than zero."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale=1.0):
        return {
            f"{name}_{dtype}": scale * torch.randn(shape, generator=generator, dtype=dtype)
            for name, shape in SHAPES.items()
            for dtype in (torch.float64, torch.complex128)
        }

    start, grads = draw(), [draw(10.0 ** (k % 4 - 2)) for k in range(STEPS)]
    for g in grads:
        for name in g:
            if name.startswith("dead"):
                g[name].zero_()
    grads[5] = {name: torch.zeros_like(g) for name, g in grads[5].items()}
    return start, grads


def fading(step):
    return 0.7 ** (step % 4) / (1 + 0.1 * step)


def everything(name):
    return True


def real(name):
    return name.endswith("float64")


def real_matrix(name):
    return name == "matrix_torch.float64"


ONLY = {"Adafactor": real, "Muon": real_matrix}  # what torch has them for


def kept(tree, name):
    keep = ONLY.get(name.partition(",")[0], everything)
    return {leaf: x for leaf, x in tree.items() if keep(leaf)}


def run_ours(make, rate, schedule, name=""):
    table = torch.tensor([rate * fading(step) for step in range(STEPS)], dtype=torch.float64)
    tx = make((lambda count: table[count]) if schedule else rate)
    params, grads = problem()
    params = kept(params, name)
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(kept(g, name), state, params)
        params = optfx.apply_updates(params, updates)
        yield params


def run_torch(make, rate, schedule, name=""):
    start, grads = problem()
    params = {leaf: p.clone().requires_grad_() for leaf, p in kept(start, name).items()}
    optimizer = make(params.values(), lr=rate, **({} if name.startswith("Muon") else {"foreach": False}))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, fading if schedule else lambda step: 1.0)
    for g in grads:
        for leaf, p in params.items():
            p.grad = g[leaf].clone()
        optimizer.step()
        scheduler.step()
        yield params


def ours(recipe, maximize=False, **options):
    def make(rate):
        tx = recipe(rate, **options)
        return optfx.chain(optfx.scale(-1.0), tx) if maximize else tx

    return make


def theirs(optimizer, **options):
    return lambda params, **rest: optimizer(params, **options, **rest)


def adamw_amsgrad(rate, weight_decay):
    return optfx.chain(
        optfx.scale_by_amsgrad(bias_correction_nu="after_max"),
        optfx.add_decayed_weights(weight_decay),
        optfx.scale_by_learning_rate(rate),
    )


ADAFACTOR = {"min_dim_size_to_factor": 1, "eps": None, "factored": "last", "eps_is_floor": True, "relative_step": True}
MUON = {"eps": 1e-7, "bias_correction": False, "eps_is_floor": True, "ns_dtype": torch.bfloat16}

CASES = {}
both, off = (False, True), (None, 0.1)
for maximize, decay in itertools.product(both, off):
    common = {"maximize": maximize}
    coupled = common | {"weight_decay": decay}
    label = ("" if decay is None else ", decay") + (", maximize" if maximize else "")

    for name, moving in {
        "": {},
        ", momentum": {"momentum": 0.9},
        ", dampening": {"momentum": 0.8, "dampening": 0.3},
        ", nesterov": {"momentum": 0.9, "nesterov": True},
    }.items():
        CASES["SGD" + name + label] = (
            ours(optfx.sgd, **coupled, **moving),
            theirs(torch.optim.SGD, **common, weight_decay=decay or 0.0, **moving),
        )

    betas = {"betas": (0.8, 0.97), "eps": 1e-5}
    CASES["Adam" + label] = (
        ours(optfx.adam, **coupled, b1=0.8, b2=0.97, eps=1e-5),
        theirs(torch.optim.Adam, **common, weight_decay=decay or 0.0, **betas),
    )
    CASES["Adam, amsgrad" + label] = (
        ours(optfx.amsgrad, **coupled, b1=0.8, b2=0.97, eps=1e-5, bias_correction_nu="after_max"),
        theirs(torch.optim.Adam, **common, weight_decay=decay or 0.0, amsgrad=True, **betas),
    )
    CASES["AdamW" + label] = (
        ours(optfx.adamw, **common, weight_decay=decay or 0.0),
        theirs(torch.optim.AdamW, **common, weight_decay=decay or 0.0),
    )
    CASES["AdamW, amsgrad" + label] = (
        ours(adamw_amsgrad, **common, weight_decay=decay or 0.0),
        theirs(torch.optim.AdamW, **common, weight_decay=decay or 0.0, amsgrad=True),
    )

    for psi in (4e-3, 0.5):
        CASES[f"NAdam, {psi}" + label] = (
            ours(optfx.nadam, **coupled, b1=0.8, b2=0.97, eps=1e-5, momentum_decay=psi),
            theirs(torch.optim.NAdam, **common, weight_decay=decay or 0.0, momentum_decay=psi, **betas),
        )
    CASES["RAdam" + label] = (
        ours(optfx.radam, **coupled, b1=0.8, b2=0.97, eps=1e-3, eps_before_correction=True),
        theirs(torch.optim.RAdam, **common, weight_decay=decay or 0.0, betas=(0.8, 0.97), eps=1e-3),
    )
    CASES["Adamax" + label] = (
        ours(optfx.adamax, **coupled, b1=0.8, b2=0.97, eps=1e-5),
        theirs(torch.optim.Adamax, **common, weight_decay=decay or 0.0, **betas),
    )
    CASES["Adadelta" + label] = (
        ours(optfx.adadelta, **common, weight_decay=decay or 0.0, rho=0.7, eps=1e-4),
        theirs(torch.optim.Adadelta, **common, weight_decay=decay or 0.0, rho=0.7, eps=1e-4),
    )
    for t0 in (1e6, 4.0):
        CASES[f"ASGD, {t0}" + label] = (
            ours(optfx.asgd, **coupled, lambd=0.1, alpha=0.5, t0=t0),
            theirs(torch.optim.ASGD, **common, weight_decay=decay or 0.0, lambd=0.1, alpha=0.5, t0=t0),
        )
    if decay is None:
        CASES["Rprop" + label] = (
            ours(optfx.rprop, **common, eta_minus=0.6, eta_plus=1.4, min_step_size=1e-2, max_step_size=0.1),
            theirs(torch.optim.Rprop, **common, etas=(0.6, 1.4), step_sizes=(1e-2, 0.1)),
        )
    for name, mine, other in (
        ("", {}, {}),
        (", all", {"eps": 1e-3, "min_scale": 0.5, "clipping_threshold": 1.5}, {"eps": (1e-3, 0.5), "d": 1.5}),
    ):
        CASES["Adafactor" + name + label] = (
            ours(optfx.adafactor, **common, weight_decay_rate=decay, **(ADAFACTOR | mine)),
            theirs(torch.optim.Adafactor, **common, weight_decay=decay or 0.0, **other),
        )
    if not maximize:
        for name, mine, other in (
            ("", {}, {}),
            (
                ", plain",
                {"nesterov": False, "consistent_rms": 0.2},
                {"nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
            ),
        ):
            CASES["Muon" + name + label] = (
                ours(optfx.muon, weight_decay=decay or 0.0, **(MUON | mine)),
                theirs(torch.optim.Muon, weight_decay=decay or 0.0, **other),
            )

    for centered, momentum in itertools.product(both, (None, 0.6)):
        name = (", centered" if centered else "") + (", momentum" if momentum else "")
        CASES["RMSprop" + name + label] = (
            ours(
                optfx.rmsprop,
                **coupled,
                decay=0.95,
                eps=1e-6,
                eps_in_sqrt=False,
                centered=centered,
                momentum=momentum,
                momentum_after_lr=False,
            ),
            theirs(
                torch.optim.RMSprop,
                **common,
                weight_decay=decay or 0.0,
                alpha=0.95,
                eps=1e-6,
                centered=centered,
                momentum=momentum or 0.0,
            ),
        )

    for lr_decay, start in itertools.product((None, 0.2), (0.0, 0.3)):
        name = ("" if lr_decay is None else ", lr_decay") + (", from 0.3" if start else "")
        CASES["Adagrad" + name + label] = (
            ours(
                optfx.adagrad,
                **coupled,
                initial_accumulator_value=start,
                eps=1e-9,
                eps_in_sqrt=False,
                lr_decay=lr_decay,
            ),
            theirs(
                torch.optim.Adagrad,
                **common,
                weight_decay=decay or 0.0,
                initial_accumulator_value=start,
                eps=1e-9,
                lr_decay=lr_decay or 0.0,
            ),
        )


@pytest.fixture
def wide_scalars():
    """torch keeps some numbers of NAdam and ASGD in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("schedule", [False, True], ids=["constant", "schedule"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_torchs(name, schedule, wide_scalars):
    mine, expected = CASES[name]
    pairs = zip(run_ours(mine, 0.02, schedule, name), run_torch(expected, 0.02, schedule, name), strict=True)
    for a, b in pairs:
        for leaf in a:
            torch.testing.assert_close(
                a[leaf], b[leaf].detach(), rtol=1e-12, atol=1e-13, msg=lambda m, n=leaf: f"{n}: {m}"
            )


# The table of `optfx.optimizers`: what torch does when nothing is said, and the arguments that say it here.
DEFAULTS = {
    "SGD": (torch.optim.SGD, ours(optfx.sgd), 1e-3),
    "Adam": (torch.optim.Adam, ours(optfx.adam), 1e-3),
    "Adam, amsgrad": (
        theirs(torch.optim.Adam, amsgrad=True),
        ours(optfx.amsgrad, bias_correction_nu="after_max"),
        1e-3,
    ),
    "AdamW": (torch.optim.AdamW, ours(optfx.adamw, weight_decay=1e-2), 1e-3),
    "AdamW, amsgrad": (theirs(torch.optim.AdamW, amsgrad=True), ours(adamw_amsgrad, weight_decay=1e-2), 1e-3),
    "RMSprop": (
        torch.optim.RMSprop,
        ours(optfx.rmsprop, decay=0.99, eps_in_sqrt=False, momentum_after_lr=False),
        1e-2,
    ),
    "Adagrad": (
        torch.optim.Adagrad,
        ours(optfx.adagrad, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False),
        1e-2,
    ),
    "NAdam": (torch.optim.NAdam, ours(optfx.nadam, momentum_decay=4e-3), 2e-3),
    "RAdam": (torch.optim.RAdam, ours(optfx.radam, eps_before_correction=True), 1e-3),
    "Adamax": (torch.optim.Adamax, ours(optfx.adamax), 2e-3),
    "Adadelta": (torch.optim.Adadelta, ours(optfx.adadelta), 1.0),
    "Rprop": (torch.optim.Rprop, ours(optfx.rprop), 1e-2),
    "ASGD": (torch.optim.ASGD, ours(optfx.asgd), 1e-2),
    "Adafactor": (torch.optim.Adafactor, ours(optfx.adafactor, **ADAFACTOR), 1e-2),
    "Muon": (torch.optim.Muon, ours(optfx.muon, weight_decay=0.1, **MUON), 1e-3),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_table_gives_torchs_defaults(name, wide_scalars):
    expected, mine, rate = DEFAULTS[name]

    def with_defaults(params, lr, **options):
        return expected(params, **options)

    pairs = zip(run_ours(mine, rate, False, name), run_torch(with_defaults, rate, False, name), strict=True)
    for a, b in pairs:
        for leaf in a:
            torch.testing.assert_close(a[leaf], b[leaf].detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("adamw", "AdamW"),
        ("rmsprop", "RMSprop"),
        ("adagrad", "Adagrad"),
        ("nadam", "NAdam"),
        ("adafactor", "Adafactor"),
        ("muon", "Muon"),
    ],
)
def test_the_defaults_do_differ(name, same):
    """The table has no row too many: with our defaults, torch's numbers do not come out."""
    expected, _, rate = DEFAULTS[same]
    mine = ours(getattr(optfx, name))
    *_, a = run_ours(mine, rate, False, same)
    *_, b = run_torch(lambda params, lr, **options: expected(params, **options), rate, False, same)
    assert not torch.allclose(a["matrix_torch.float64"], b["matrix_torch.float64"], rtol=1e-6)


def test_the_rate_before_or_after_the_momentum_matters_only_under_a_schedule():
    for schedule in (False, True):
        *_, before = run_ours(ours(optfx.rmsprop, momentum=0.9), 0.02, schedule)
        *_, after = run_ours(ours(optfx.rmsprop, momentum=0.9, momentum_after_lr=False), 0.02, schedule)
        equal = torch.allclose(before["matrix_torch.float64"], after["matrix_torch.float64"], rtol=1e-10)
        assert equal is not schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optfx.sgd(0.1, nesterov=True), "nesterov without a momentum"),
        (lambda: optfx.sgd(0.1, dampening=0.1), "dampening without a momentum"),
        (lambda: optfx.rmsprop(0.1, nesterov=True), "nesterov without a momentum"),
        (lambda: optfx.adam(0.1, mask=True), "no weight_decay"),
        (lambda: optfx.sgd(0.1, mask=True), "no weight_decay"),
        (lambda: optfx.adafactor(relative_step=True), "relative_step without a learning_rate"),
        (lambda: optfx.adafactor(0.1, weight_decay_mask=True), "no weight_decay_rate"),
        (lambda: optfx.scale_by_factored_rms(epsilon=None), "needs epsilon_is_floor=True"),
        (lambda: optfx.amsgrad(0.1, bias_correction_nu="before"), "'before', expected True, False or 'after_max'"),
    ],
)
def test_arguments_that_would_do_nothing_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_coupled_decay_may_be_masked():
    tx = optfx.sgd(1.0, weight_decay=0.5, mask=optfx.select.ndim(min=2))
    params = {"w": torch.ones(1, 1), "b": torch.ones(1)}
    updates, _ = tx.update(optfx.tree.zeros_like(params), tx.init(params), params)
    assert updates == {"w": torch.tensor([[-0.5]]), "b": torch.tensor([0.0])}


def test_nothing_absent_is_in_the_chain():
    assert len(optfx.sgd(0.1).steps) == 1
    assert len(optfx.sgd(0.1, 0.0, weight_decay=0.0).steps) == 3  # a zero is a number like any other
    assert len(optfx.adagrad(0.1).steps) == 2
    assert len(optfx.adagrad(0.1, lr_decay=0.0, weight_decay=0.0).steps) == 4


def test_a_count_may_be_an_int_or_a_tensor():
    schedule = optfx.schedules.inverse_time_decay(torch.tensor(0.25))
    assert schedule(4).dtype == torch.float64
    assert schedule(4) == schedule(torch.tensor(4)) == 0.5
