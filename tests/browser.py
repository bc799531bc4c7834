"""The page of `disco-fast web` in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")


_PROCESSES: dict[str, tuple[subprocess.Popen, signal.Signals]] = {}


@contextmanager
def served(
    *options: object, temporary: Path | None = None, end: signal.Signals = signal.SIGTERM
) -> Iterator[str]:
    """The address of a page that is served by a process of its own.

    Args:
        options: of `disco-fast web`.
        temporary: where the process has its temporary files.
        end: what ends it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "disco_fast.cli", "web", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),  # -m would prefer the source folder to what is installed
        env={**os.environ, **({"TMPDIR": str(temporary)} if temporary else {})},
    )
    address = f"http://127.0.0.1:{port}/"
    _PROCESSES[address] = process, end
    try:
        for _ in range(300):
            assert process.poll() is None, process.communicate()[1].decode()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        stop(address)


def stop(address: str) -> None:
    """End the process of an address, and wait for that."""
    process, end = _PROCESSES[address]
    if process.poll() is None:
        process.send_signal(end)
    process.communicate(timeout=30)


@contextmanager
def opened(address: str, width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A tab of the browser with that page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(address)
        tab.wait_for_selector("#upload input[type=file]", state="attached")
        yield tab
        browser.close()


def may_skip() -> bool:
    """Whether a missing browser is no failure: everywhere but where CI has installed one."""
    return os.environ.get("CI") != "true"
