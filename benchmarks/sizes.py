"""The models whose parameters the benchmarks of one step are about."""

from __future__ import annotations

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def squares(count: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"w{i}": (side, side) for i in range(count)}


def transformer(blocks: int, width: int, vocabulary: int = 1024, context: int = 256) -> dict[str, tuple[int, ...]]:
    """The shapes of a GPT-2: matrices and vectors, 12 leaves a block and 4 around them."""
    shapes: dict[str, tuple[int, ...]] = {"token": (vocabulary, width), "position": (context, width)}
    layers = {"attention.in": 3 * width, "attention.out": width, "mlp.in": 4 * width, "mlp.out": width}
    for i in range(blocks):
        for layer, out in layers.items():
            shapes[f"{i}.{layer}.weight"] = (out, 4 * width if layer == "mlp.out" else width)
            shapes[f"{i}.{layer}.bias"] = (out,)
        shapes |= {f"{i}.norm{k}.{name}": (width,) for k in (1, 2) for name in ("weight", "bias")}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


SIZES = {
    "big4": ("4 leaves of 2048 x 2048", squares(4, 2048)),
    "blocks76": ("76 leaves, 6 transformer blocks of width 512", transformer(6, 512)),
    "blocks388": ("388 leaves, 32 transformer blocks of width 256", transformer(32, 256)),
    "blocks148": ("148 leaves, 12 transformer blocks of width 128", transformer(12, 128)),
    "small1000": ("1000 leaves of 32 x 32", squares(1000, 32)),
}


def parameters(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    torch.manual_seed(0)
    return {name: 0.02 * torch.randn(shape) for name, shape in shapes.items()}


def gradients(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    torch.manual_seed(seed)
    return {name: 0.01 * torch.randn(shape) for name, shape in shapes.items()}


def titled(size: str) -> str:
    title, shapes = SIZES[size]
    elements = sum(torch.Size(shape).numel() for shape in shapes.values())
    return f"**{title}**, {elements / 1e6:.1f} million parameters"
