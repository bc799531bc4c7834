"""What the command line says, and how it ends."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: all done, some of it failed, nothing was begun, Ctrl-C."""


class UsageError(Exception):
    """The request makes no sense or is refused; nothing was begun."""


def show_progress(done: int, total: int, source: Path, every: int = 1) -> None:
    """Announce a finished picture: in a bar on a terminal, in a line of its own elsewhere.

    Args:
        done: how many are finished.
        total: of how many.
        source: what was finished, or what it belongs to.
        every: how many share a line where there is no terminal.
    """
    if sys.stderr.isatty():
        bar = f"[{'=' * (30 * done // total):30}] {done}/{total} {printable(str(source))}"
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r{bar[:columns]:{columns}}", end="", file=sys.stderr, flush=True)
    elif done % every == 0 or done == total:
        print(f"[{done}/{total}] {printable(str(source))}", file=sys.stderr, flush=True)


def say(message: str) -> None:
    """Print a line on standard error, over the progress bar if that is there."""
    if sys.stderr.isatty():
        print(f"\r{'':{shutil.get_terminal_size().columns - 1}}\r", end="", file=sys.stderr)
    print(f"disco-fast: {printable(message)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text whose control characters are escaped: a file's name may hold a terminal's commands."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
