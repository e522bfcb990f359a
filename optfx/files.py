"""Files of tensors: complete or absent, checked for damage when read, and free of code.

A file is written under another name in the same folder, flushed to disk, and moved into place in one operation of the
file system. So after a kill or a power loss at any moment, either the old file or the new one is there. The format is
that of `torch.save`, so `torch.load` reads it; `read` also verifies the checksums, which `torch.load` does not.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch


def write(path: str | os.PathLike[str], content: Any) -> None:
    """Write tensors, numbers and text, in dicts and lists, to a file, replacing any that is there.

    Only one process may write a file at a time. Drafts left by killed processes are removed, so that they do not
    pile up.

    Args:
        path: the file. Missing folders are made.
        content: what `read` will return.
    """
    with replacing(path) as file:
        _save(content, file)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of any that is there once all is written, and then alone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _drafts(path):
        left.unlink(missing_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # in the same folder, so that the move is atomic
    try:
        with open(draft, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # other systems cannot open a folder, and write its entry with the file
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str], mmap: bool = False) -> Any:
    """Read what `write` wrote, onto the CPU. No code in the file is run.

    Args:
        path: the file.
        mmap: read tensors from disk only when they are needed.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is cut short, damaged, in another format, or holds objects that only code could restore.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged is None:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} holds objects that only code could restore, and no code is run") from error
        except Exception as error:
            raise ValueError(f"{path} is cut short, or no file of tensors: {error}") from error
    raise ValueError(f"{path} is damaged: the checksum of {damaged} does not match its content")


def _drafts(path: Path) -> list[Path]:
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.part")
    return [other for other in path.parent.iterdir() if name.fullmatch(other.name)]


def _save(content: Any, file: Any) -> None:
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)  # `read` needs them, even if a user turned them off to save faster
    try:
        torch.save(content, file)
    finally:
        torch.serialization.set_crc32_options(checksums)
