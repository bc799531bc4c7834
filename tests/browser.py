"""The page of `disco-fast web` in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium")


@contextmanager
def served(*options: object) -> Iterator[str]:
    """The address of a page that is served by a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "disco_fast.cli", "web", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),  # -m would prefer the source folder to what is installed
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(300):
            assert process.poll() is None, process.stderr.read().decode()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
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
