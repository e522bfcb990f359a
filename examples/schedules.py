"""Draw the schedules: optax's, and those of `torch.optim.lr_scheduler`.

You learn that a schedule is a plain function of the step count, so that a whole curve is one `vmap` over the counts;
that it is data, and prints as the code that makes it; and that it goes wherever a number goes: `optfx.sgd(schedule)`.

    python examples/schedules.py
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.func import vmap
from torch.optim.lr_scheduler import MultiplicativeLR

from optfx import schedules as s


def optax_names(n):
    restarts = [
        {"init_value": 0.0, "peak_value": peak, "warmup_steps": n // 15, "decay_steps": n // 3}
        for peak in (1.0, 0.7, 0.4)
    ]
    return {
        "constant_schedule": s.constant_schedule(1.0),
        "linear_schedule": s.linear_schedule(1.0, 0.0, n),
        "polynomial_schedule": s.polynomial_schedule(1.0, 0.0, power=3, transition_steps=n),
        "exponential_decay": s.exponential_decay(1.0, transition_steps=n // 3, decay_rate=0.3),
        "cosine_decay_schedule": s.cosine_decay_schedule(1.0, n),
        "piecewise_constant_schedule": s.piecewise_constant_schedule(1.0, {n // 3: 0.5, 2 * n // 3: 0.2}),
        "piecewise_interpolate_schedule": s.piecewise_interpolate_schedule("cosine", 1.0, {n // 2: 0.5, n: 0.2}),
        "warmup_constant_schedule": s.warmup_constant_schedule(0.0, 1.0, n // 5),
        "warmup_cosine_decay_schedule": s.warmup_cosine_decay_schedule(0.0, 1.0, n // 5, n),
        "warmup_exponential_decay_schedule": s.warmup_exponential_decay_schedule(0.0, 1.0, n // 5, n // 3, 0.3),
        "linear_onecycle_schedule": s.linear_onecycle_schedule(n, 1.0),
        "cosine_onecycle_schedule": s.cosine_onecycle_schedule(n, 1.0),
        "sgdr_schedule": s.sgdr_schedule(restarts),
        "join_schedules": s.join_schedules([s.constant_schedule(1.0), s.linear_schedule(1.0, 0.0, n // 2)], [n // 2]),
    }


def torch_names(n):
    return {
        "step_lr": s.step_lr(1.0, step_size=n // 4, gamma=0.5),
        "multi_step_lr": s.multi_step_lr(1.0, milestones=[n // 2, 3 * n // 4], gamma=0.3),
        "exponential_lr": s.exponential_lr(1.0, gamma=0.05 ** (1 / n)),
        "constant_lr": s.constant_lr(1.0, factor=0.3, total_iters=n // 4),
        "linear_lr": s.linear_lr(1.0, start_factor=0.1, total_iters=n // 2),
        "polynomial_lr": s.polynomial_lr(1.0, total_iters=n, power=2.0),
        "lambda_lr": s.lambda_lr(1.0, lambda count: 1 / (1 + 5 * count / n)),
        "cosine_annealing_lr": s.cosine_annealing_lr(1.0, T_max=n // 2),
        "cosine_annealing_warm_restarts": s.cosine_annealing_warm_restarts(1.0, T_0=n // 7, T_mult=2),
        "cyclic_lr": s.cyclic_lr(0.1, 1.0, step_size_up=n // 6, mode="triangular2"),
        "cyclic_momentum": s.cyclic_momentum(0.5, 0.9, step_size_up=n // 6, mode="triangular2"),
        "one_cycle_lr": s.one_cycle_lr(1.0, total_steps=n),
        "one_cycle_momentum": s.one_cycle_momentum(n, base_momentum=0.5, max_momentum=0.9),
        "sequential_lr": s.sequential_lr([s.linear_lr(1.0, 0.1, 1.0, n // 5), s.exponential_lr(1.0, 0.98)], [n // 5]),
        "from_torch_scheduler": s.from_torch_scheduler(
            lambda tx: MultiplicativeLR(tx, lambda t: 1 - t / n**1.5), 1.0, n
        ),
    }


def main(steps: int = 210, out: str | Path = "out") -> dict[str, Tensor]:
    from matplotlib.figure import Figure

    families = (("optax", "#0072b2", optax_names(steps)), ("torch", "#d55e00", torch_names(steps)))
    counts = torch.arange(steps)
    curves = {name: vmap(schedule)(counts) for _, _, family in families for name, schedule in family.items()}

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    grid = figure.subplots(6, 5, sharex=True, sharey=True)
    grid[2, 4].set_visible(False)  # 14 of optax fill three rows of five but for one, 15 of torch the others
    for rows, (origin, color, family) in zip((grid[:3], grid[3:]), families, strict=True):
        print(f"{len(family)} schedules by {origin}'s names, such as\n  {list(family.values())[4]}")
        for ax, name in zip(rows.flat, family, strict=False):
            ax.plot(counts, curves[name], color=color, lw=2)
            ax.set_title(name, fontsize=7.5, loc="left")
            ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle("A schedule is a function of the step: those of optax (blue) and of torch (orange)")
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("value", fontsize=9)
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "schedules.png", dpi=150)
    return curves


if __name__ == "__main__":
    main()
