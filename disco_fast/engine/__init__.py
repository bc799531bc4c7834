"""What makes the network fast: a prepared network, precision, batches and CUDA graphs."""

from .engine import Engine

__all__ = ["Engine"]
