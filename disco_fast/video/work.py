"""The finished parts of a film, kept beside it until all are there."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..console import UsageError, say
from ..io.atomic import whole_file
from .joining import Part


class WorkFolder:
    """A hidden folder beside a film to be written, which one process at a time may use.

    As a context it is made, and removed again if no part was finished. Parts of other settings, or
    of another film of that name, are removed.

    Args:
        target: the film.
        identity: of all that the parts depend on.

    Attributes:
        parts: the finished ones; a part counts once its state is there.

    Raises:
        UsageError: another process is at work on that film.
    """

    def __init__(self, target: Path, identity: str):
        self._target = target.absolute()
        self._prefix = f".{target.name}.disco-fast-"
        self._folder = self._target.with_name(self._prefix + identity)
        self._lock = FileLock(self._target.with_name(f".{target.name}.disco-fast-lock"), timeout=0)
        self.parts: list[Part] = []

    def __enter__(self) -> WorkFolder:
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(f"{self._target}: another process is writing it") from None
        for other in self._others():
            shutil.rmtree(other)
        self._folder.mkdir(exist_ok=True)
        for partial in self._folder.glob(".*.part"):  # of a process that was killed
            partial.unlink()
        while (part := self._read(len(self.parts))) is not None:
            self.parts.append(part)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.parts and self._read(0) is None:  # an interrupt may come before it is counted
            self.remove()
        with suppress(PermissionError):  # Windows removes no open file, and filelock does it there
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def state(self) -> dict[str, Tensor]:
        """What was kept with the last part."""
        return load_file(self._name(len(self.parts) - 1, ".safetensors"))

    def path(self) -> Path:
        """Where to write the next part."""
        return self._name(len(self.parts), ".film")

    def finish(self, times: Sequence[int], duration: int, state: dict[str, Tensor]) -> None:
        """Count the next part, which is written.

        Args:
            times: of its frames.
            duration: of its last frame.
            state: kept for `state`.
        """
        kept = {"times": torch.tensor(times), "duration": torch.tensor(duration)}
        with whole_file(self._name(len(self.parts), ".safetensors")) as partial:
            save_file(state | kept, partial)
        self.parts.append(Part(self.path(), times, duration))

    def remove(self) -> None:
        """Remove the folder and all parts."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.parts = []

    def _others(self) -> list[Path]:
        pattern = f"{glob.escape(self._prefix)}*"
        found = self._target.parent.glob(pattern)
        return [path for path in found if path != self._folder and path.is_dir()]

    def _name(self, number: int, suffix: str) -> Path:
        return self._folder / f"{number:06}{suffix}"

    def _read(self, number: int) -> Part | None:
        path, state = self._name(number, ".film"), self._name(number, ".safetensors")
        if not state.exists():
            return None
        try:
            with safe_open(state, "pt") as kept:
                times, duration = kept.get_tensor("times"), kept.get_tensor("duration")
        except (OSError, SafetensorError):
            say(f"{state} is damaged: that part and those after it are made again")
            return None
        return Part(path, times.tolist(), int(duration))
