"""Fetch the official DISCO checkpoints, which their authors keep on Google Drive.

The transfer is gdown's (the ``[download]`` extra): it knows Google Drive's confirmation page, and
takes up a broken download where it stopped. A file gets its final name only after it has been
checked.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ._extras import need
from .checkpoints import load_checkpoint
from .io.atomic import give_name

OFFICIAL = {
    "disco": "1J4vB6kG4xBLUUKpXr5IhnSSa4maXgRvQ",
    "disco-c0.2": "1jGDOfMq4mpYe6KCc0MtuiFwdEJ7_Hcc-",
    "disco-rand": "1GLLowR-0eK2U4RAHijoizEyKd5ny10OI",
}
"""Google Drive's id of each official checkpoint: the recommended one, the one of less saturated
colors, and the one that bears any placing of the anchors."""

_CONNECT_SECONDS, _SILENCE_SECONDS = 15, 60
_LARGEST = 2 * 10**9  # bytes; a state of training of the official network has half as many
_LOCK = ".disco-fast-download.lock"


class DownloadError(RuntimeError):
    """A checkpoint did not arrive; the message says why, and how to put it in place by hand."""


def cache_folder() -> Path:
    """The folder of this user where downloads are kept; it may not exist yet."""
    if os.name == "nt":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "disco_fast"


def download(
    name: str = "disco", folder: str | os.PathLike[str] | None = None, sha256: str | None = None
) -> Path:
    """Fetch an official checkpoint, unless it is there already, and check it.

    Args:
        name: one of ``OFFICIAL``.
        folder: where to put it; by default ``cache_folder()``.
        sha256: the SHA-256 that the file must have, 64 hexadecimal digits. The authors publish
            none; without it, the file must still load as a DISCO checkpoint, every key and shape.

    Returns:
        The path of the checkpoint.

    Raises:
        ValueError: no checkpoint has this name.
        DownloadError: the file did not arrive, or it, or the one there already, fails the check.
    """
    if name not in OFFICIAL:
        raise ValueError(f"name is one of {', '.join(OFFICIAL)}, not {name!r}")
    target = Path(folder or cache_folder()).absolute() / f"{name}.pth.tar"
    fetch(official_url(name), target, lambda path: check_checkpoint(path, sha256))
    return target


def official_url(name: str) -> str:
    """The address of an official checkpoint, for gdown and for a browser."""
    return f"https://drive.google.com/file/d/{OFFICIAL[name]}/view"


def check_checkpoint(path: Path, sha256: str | None = None) -> None:
    """Raise ValueError unless the file is a DISCO checkpoint and, if given, has this SHA-256."""
    if sha256 is not None and (found := file_sha256(path)) != sha256.lower():
        raise ValueError(f"{path}: its SHA-256 is {found}, not {sha256.lower()}")
    load_checkpoint(path)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, target: Path, check: Callable[[Path], None], largest: int = _LARGEST) -> None:
    """Download ``url`` to ``target``, unless it is there, going on from what an earlier try left.

    Progress is shown on standard error. Of several processes that fetch to one folder, one does and
    the others wait for it.

    Args:
        url: an address of Google Drive, or any other.
        target: the file to make; it exists only once the whole content has passed ``check``.
        check: called with the path of the whole content, of the same suffix as ``target``; it
            raises ValueError if that is not what was asked for, and the content is thrown away.
        largest: bytes of the content; of more than that nothing is kept.

    Raises:
        MissingExtraError: gdown is not installed.
        DownloadError: nothing came, too much came, or ``check`` refused
            what came or what is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(_LOCK)):
        if not target.exists():
            _fetch(url, target, check, largest)
            return
        try:
            check(target)
        except ValueError as error:
            raise DownloadError(f"{error}; remove {target} to fetch it again") from error


def _fetch(url: str, target: Path, check: Callable[[Path], None], largest: int) -> None:
    unchecked = target.with_name(f"unchecked-{target.name}")
    try:
        _receive(url, unchecked, largest)
    except _TooLargeError as error:
        for part in _parts(unchecked):
            part.unlink()
        raise DownloadError(
            f"what comes from {url} is thrown away: it has more than {largest} bytes"
        ) from error
    except _UndeliveredError as error:
        by_hand = f"by hand, open {url} in a browser and save the file as {target}"
        raise DownloadError("; ".join([str(error), *_going_on(unchecked), by_hand])) from error
    try:
        check(unchecked)
    except ValueError as error:
        unchecked.unlink()
        raise DownloadError(f"what came from {url} is thrown away: {error}") from error
    give_name(unchecked, target, replace=False)
    unchecked.unlink(missing_ok=True)  # a link of its own where names are given by links


class _UndeliveredError(Exception):
    """The content of an address did not come, or not whole; the message says why."""


class _TooLargeError(Exception):
    """The content of an address has more bytes than any that is meant."""


def _receive(url: str, path: Path, largest: int) -> None:
    """Have gdown write the content of an address to a file, through one named ``path``*.part."""
    gdown, requests = need("download", "gdown"), need("download", "requests")

    def watch(received: int, total: int | None) -> None:
        if max(received, total or 0) > largest:
            raise _TooLargeError

    try:
        gdown.download(
            url,
            str(path),
            resume=True,
            progress=watch,
            use_cookies=False,  # nothing to sign in to, and no file in the user's home
            log_messages={"start": "", "output": ""},
            timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
        )
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _UndeliveredError(f"there is no connection ({error})") from error
    except gdown.exceptions.FileURLRetrievalError as error:
        raise _UndeliveredError("Google Drive does not hand the file out now") from error
    except (gdown.exceptions.DownloadError, OSError) as error:
        raise _UndeliveredError(str(error).partition("\n")[0].rstrip(".:")) from error


def _going_on(path: Path) -> list[str]:
    """What to do with the part of the content that is kept, if there is one."""
    parts = _parts(path)
    return [f"run it again to go on from {part}, or remove that to start anew" for part in parts]


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{glob.escape(path.name)}*.part"))
