"""Rules by blocks of parameters: cases, each with a formula written from its paper."""

from __future__ import annotations

from tests.parity.harness import Case

CASES: list[Case] = []
