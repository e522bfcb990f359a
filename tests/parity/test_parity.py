"""Every rule of the catalogue against its paper and against packages that others wrote: at most 1e-9 apart.

`python -m tests.parity.table` writes what is found into the docs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parity import (
    adaptive,
    averaged,
    blocks,
    matrices,
    modifiers,
    momenta,
    preconditioners,
    rules,
    signs,
    stored,
    wrappers,
)
from tests.parity.harness import SHAPES, STEPS, by_formula, by_optfx, difference, start

PAGE = Path(__file__).parents[2] / "docs/parity-catalogue.md"
FILES = [rules, signs, momenta, adaptive, averaged, blocks, matrices, preconditioners, modifiers, wrappers, stored]
CASES = [case for file in FILES for case in file.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_is_the_paper_and_what_others_made_of_it(case):
    ours = by_optfx(case.tx(), case.shapes)
    assert difference(ours, by_formula(case.formula, case.shapes)) < 1e-9
    for package, run in case.packages.items():
        assert difference(ours, run()) < case.near.get(package, 1e-9), package


def test_every_case_moves():
    still = [c.id for c in CASES if difference(by_optfx(c.tx(), c.shapes), [start(c.shapes)] * STEPS) < 1e-3]
    assert not still


def test_two_option_sets_at_least():
    names = [case.name for case in CASES]
    assert not [name for name in set(names) if names.count(name) < 2]


def test_harness_tells_one_formula_from_another():
    zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    assert difference([zeros], [zeros]) == 0
    assert difference([zeros], [{**zeros, "number": np.asarray(2e-9)}]) == 2e-9


def test_every_case_is_on_the_page():
    page = PAGE.read_text()
    assert not [case.id for case in CASES if f"| `{case.name}` | {case.options} |" not in page]
