"""The command line, ``disco-fast``: a module for each command."""

from .main import main

__all__ = ["main"]
