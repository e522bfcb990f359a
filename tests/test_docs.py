"""The code in README.md, docs/*.md and the compiler's page runs, and prints what the page says it prints.

The ```python blocks of a page run in order, as one module. A ```text block right after one shows what it prints, with
`<!-- numbers vary -->` between them up to the numbers in it. A block that cannot run has a comment above it
that says why: `<!-- not run: needs a GPU -->`. A block may have a title, the file that it belongs to.
Compiled steps run on the backend `aot_eager`, which traces as Inductor does and generates no code.
"""

import contextlib
import doctest
import io
import re
import sys
import textwrap
import types
from pathlib import Path
from typing import NamedTuple

import cloudpickle
import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "optfx/compiler/README.md", *sorted((ROOT / "docs").glob("*.md"))]
HOME = ROOT / "docs/index.md"
FENCE = re.compile(r"^```(?P<info>.*)\n(?P<body>(?:.*\n)*?)```$", re.M)
PYTHON = re.compile(r'python(?: title="[^"]+")?')
VARIES = "<!-- numbers vary -->"
OUTPUT = doctest.OutputChecker()


class Block(NamedTuple):
    line: int  # of its first line of code
    code: str
    output: str | None  # what the page says that it prints
    varies: bool  # whether that is an example, with other numbers each time
    reason: str | None  # why it is not run


def without_numbers(text):
    return re.sub(r"\d[\d.,e+-]*", "#", text)


def blocks(text):
    fences = list(FENCE.finditer(text))
    for i, fence in enumerate(fences):
        if not PYTHON.fullmatch(fence["info"]):
            continue
        above = re.search(r"<!-- not run: (.+) -->\n\s*$", text[: fence.start()])
        after = fences[i + 1] if i + 1 < len(fences) else None
        between = text[fence.end() : after.start()].strip() if after is not None else ""
        shows = after is not None and after["info"] == "text" and between in ("", VARIES)
        line = text.count("\n", 0, fence.start("body")) + 1
        yield Block(line, fence["body"], after["body"] if shows else None, between == VARIES, above and above[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_code_runs(page, monkeypatch, tmp_path, fresh_dynamo):
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)  # as `__main__` would be: no other process can import a page
    monkeypatch.chdir(tmp_path)
    with torch.compiler.set_stance(force_backend="aot_eager"):
        for block in blocks(page.read_text()):
            if block.reason is None:
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    code = compile("\n" * (block.line - 1) + block.code, page, "exec")
                    exec(code, module.__dict__)
                if block.output is not None:
                    expected, got = block.output, printed.getvalue()
                    if block.varies:
                        expected, got = without_numbers(expected), without_numbers(got)
                    shown = OUTPUT.check_output(expected, got, doctest.NORMALIZE_WHITESPACE)
                    assert shown, f"{page.name}, line {block.line} prints\n{got}"


def test_every_fence_is_seen():
    """No block escapes for its fence's sake, and most pages have code that runs."""
    running = 0
    for page in PAGES:
        text = page.read_text()
        assert len(re.findall(r"(?m)^ *(```|~~~)", text)) == 2 * len(list(FENCE.finditer(text))), page
        infos = {fence["info"] for fence in FENCE.finditer(text)}
        assert all(PYTHON.fullmatch(info) for info in infos if info.startswith("py")), (page, infos)
        running += any(block.reason is None for block in blocks(text))
    assert running >= 8


def test_the_gallery_has_lines_of_every_example():
    """A block that names an example has lines of it as they stand there, and `...` where some are left out."""
    shown = set()
    for example, body in re.findall(r'```python title="examples/(\w+)\.py"\n(.+?)\n```', HOME.read_text(), re.S):
        lines = (ROOT / "examples" / f"{example}.py").read_text().splitlines()
        for part in body.split("\n...\n"):
            n = part.count("\n") + 1
            runs = (textwrap.dedent("\n".join(lines[i : i + n])) for i in range(len(lines)))
            assert part in runs, f"not in {example}.py:\n{part}"
        shown.add(example)
    assert shown == {script.stem for script in (ROOT / "examples").glob("*.py")}


def test_the_benchmarks_open_with_what_they_found():
    text = (ROOT / "docs/benchmarks.md").read_text()
    opening = " ".join(text.split("\n\n")[1].split())

    def between(part, row, columns, places):
        """The smallest and the largest figure in some columns of the rows that begin so."""
        section = text.split(f"<!-- {part}:begin -->")[1].split(f"<!-- {part}:end -->")[0].split("first losses")[0]
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith(row)]
        found = [float(cells[i].split()[0]) for cells in rows for i in columns]
        return f"{min(found):.{places}f} to {max(found):.{places}f} "

    large, small = (f"| {n} x 64-{h}-10 | 600 |" for n, h in ((256, 64), (64, 32)))
    for found in (
        f"`fuse` takes {between('step', '| **optfx, `fuse`**', [2], 2)}times",
        f"{between('recipe', '| **optfx, `fuse`**', [2], 2)}times as long as the same of torch's",
        f"after {between('sweep', large, [3], 1)}seconds",
        f"takes {between('sweep', large, [5, 6], 1)}and a loop",
        f"with {between('sweep', small, [5, 6], 1)}seconds against {between('sweep', small, [3], 1)}".strip(),
        f"optfx takes {between('step', '| optfx, eager |', [2], 1)}times as long as fused",
    ):
        assert found in opening, found


def test_readme_links_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert "docs/assets/sweep.png" in links
    assert [link for link in links if not (ROOT / link).exists()] == []
