"""The folders of the compiler are its pipeline: each uses only those before it."""

from pathlib import Path

import pytest

import optfx.compiler
from tests.test_layers import imports

ROOT = Path(optfx.compiler.__file__).parent
FOLDERS = ("record", "kernels", "plan")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_uses_those_before_it(folder):
    later = FOLDERS[FOLDERS.index(folder) + 1 :]
    files = list((ROOT / folder).rglob("*.py"))
    assert len(files) > 3
    used = {name.split(".")[2] for file in files for name, _ in imports(file) if name.startswith("optfx.compiler.")}
    assert folder in used
    assert not used & {*later, "fused", "explain"}
