"""What makes the network fast: preparation and precision."""

from .engine import Engine

__all__ = ["Engine"]
