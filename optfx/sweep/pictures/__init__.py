"""Pictures of a sweep, each a function of a figure, the result, and the scales that all share."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from optfx.sweep.pictures.genealogy import genealogy
from optfx.sweep.pictures.parallel import parallel
from optfx.sweep.pictures.scales import STYLE, NothingToShow, Scales, was_stopped
from optfx.sweep.pictures.seeds import seeds
from optfx.sweep.pictures.settings import settings
from optfx.sweep.pictures.stopped import stopped

if TYPE_CHECKING:
    from optfx.sweep.result import Result

__all__ = ["KINDS", "NothingToShow", "draw", "was_stopped"]

KINDS = {f.__name__: f for f in (settings, stopped, parallel, genealogy, seeds)}


def draw(
    file: str | Path | IO[bytes], result: Result, kind: str, metric: str | None = None, mode: str | None = None
) -> None:
    """Draw a picture into a file (see `Result.plot`).

    Raises:
        ValueError: an unknown kind, or there is nothing to show.
        ImportError: matplotlib is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"no picture is called {kind!r}; there are {', '.join(KINDS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "optfx[sweep]"') from None
    if not len(result):
        raise NothingToShow("there are no members to show")
    name, values, mode = result.judge(metric, mode)
    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}
    with matplotlib.rc_context(style):
        figure = Figure(dpi=150, layout="constrained")
        KINDS[kind](figure, result, Scales(name, values, mode, was_stopped(result)))
        if isinstance(file, str | Path):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
