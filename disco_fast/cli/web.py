"""``disco-fast web``."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from .._extras import need
from ..console import DONE, UsageError, say
from ..engine.memory import keep_memory
from ..web.folder import remove_empty, visitors_folder
from .options import add_network_options, open_colorizer

_HOST, _PORT = "127.0.0.1", 7860
_SWEEP = 600  # seconds
_VISITORS = 1000  # of whom more than files is kept


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast web``."""
    add = command.add_argument
    add("--host", default=_HOST, help=f"default {_HOST}: this machine alone; 0.0.0.0: everybody")
    add("--port", type=int, default=_PORT, help=f"default {_PORT}")
    add(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a name under which others reach the page, such as colors.example.org; requests under"
        " names that are not given are refused",
    )
    add("--max-megapixels", type=float, default=40.0, help="of an upload; default 40")
    add("--max-megabytes", type=float, default=50.0, help="of an upload; default 50")
    add_network_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM; what visitors sent and got goes with it.

    Raises:
        UsageError: an argument does not fit, or the port is taken.
        MissingExtraError: the extra is not installed.
    """
    for name in ("max_megapixels", "max_megabytes"):
        if not getattr(arguments, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')}: expected more than 0")
    with suppress(KeyboardInterrupt), _signals_interrupt(), visitors_folder() as folder:
        _serve(arguments, folder)
    return DONE


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Other signals end the process as Ctrl-C does; a second one does not stop the cleaning."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(arguments: argparse.Namespace, folder: Path) -> None:
    """Serve the page, with all files below a folder, until interrupted."""
    # Read when Gradio is imported.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    gradio = need("web", "gradio")
    from starlette.middleware import Middleware

    from ..web.gate import Gate
    from ..web.page import CSS, build
    from ..web.sealing import seal
    from ..web.session import Limits

    keep_memory()
    limits = Limits(arguments.max_megabytes, arguments.max_megapixels)
    largest = int(limits.megabytes * 1e6)
    gate = Middleware(Gate, names=_names(arguments), folder=folder, largest_upload=largest)
    page = build(open_colorizer(arguments), limits)
    seal()
    try:
        _, address, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=largest,
            state_session_capacity=_VISITORS,
            run_history=False,
            ssr_mode=False,
            app_kwargs={"middleware": [gate]},
            footer_links=[],
            css=CSS,
            theme=gradio.themes.Default(
                primary_hue="slate", neutral_hue="slate", font=["system-ui", "sans-serif"]
            ),
        )
    except OSError as error:
        raise UsageError(f"--port: {error}") from error
    say(f"{address} (Ctrl-C ends it)")
    try:
        while True:
            time.sleep(_SWEEP)
            remove_empty(folder)  # of which the framework leaves one for every upload
    finally:
        # At once: every open page holds a connection that would be waited for.
        page.server.force_exit = True
        page.server.close()


def _names(arguments: argparse.Namespace) -> list[str]:
    """Under which the page is reached."""
    outside = urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).hostname
    return [arguments.host, *arguments.name, *([outside] if outside else [])]
