"""What the command line says, and how it ends."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

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
    name = printable(str(source))
    if _on_terminal():
        bar = f"[{'=' * (30 * done // total):30}] {done}/{total} {name}"
        columns = shutil.get_terminal_size().columns - 1
        _print(f"\r{bar[:columns]:{columns}}")
    elif done % every == 0 or done == total:
        _print(f"[{done}/{total}] {name}\n")


def say(message: str) -> None:
    """Print a line on standard error, over the progress bar if that is there."""
    over = f"\r{'':{shutil.get_terminal_size().columns - 1}}\r" if _on_terminal() else ""
    _print(f"{over}disco-fast: {printable(message)}\n")


def printable(text: str) -> str:
    """The text with what would move the cursor, or hide a part of it, as escape sequences."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _print(text: str) -> None:
    """Write to standard error, if there is one and somebody still reads it."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def reason(error: BaseException) -> str:
    """The first line with words of what an error says, or its kind where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


@contextmanager
def second_interrupt_ends() -> Iterator[None]:
    """A second Ctrl-C ends the process at once, while the first is still being seen to.

    What is left then is what a kill leaves. Where Ctrl-C is ignored or handled by somebody else, as
    in a thread or by `nohup`, nothing changes.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:  # after an interrupt the process is ending
            signal.signal(signal.SIGINT, signal.default_int_handler)


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
