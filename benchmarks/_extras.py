"""Packages that only some benchmarks want."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of the extra `bench` is not installed."""


def need(module: str) -> ModuleType:
    """Import a module that the extra `bench` installs.

    Raises:
        MissingExtraError: naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{package} is missing: python -m pip install 'disco_fast[bench]'"
        ) from error
