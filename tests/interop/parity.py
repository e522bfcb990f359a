"""Every optimizer of `torch.optim` in every option set of torch's own tests, converted in the middle of a run.

    python -m tests.interop.parity        # rewrites the table of docs/parity.md

Both go on for 30 steps in float64 from where they are, in two groups with different rates; the figure is the largest
difference of a parameter, relative to the largest of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.testing._internal.common_optimizers import optim_db

import optfx
from optfx import interop
from optfx.interop.torch_specs import SPECS
from tests.interop.torch_table import PAGE, put

STEPS, BEFORE = 30, 7
CHOOSES_CODE = ("capturable", "foreach", "fused", "differentiable")


def cases() -> list[tuple[str, dict[str, Any], type]]:
    """(id, options, optimizer) of all that can be converted."""
    found = {}
    for info in optim_db:
        if info.optim_cls not in SPECS:
            continue
        for given in info.optim_inputs_func("cpu", torch.float64):
            options = {k: v for k, v in given.kwargs.items() if k not in CHOOSES_CODE}
            found[f"{info.name}: {given.desc}"] = (options, info.optim_cls)
    return [(name, *rest) for name, rest in found.items()]


def start(cls: type, options: dict[str, Any]) -> tuple[torch.optim.Optimizer, dict[str, torch.Tensor]]:
    """The optimizer after some steps, and its parameters by name."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4), "late": (2, 3)}
    if cls is torch.optim.Muon:  # for matrices only
        shapes["a.bias"] = (4, 1)
    params = {n: torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for n, s in shapes.items()}
    pairs = list(params.items())
    rate = options.get("lr", 1e-2)
    groups = [{"params": pairs[:2]}, {"params": pairs[2:], "lr": rate * 0.3}]
    optimizer = cls(groups, **options)
    for k in range(BEFORE):
        give(params, k)
        if k < 3:
            params["late"].grad = None  # takes fewer steps than the others
        optimizer.step()
    return optimizer, params


def gradient(name: str, p: torch.Tensor, k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * k + sum(map(ord, name)))
    return torch.sin(p.detach()) + torch.randn(p.shape, generator=generator, dtype=p.dtype) * 10.0 ** (k % 3 - 1)


def give(params: dict[str, torch.Tensor], k: int) -> None:
    for name, p in params.items():
        p.grad = gradient(name, p, k)


def difference(cls: type, options: dict[str, Any]) -> tuple[float, float]:
    """How far apart both are after more steps: there, and converted back."""
    optimizer, params = start(cls, options)
    tx, ours, state = interop.from_torch(optimizer)
    back_params = {name: p.clone().requires_grad_() for name, p in ours.items()}
    back = interop.to_torch(tx, back_params, state)
    for k in range(BEFORE, BEFORE + STEPS):
        give(params, k)
        give(back_params, k)
        updates, state = tx.update({name: gradient(name, p, k) for name, p in ours.items()}, state, ours)
        ours = optfx.apply_updates(ours, updates)
        optimizer.step()
        back.step()
    largest = max(float(p.detach().abs().max()) for p in params.values())
    return tuple(
        max(float((p.detach() - other[name].detach()).abs().max()) for name, p in params.items()) / largest
        for other in (ours, back_params)
    )  # type: ignore[return-value]


def main() -> None:
    torch.set_default_dtype(torch.float64)  # or NAdam and ASGD round numbers to float32
    rows = ["| `torch.optim` | options | `from_torch` | and back, `to_torch` |", "|---|---|---:|---:|"]
    for name, options, cls in cases():
        there, back = difference(cls, options)
        kind, _, what = name.partition(": ")
        rows.append(f"| `{kind}` | {what} | {there:.0e} | {back:.0e} |")
        print(rows[-1], flush=True)
    put(PAGE.with_name("parity.md"), "parity", rows)


if __name__ == "__main__":
    main()
