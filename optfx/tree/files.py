"""Files of tensors: whole or not there at all, found out when damaged, and with nothing in them that is run.

A file is written beside its place under another name, brought to the disk, and moved there in one operation of the
file system. Whoever is killed at any moment, or loses power, finds the old file or the new one. The format is that of
`torch.save`, which `torch.load` reads; checksums are compared here, since `torch.load` does not.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
import zipfile
from pathlib import Path
from typing import Any

import torch


def write(path: str | os.PathLike[str], content: Any) -> None:
    """Put tensors, numbers and text, in dicts and lists, in the place of the file. Folders are made.

    One process writes a file at a time: drafts that killed ones left are removed, so that they never pile up.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _drafts(path):
        left.unlink(missing_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # in the same folder, so that the move is atomic
    try:
        with open(draft, "xb") as file:
            _save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere folders cannot be opened, and their entries are written with the file
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str], mmap: bool = False) -> Any:
    """What `write` wrote, on the CPU.

    Args:
        path: the file.
        mmap: read the tensors from the disk as they are needed.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is cut short, has been changed, is of another format, or holds what only code could restore.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged is None:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} holds objects that only code could restore, which is not run") from error
        except Exception as error:
            raise ValueError(f"{path} is cut short, or no file of tensors: {error}") from error
    raise ValueError(f"{path} is damaged: the checksum of {damaged} is not that of its content")


def _drafts(path: Path) -> list[Path]:
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.part")
    return [other for other in path.parent.iterdir() if name.fullmatch(other.name)]


def _save(content: Any, file: Any) -> None:
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)  # a user's faster saving elsewhere must not make `read` find damage
    try:
        torch.save(content, file)
    finally:
        torch.serialization.set_crc32_options(checksums)
