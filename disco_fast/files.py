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
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; on success it takes the place of `path`.

    On any exception, an interrupt included, the temporary file is removed and `path` is as it was.
    The name is made here and not by `tempfile`, so that the file gets the permissions that any
    other new file gets.
    """
    path = Path(path)
    partial = path.with_name(_PARTIAL.format(secrets.token_hex(4)))
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
