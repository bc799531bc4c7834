"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; on success it takes the place of `path`.

    On any exception, an interrupt included, the temporary file is removed and `path` is as it was.
    The name is made here and not by `tempfile`, so that the file gets the permissions that any
    other new file gets.
    """
    path = Path(path)
    partial = path.with_name(f".disco-fast-{secrets.token_hex(4)}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
