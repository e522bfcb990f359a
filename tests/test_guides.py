"""The guides are true: a copy of the library with what they add, made by their own instructions, keeps the laws.

A block of a guide that has a title belongs to that file. Python makes a new file, block after block. A diff adds to one
that is there: lines with a + go after the line that the @@ above them begins.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDES = ["write-a-transform.md", "write-a-wrapper.md"]
TITLED = re.compile(r'^```(python|diff) title="(.+)"\n((?:.*\n)*?)```$', re.M)
ADDED = re.compile(r"^@@ (.+)\n((?:\+.*\n)+)", re.M)
OF_A_ROW = [
    "tests/test_laws.py",
    "tests/compiler/test_registry.py",
    "tests/interop/test_checkpoint.py",
    "tests/interop/test_registry.py",
    "tests/sweep/test_registry.py",
]
OF_ALL = ["tests/test_public.py", "tests/test_layers.py"]


def append(path, code):
    path.write_text(f"{path.read_text()}\n\n{code}" if path.exists() else code)


def patch(path, diff):
    assert ADDED.sub("", diff) == "", f"not understood:\n{diff}"
    text = path.read_text()
    for place, lines in ADDED.findall(diff):
        assert text.count(f"\n{place}") == 1, f"{path.name}: no line begins {place!r}, or several do"
        text = text.replace(f"\n{place}", f"\n{place}\n" + re.sub(r"(?m)^\+", "", lines).rstrip())
    path.write_text(text)


def test_what_the_guides_add_keeps_the_laws(tmp_path):
    for folder in ("optfx", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    new, rows, tables = [], [], []  # files, names in the registry, files of tests
    for language, file, body in TITLED.findall("\n".join((ROOT / "docs" / guide).read_text() for guide in GUIDES)):
        if language == "python":
            new += [] if file in new else [file]
            append(tmp_path / file, body)
        else:
            rows += re.findall(r'Row\(\s*\+?\s*"(\w+)"', body)
            tables += [file] if Path(file).name.startswith("test_") else []
            patch(tmp_path / file, body)
    assert rows == ["scale_by_lion", "accumulate", "lookahead"]
    assert not [file for file in new if (ROOT / file).exists()]

    chosen = [*rows, *(Path(file).stem for file in new), "test_public", "every_transform_that_optax_has"]
    options = ["-qrA", "--show-capture=no", "-pno:cacheprovider", "-pno:xdist", "-k", " or ".join(chosen)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *OF_A_ROW, *OF_ALL, *tables, *new],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    passed = [line for line in lines if line.startswith("PASSED")]
    assert done.returncode == 0, "\n".join([line for line in lines if line not in passed] + [done.stderr])
    for file in OF_A_ROW:
        assert all(any(file in line and row in line for line in passed) for row in rows), file
    for file in [*OF_ALL, *tables, *new]:
        assert any(file in line for line in passed), file
