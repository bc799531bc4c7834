"""What failed in a folder, and why: a line of JSON each, written as it happens."""

from __future__ import annotations

import json
from pathlib import Path

NAME = "disco-fast-failed.jsonl"


class Failures:
    """The list of what failed in one run; the file is there only if something did.

    What an earlier run left is removed: what failed then is tried again now.

    Args:
        folder: where `NAME` is written.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.path.unlink(missing_ok=True)

    def add(self, source: Path, error: str) -> None:
        """Note a picture, and why it failed. The line is in the file on return."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"source": str(source), "error": error}) + "\n")
