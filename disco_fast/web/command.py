"""``disco-fast web``."""

from __future__ import annotations

import argparse
import os

from ..console import DONE, UsageError, say
from ..memory import keep_memory
from ..options import add_network_options, open_colorizer

_HOST, _PORT = "127.0.0.1", 7860


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast web``."""
    add = command.add_argument
    add("--host", default=_HOST, help=f"default {_HOST}: this machine alone; 0.0.0.0: everybody")
    add("--port", type=int, default=_PORT, help=f"default {_PORT}")
    add("--max-megapixels", type=float, default=40.0, help="of an upload; default 40")
    add("--max-megabytes", type=float, default=50.0, help="of an upload; default 50")
    add_network_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        UsageError: an argument does not fit, or the port is taken.
        ImportError: the extra is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio

        from .page import CSS, build
        from .session import Limits
    except ImportError as error:
        raise ImportError(
            "the page needs Gradio: python -m pip install 'disco_fast[web]', or in a checkout"
            " python -m pip install '.[web]'"
        ) from error
    for name in ("max_megapixels", "max_megabytes"):
        if not getattr(arguments, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')}: expected more than 0")
    keep_memory()
    limits = Limits(arguments.max_megabytes, arguments.max_megapixels)
    page = build(open_colorizer(arguments), limits)
    try:
        _, address, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=int(limits.megabytes * 1e6),
            footer_links=[],
            css=CSS,
            theme=gradio.themes.Default(
                primary_hue="slate", neutral_hue="slate", font=["system-ui", "sans-serif"]
            ),
        )
    except OSError as error:
        raise UsageError(f"--port: {error}") from error
    say(f"{address} (Ctrl-C ends it)")
    page.block_thread()
    return DONE
