"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".disco-fast-{}.part"
_STALE = 3600.0  # seconds; nothing here takes as long to write a file


@contextmanager
def whole_file(path: str | os.PathLike[str], replace: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; on success it takes the place of `path`.

    What was written is on the disk before it has its name, and the name is before this ends: after
    a power cut there is the old file or the whole new one. On any exception, an interrupt included,
    the temporary file is removed and `path` is as it was. The name is made here and not by
    `tempfile`, so that the file gets the permissions that any other new file gets.

    Args:
        path: the file.
        replace: whether a file of that name is replaced, also one that appeared meanwhile.

    Raises:
        FileExistsError: there is one that may not be replaced.
    """
    path = Path(path)
    partial = path.with_name(_PARTIAL.format(secrets.token_hex(4)))
    try:
        yield partial
        give_name(partial, path, replace)
    finally:
        partial.unlink(missing_ok=True)


def give_name(partial: Path, path: Path, replace: bool) -> None:
    """Rename a file that is complete, once it is on the disk; then so is its name.

    Args:
        partial: the file.
        path: its new name, in the same folder.
        replace: see `whole_file`.

    Raises:
        FileExistsError: likewise.
    """
    _to_disk(partial)
    if replace:
        os.replace(partial, path)
    else:
        _rename_to_nothing(partial, path)
    _to_disk(path.parent)


def _rename_to_nothing(partial: Path, path: Path) -> None:
    """Rename a file unless the name is taken, in one step where the file system has hard links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(None, "it exists now, and is not replaced", str(path)) from None
    except OSError:  # no hard links there, as on FAT and some network drives
        if os.path.lexists(path):
            raise FileExistsError(None, "it exists now, and is not replaced", str(path)) from None
        os.rename(partial, path)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Remove what a process that was killed left of `whole_file` in a folder, after an hour.

    Younger ones may be of a process that is still writing.
    """
    for partial in Path(folder).glob(_PARTIAL.format("*")):
        try:
            if time.time() - partial.stat().st_mtime > _STALE:
                partial.unlink()
        except FileNotFoundError:  # another process was quicker
            pass
