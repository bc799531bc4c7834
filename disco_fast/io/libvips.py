"""libvips, set up for pictures of strangers and many at a time; import ``pyvips`` from here."""

from __future__ import annotations

import logging
import os

# What is wrong with a file is in the error that is raised; libvips would print it as well.
os.environ.setdefault("VIPS_WARNING", "0")

import pyvips

if pyvips.API_mode:  # its own handler stumbles over warnings that quote what is no text

    @pyvips.ffi.def_extern(name="_log_handler_callback")
    def _drop(domain: object, level: int, message: object, user_data: object) -> None:
        pass


logging.getLogger("pyvips").addHandler(logging.NullHandler())
# It keeps results for the next call that asks the same: here nobody does, and they are large.
pyvips.cache_set_max(0)
# Whoever decodes many pictures decodes several at a time.
pyvips.concurrency_set(1)

__all__ = ["forget_errors", "pyvips"]


def forget_errors() -> None:
    """Drop what libvips has still to say: it would be added to the next error, of another file."""
    pyvips.vips_lib.vips_error_clear()
