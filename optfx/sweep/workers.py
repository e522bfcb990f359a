"""Whether a process is still there: its name tells it apart from all others, on this machine and elsewhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def name_of(pid: int) -> str:
    """A process: its host, and when that was started; its number, and when it began."""
    return f"{_machine()}/{pid}/{_began(pid)}"


def is_gone(worker: str) -> bool:
    """Whether a worker was a process of this machine, and is no more."""
    here = f"{_machine()}/"
    if not worker.startswith(here):
        return False
    pid, began = worker.removeprefix(here).split("/")
    return str(_began(int(pid))) != began


def _machine() -> str:
    """The host; on Linux also since when it is up, and which processes can be seen from here."""
    boot, seen = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    up = [boot.read_text().strip(), seen.readlink().name] if boot.exists() and seen.is_symlink() else []
    return "/".join([socket.gethostname(), *up])


def _began(pid: int) -> int | None:
    """When a process began, as far as the system says: 0 if it does not, None if there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state == "Z" else int(rest[18])
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return 0
    return 0
