"""Read ahead, compute in batches, and write, all at the same time and within bounds."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

Job = TypeVar("Job")
Picture = TypeVar("Picture")
Result = TypeVar("Result")


class Steps(ABC, Generic[Job, Picture, Result]):
    """What is done for a job. `finished` runs in the thread of `run`, the others in threads."""

    @abstractmethod
    def read(self, job: Job) -> Picture:
        """Read the picture of a job."""

    @abstractmethod
    def pixels(self, picture: Picture) -> int:
        """Size of a picture, by which memory is bounded."""

    @abstractmethod
    def group(self, picture: Picture) -> Hashable:
        """What pictures have in common that can be computed together."""

    def begin_computing(self) -> None:
        """Called in every computing thread, once, before anything else."""

    @abstractmethod
    def compute(self, pictures: list[Picture]) -> list[Result]:
        """The results of pictures of one group, in their order."""

    @abstractmethod
    def write(self, job: Job, picture: Picture, result: Result) -> None:
        """Write the result of a job."""

    @abstractmethod
    def finished(self, job: Job, error: Exception | None) -> None:
        """Take note that a job is done, or has failed with an error. May raise to stop it all."""


@dataclass(frozen=True)
class Limits:
    """How much is done at a time.

    Attributes:
        batch: pictures computed together, at most.
        computing: threads that compute.
        pixels: no reading begins while the pictures in memory have more. So at most this and what
            `files` threads are reading is ever there: a size is known only once it is read.
        files: threads that read, and as many that write. Decoding a large photograph, by one
            thread, takes several times as long as coloring it takes a GPU.
    """

    batch: int
    computing: int
    pixels: int = 2**27  # ten photographs of 12 megapixels, 1 GB in 8 bits with their results
    files: int = min(4, os.cpu_count() or 1)

    @property
    def pictures(self) -> int:
        """Pictures in memory: in every computing thread one batch, and as much again beside it."""
        return 2 * self.batch * self.computing + 2 * self.files


def run(jobs: Iterable[Job], steps: Steps[Job, Picture, Result], limits: Limits) -> None:
    """Do all jobs, in no particular order.

    A batch is computed when it is full, or when a computing thread is idle and no reading can fill
    it. A job that fails is told to `steps.finished` and leaves the others alone; a batch that fails
    is computed again one by one, so that only the culprit is told. On an interrupt no step begins
    any more and those that run are waited for: no thread is left over and no file half written.

    Args:
        jobs: taken only as fast as they are read.
        steps: what to do.
        limits: how much at a time.
    """
    with ExitStack() as stack:

        def threads(name: str, count: int, begin: Callable[[], None] | None = None) -> Executor:
            pool = ThreadPoolExecutor(count, f"disco-fast-{name}", begin)
            stack.callback(pool.shutdown, cancel_futures=True)
            return pool

        readers = threads("read", limits.files)
        computers = threads("compute", limits.computing, steps.begin_computing)
        writers = threads("write", limits.files)
        _Run(jobs, steps, limits, readers, computers, writers).all()


class _Entry(NamedTuple):
    """A job whose picture is in memory."""

    job: Any
    picture: Any
    pixels: int


class _Run(Generic[Job, Picture, Result]):
    """The state of a run, which no thread but that of `run` touches."""

    def __init__(
        self,
        jobs: Iterable[Job],
        steps: Steps[Job, Picture, Result],
        limits: Limits,
        readers: Executor,
        computers: Executor,
        writers: Executor,
    ):
        self._jobs, self._steps, self._limits = iter(jobs), steps, limits
        self._readers, self._computers, self._writers = readers, computers, writers
        self._then: dict[Future, Callable[[Future], None]] = {}  # what follows a running step
        self._gathered: dict[Hashable, list[_Entry]] = {}
        self._reading = self._computing = 0  # jobs, batches
        self._jobs_inside = self._pixels_inside = 0  # from reading until written

    def all(self) -> None:
        """Do all jobs."""
        self._start()
        while self._then:
            for future in wait(self._then, return_when=FIRST_COMPLETED).done:
                self._then.pop(future)(future)
            self._start()

    def _start(self) -> None:
        """Read as far as allowed; give idle threads what no reading will add to at present."""
        while self._may_read():
            try:
                self._read(next(self._jobs))
            except StopIteration:
                break
        while self._gathered and not self._reading and self._computing < self._limits.computing:
            group = max(self._gathered, key=lambda key: len(self._gathered[key]))
            self._compute(self._gathered.pop(group))

    def _may_read(self) -> bool:
        return (
            self._reading < self._limits.files
            and self._jobs_inside < self._limits.pictures
            and self._pixels_inside <= self._limits.pixels
        )

    def _read(self, job: Job) -> None:
        self._reading += 1
        self._jobs_inside += 1
        self._then[self._readers.submit(self._steps.read, job)] = partial(self._was_read, job)

    def _was_read(self, job: Job, future: Future[Picture]) -> None:
        self._reading -= 1
        try:
            picture = future.result()
        except Exception as error:
            return self._finish(job, 0, error)
        entry = _Entry(job, picture, self._steps.pixels(picture))
        self._pixels_inside += entry.pixels
        group = self._steps.group(picture)
        batch = self._gathered.setdefault(group, [])
        batch.append(entry)
        if len(batch) == self._limits.batch:
            self._compute(self._gathered.pop(group))

    def _compute(self, batch: list[_Entry]) -> None:
        self._computing += 1
        future = self._computers.submit(self._steps.compute, [entry.picture for entry in batch])
        self._then[future] = partial(self._was_computed, batch)

    def _was_computed(self, batch: list[_Entry], future: Future[list[Result]]) -> None:
        self._computing -= 1
        try:
            results = future.result()
        except Exception as error:
            if len(batch) == 1:
                return self._finish(batch[0].job, batch[0].pixels, error)
            for entry in batch:
                self._compute([entry])
            return
        for entry, result in zip(batch, results, strict=True):
            written = self._writers.submit(self._steps.write, entry.job, entry.picture, result)
            self._then[written] = partial(self._was_written, entry)

    def _was_written(self, entry: _Entry, future: Future[None]) -> None:
        try:
            future.result()
        except Exception as error:
            self._finish(entry.job, entry.pixels, error)
        else:
            self._finish(entry.job, entry.pixels, None)

    def _finish(self, job: Job, pixels: int, error: Exception | None) -> None:
        self._jobs_inside -= 1
        self._pixels_inside -= pixels
        self._steps.finished(job, error)
