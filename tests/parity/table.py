"""Writes `docs/parity-catalogue.md`: how far each rule is from its paper and from the packages that have it.

python -m tests.parity.table
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from tests.parity.harness import Case, by_formula, by_optfx, difference
from tests.parity.test_parity import CASES, PAGE

HEAD = """# Parity of the catalogue

Each row is a rule in one option set, fifteen steps in float64 on a matrix, a vector, a kernel and a number, with
gradients that depend on the parameters. The figure is the largest difference of a parameter at any step, from the
formula of the paper, written out in numpy, and from packages that others wrote. (`tests/parity/`; this page is made by
`python -m tests.parity.table`.)

"""


def figure(x: float) -> str:
    return "0" if x == 0 else f"{x:.0e}".replace("e-0", "e-")


def row(case: Case) -> str:
    ours = by_optfx(case.tx(), case.shapes)
    others = [f"{package} {figure(difference(ours, run()))}" for package, run in case.packages.items()]
    formula = figure(difference(ours, by_formula(case.formula, case.shapes)))
    return f"| `{case.name}` | {case.options} | {case.paper} | {formula} | {', '.join(others)} |"


def page(cases: list[Case]) -> Iterator[str]:
    yield HEAD
    yield "| name | options | paper | from its formula | from packages |\n|---|---|---|---|---|\n"
    for case in cases:
        yield row(case) + "\n"
    packages = sorted({package for case in cases for package in case.packages})
    versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    yield f"\nPackages: {', '.join(versions)}.\n"


if __name__ == "__main__":
    PAGE.write_text("".join(page(CASES)))
