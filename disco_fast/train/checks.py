"""What the training commands refuse, in one form of words."""

from __future__ import annotations

import argparse


def need(arguments: argparse.Namespace, name: str, fits: bool, expected: str) -> None:
    """Refuse an option that does not fit.

    Args:
        arguments: of the command.
        name: of the option in them.
        fits: whether it does.
        expected: what would.

    Raises:
        ValueError: it does not fit; the message names the option, what was expected, what came.
    """
    if not fits:
        got = getattr(arguments, name)
        raise ValueError(f"--{name.replace('_', '-')}: expected {expected}, got {got}")
