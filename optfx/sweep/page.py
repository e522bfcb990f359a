"""A page of a sweep: one HTML file with the pictures and a table of all members that can be sorted.

It needs nothing from elsewhere. A run that writes to a folder writes its page there again and again, and a browser that
has it open reads it anew.
"""

from __future__ import annotations

import base64
import html
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optfx import files
from optfx.sweep import pictures
from optfx.sweep.configs import is_absent
from optfx.sweep.members import TRAIN_LOSS

if TYPE_CHECKING:
    from optfx.sweep.result import Result

NAME = "sweep.html"
SECONDS = 20.0  # before the first page of a run, and between two
SHARE = 0.1  # of the time, which drawing may take

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1150px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.4em; margin-bottom: 0 }
h2 { font-size: 1.1em; margin: 2em 0 .5em }
img { max-width: 100%; height: auto }
div { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .15em .8em; text-align: right; white-space: nowrap }
th { cursor: pointer; border-bottom: 1px solid #888; position: sticky; top: 0; background: #fff }
th[aria-sort=ascending]::after { content: " \\2191" }
th[aria-sort=descending]::after { content: " \\2193" }
tbody tr:nth-child(even) { background: #f6f6f6 }
.stopped, .diverged { color: #8c8c8c }
"""

SORT = """
const body = document.querySelector("tbody"), heads = [...document.querySelectorAll("th")];
const sort = (k, up) => {
  const value = row => row.cells[k].dataset.x ?? row.cells[k].textContent;
  const less = (a, b) => isNaN(a) || isNaN(b) ? String(a).localeCompare(b) : a - b;
  const missing = row => value(row) === "";
  body.append(...[...body.rows].sort((a, b) =>
    missing(a) - missing(b) || (missing(a) ? 0 : less(value(a), value(b)) * (up ? 1 : -1))));
  heads.forEach((head, i) => head.ariaSort = i !== k ? null : up ? "ascending" : "descending");
  history.replaceState(null, "", `#${k}${up ? "up" : "down"}`);  // kept when the page is read anew
};
heads.forEach((head, k) => head.onclick = () => sort(k, head.ariaSort !== "ascending"));
const kept = location.hash.match(/^#(\\d+)(up|down)$/);
if (kept && heads[kept[1]]) sort(+kept[1], kept[2] === "up");
"""


def write(
    path: str | Path, result: Result, metric: str | None = None, mode: str | None = None, goes_on: bool = False
) -> None:
    """Write the page of a sweep (see `Result.page`).

    Args:
        path: the file.
        result: what there is.
        metric: what to judge by.
        mode: which way is better.
        goes_on: whether there is more to come, for which a browser should look.
    """
    if metric is None and result.metric not in (None, *result.outcomes):  # nobody looked yet
        metric, mode = TRAIN_LOSS, "min"
    title = f"{len(result)} settings of {', '.join(result.configs)}"
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="refresh" content="{SECONDS:.0f}">' if goes_on else "",
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(_facts(result, goes_on))}</p>",
        *_pictures(result, metric, mode),
        f"<h2>All members, the best first</h2>\n<div>{_table(result, metric, mode)}</div>",
        f"<script>{SORT}</script>\n</html>\n",
    ]
    with files.replacing(path) as file:
        file.write("\n".join(filter(None, parts)).encode())


def _facts(result: Result, goes_on: bool) -> str:
    steps = f"{result.oldest} steps in {result.seconds:.1f} s, {result.compile_seconds:.1f} s of it compiling"
    stopped = int(pictures.was_stopped(result).sum())
    counts = [f"{n} {word}" for n, word in ((int(result.diverged.sum()), "diverged"), (stopped, "stopped")) if n]
    more = ", it goes on" if goes_on else ""
    return f"{', '.join([steps, *counts])}{more}. Written at {time.strftime('%Y-%m-%d %H:%M:%S')}."


def _pictures(result: Result, metric: str | None, mode: str | None) -> list[str]:
    """Those that have something to show. One that cannot be drawn says why in its place: it must not stop a run."""
    found = []
    for kind, picture in pictures.KINDS.items():
        title = html.escape((picture.__doc__ or kind).partition("\n")[0])
        try:
            pictures.draw(file := io.BytesIO(), result, kind, metric, mode)
        except pictures.NothingToShow:
            continue
        except ImportError as error:
            return [f"<p>{html.escape(str(error))}</p>"]
        except Exception as error:
            found.append(f"<h2>{title}</h2>\n<p>It could not be drawn: {html.escape(repr(error))}</p>")
        else:
            data = base64.b64encode(file.getvalue()).decode()
            found.append(f'<h2>{title}</h2>\n<img alt="{title}" src="data:image/png;base64,{data}">')
    return found


def _table(result: Result, metric: str | None, mode: str | None) -> str:
    columns: dict[str, list[Any]] = {
        name: x.tolist() for name, x in {**result.configs, **result.outcomes, "age": result.age}.items()
    }
    ranking = result.ranking(metric, mode)
    stopped, diverged = pictures.was_stopped(result).tolist(), result.diverged.tolist()
    rank = {i: str(k) for k, i in enumerate((i for i in ranking if not stopped[i]), 1)}
    heads = ["", "member", *columns, "end"]
    rows = []
    for i in [*ranking, *sorted(set(range(len(result))) - set(ranking))]:
        end = "diverged" if diverged[i] else "stopped" if stopped[i] else ""
        cells = [rank.get(i, ""), int(result.member[i]), *(x[i] for x in columns.values()), end]
        rows.append(f"<tr{f' class={end}' if end else ''}>{''.join(map(_cell, cells))}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"


def _cell(x: Any) -> str:
    if isinstance(x, float):
        return '<td data-x=""></td>' if x != x else f'<td data-x="{x!r}">{x:.4g}</td>'
    return f"<td>{'' if is_absent(x) else html.escape(str(x))}</td>"


class Page:
    """The page of a run, written as it goes in a tenth of the time at most. A run of a few seconds has none.

    Args:
        folder: where.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path, self.due = Path(folder) / NAME, time.perf_counter() + SECONDS
        self.written = False

    def show(self, result: Result, goes_on: bool) -> None:
        began = time.perf_counter()
        if began < self.due and (goes_on or not self.written):
            return
        write(self.path, result, goes_on=goes_on)
        now = time.perf_counter()
        self.due, self.written = now + max(SECONDS, (now - began) / SHARE), True
