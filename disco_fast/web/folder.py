"""Where a page keeps what visitors send and get: a folder that goes with the process."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "disco-fast-web-"
_OLD = 3600.0  # seconds
_LOCK = "in-use.lock"  # the system frees it when the process dies, however it dies


@contextmanager
def visitors_folder() -> Iterator[Path]:
    """A new folder that nobody else may read, for all temporary files of the process.

    It is removed at the end of the context; what processes that were killed have left, before.
    """
    _sweep()
    before, folder = tempfile.tempdir, Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with FileLock(folder / _LOCK):
            tempfile.tempdir = str(folder)
            yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def make_room(folder: Path, most: int) -> None:
    """Remove the oldest files below a folder, until all of them have at most so many bytes."""
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            if path.is_file() and path.name != _LOCK:
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
    held = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if held <= most:
            break
        with suppress(OSError):
            path.unlink()
        held -= size


def remove_empty(folder: Path, seconds: float = _OLD) -> None:
    """Remove the empty files below a folder that have not been written to for so long."""
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            found = path.stat()
            old = time.time() - found.st_mtime > seconds
            if path.is_file() and path.name != _LOCK and not found.st_size and old:
                path.unlink()


def _sweep() -> None:
    """Remove the folders of this user whose process is no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        with suppress(OSError, Timeout):
            if lock.is_file() and _is_mine(folder):
                with FileLock(lock, timeout=0):
                    pass
                shutil.rmtree(folder, ignore_errors=True)


def _is_mine(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
