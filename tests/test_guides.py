"""The guides are true: what they write stands in the library, where the laws are tested, letter for letter.

A block of a guide that has a title belongs to that file. The python blocks of a title are the file, one after another.
The lines of a diff with a + stand together somewhere below the line that the @@ above them begins.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = ["write-a-transform.md", "write-a-wrapper.md"]
TITLED = re.compile(r'^```(python|diff) title="(.+)"\n((?:.*\n)*?)```$', re.M)
ADDED = re.compile(r"^@@ (.+)\n((?:\+.*\n)+)", re.M)


def titled(guide, language):
    for kind, file, body in TITLED.findall((ROOT / "docs" / guide).read_text()):
        if kind == language:
            yield file, body


def stands(text, place, lines):
    """Whether lines stand together, below the one line that begins with `place`."""
    _, *after = f"\n{text}".split(f"\n{place}")
    return len(after) == 1 and f"\n{lines}" in after[0]


@pytest.mark.parametrize("guide", GUIDES)
def test_the_files_of_a_guide_are_those_of_the_library(guide):
    files = {}
    for file, body in titled(guide, "python"):
        files.setdefault(file, []).append(body)
    assert files
    for file, bodies in files.items():
        assert (ROOT / file).read_text() == "\n\n".join(bodies), file


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_adds_to_a_file_stands_there(guide):
    diffs = list(titled(guide, "diff"))
    assert "tests/registry.py" in {file for file, _ in diffs}
    for file, diff in diffs:
        assert ADDED.sub("", diff) == "", f"not understood:\n{diff}"
        for place, lines in ADDED.findall(diff):
            lines = re.sub(r"(?m)^\+", "", lines)
            assert stands((ROOT / file).read_text(), place, lines), f"{file}, below {place!r}:\n{lines}"


def test_a_line_in_another_place_does_not_stand():
    text = "a\nROWS = [\nb\nc\nd\n]\n"
    assert stands(text, "ROWS = [", "b\nc\n")
    assert not stands(text, "ROWS = [", "a\n")
    assert not stands(text, "ROWS = [", "b\nd\n")
    assert not stands(text, "COLUMNS = [", "b\n")
    assert not stands(text + text, "ROWS = [", "b\n")
