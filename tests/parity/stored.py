"""States in fewer bits: cases, with codes as their papers have them (torchao: tests/combinators/test_stored.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import optfx
from optfx.combinators.codecs import eight_bits, four_bits
from tests.parity.harness import Case, leafwise


def dynamic(bits: int, signed: bool) -> np.ndarray:
    """The numbers that a code of so many bits stands for: in each decade the middles of equal steps, half as many as in
    the decade above it."""
    decades, found = bits - 1, [np.float32([0.0, 1.0])]
    for k in range(decades):
        n = 2 ** (decades - 1 - k) * (1 if signed else 2)
        edges = torch.linspace(0.1, 1.0, n + 1).numpy()  # numpy's differ in the last bit
        middles = np.float32(10.0**-k) * ((edges[:-1] + edges[1:]) / 2)
        found += [middles, -middles] if signed else [middles]
    return np.sort(np.concatenate(found)).astype(float)


def nearest(x: np.ndarray, table: np.ndarray, block: int) -> np.ndarray:
    """Each element as the nearest number of the table, times the largest magnitude of its block."""
    if x.size < block or x.size % block:
        return x
    rows = x.reshape(-1, block)
    scale = np.abs(rows).max(1, keepdims=True)
    y = rows / np.where(scale == 0, 1, scale)
    return (table[np.abs(y[..., None] - table).argmin(-1)] * scale).reshape(x.shape)


def stored_adam(p, grad, lr: float, of_mu: np.ndarray, of_nu: np.ndarray, block: int, b1=0.9, b2=0.999, eps=1e-8):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, 1000):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        m, v = nearest(m, of_mu, block), nearest(v, of_nu, block)
        yield p


def stored_case(options: str, codec: Any, of_mu: np.ndarray, of_nu: np.ndarray, block: int) -> Case:
    formula = leafwise(stored_adam, lr=0.05, of_mu=of_mu, of_nu=of_nu, block=block)
    return Case(
        "stored",
        options,
        lambda: optfx.stored(optfx.adam(0.05), codec),
        formula,
        paper="Dettmers et al., 2021" if block == 4 else "Li et al., 2023",
    )


EIGHT = {"mu": eight_bits(block=4, least=4), "nu": eight_bits(False, block=4, least=4)}
FOUR = {"mu": four_bits(block=2, least=2), "nu": four_bits(False, block=2, least=2)}
CASES = [
    stored_case("adam, eight bits", EIGHT, dynamic(8, True), dynamic(8, False), 4),
    stored_case("adam, four bits", FOUR, dynamic(4, True), np.arange(1, 17) / 16, 2),
]
