"""Why something runs as it is, in words, with the line of the user's code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType

import torch

from optfx.compiler.record.inputs import Unfusable

COMPILER = f"{Path(__file__).parents[1]}{os.sep}"
OURS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[2], Path(torch.__file__).parent))


def reason_of(error: Exception) -> str:
    """Why a transform runs as it is, with the last line of the user's code that ran."""
    words = str(error)
    if not isinstance(error, Unfusable):
        words = f"{type(error).__name__}: {words.splitlines()[0] if words else ''}"
    place, at = "", error.__traceback__
    while at is not None:
        place = _user_line(at.tb_frame.f_code.co_filename, at.tb_lineno) or place
        at = at.tb_next
    return words + place


def is_ours(error: Exception) -> bool:
    """Whether the library has raised an error, to say what is wrong."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    file = "" if at is None else at.tb_frame.f_code.co_filename
    return file.startswith(OURS[0]) and not file.startswith(COMPILER)


def line(until: CodeType) -> str:
    """The line of the user's code that is running, inside of the function `until`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not until:
        if place := _user_line(frame.f_code.co_filename, frame.f_lineno):
            return place
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _user_line(file: str, line: int) -> str:
    return "" if file.startswith(OURS) or file.startswith("<") else f" ({Path(file).name}:{line})"
