"""Packages that only some features need, and what installs them."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of an optional extra is not installed; the message says what installs it."""


def need(extra: str, module: str) -> ModuleType:
    """Import a module that an extra installs.

    Args:
        extra: a name of `optional-dependencies` in pyproject.toml, such as "video".
        module: the module, such as "av".

    Raises:
        MissingExtraError: it, or something that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(
            f"{package} is missing: python -m pip install 'disco_fast[{extra}]', or in a checkout"
            f" python -m pip install '.[{extra}]'",
            name=package,
        ) from error
