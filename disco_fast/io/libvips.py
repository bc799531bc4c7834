"""libvips, set up for pictures of strangers and many at a time; import ``pyvips`` from here."""

from __future__ import annotations

import logging
import os

# What is wrong with a file is in the error that is raised; libvips would print it as well.
os.environ.setdefault("VIPS_WARNING", "0")

import pyvips

logging.getLogger("pyvips").addHandler(logging.NullHandler())
# It keeps results for the next call that asks the same: here nobody does, and they are large.
pyvips.cache_set_max(0)
# Whoever decodes many pictures decodes several at a time.
pyvips.concurrency_set(1)

__all__ = ["pyvips"]
