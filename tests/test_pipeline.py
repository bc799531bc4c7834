"""The pipeline, with steps that count what is going on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

import pytest

from disco_fast.io.pipeline import Limits, Steps, run


class Counting(Steps[int, int, int]):
    """Jobs are numbers, which are also their pictures; results are their squares."""

    def __init__(
        self, group: Callable[[int], Hashable] = lambda job: 0, pixels: Callable[[int], int] = abs
    ):
        self._group, self._pixels = group, pixels
        self.lock = threading.Lock()
        self.inside: list[int] = []
        self.most_inside = self.most_pixels = 0
        self.begun = 0
        self.batches: list[list[int]] = []
        self.written: dict[int, int] = {}
        self.errors: dict[int, str] = {}
        self.finished_in: set[threading.Thread] = set()

    def read(self, job: int) -> int:
        with self.lock:
            self.inside.append(job)
            self.most_inside = max(self.most_inside, len(self.inside))
            self.most_pixels = max(self.most_pixels, sum(map(self._pixels, self.inside)))
        if job % 10 == 7:
            raise OSError("not read")
        return job

    def pixels(self, picture: int) -> int:
        return self._pixels(picture)

    def group(self, picture: int) -> Hashable:
        return self._group(picture)

    def begin_computing(self) -> None:
        with self.lock:
            self.begun += 1

    def compute(self, pictures: list[int]) -> list[int]:
        with self.lock:
            self.batches.append(pictures)
        if any(picture % 10 == 8 for picture in pictures):
            raise RuntimeError("not computed")
        return [picture**2 for picture in pictures]

    def write(self, job: int, picture: int, result: int) -> None:
        assert job == picture
        if job % 10 == 9:
            raise OSError("not written")
        with self.lock:
            self.written[job] = result

    def finished(self, job: int, error: Exception | None) -> None:
        self.finished_in.add(threading.current_thread())
        with self.lock:
            self.inside.remove(job)
        if error is not None:
            self.errors[job] = str(error)


def good(count: int) -> list[int]:
    """Jobs that do not fail."""
    return [number for number in range(2 * count) if number % 10 < 7][:count]


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("disco-fast")]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("computing", [1, 2])
@pytest.mark.parametrize("groups", [1, 3, 1000])
@pytest.mark.parametrize("pixels", [1, 50, 10**9])
def test_all_is_done_within_the_limits(batch: int, computing: int, groups: int, pixels: int):
    jobs, taken = good(60), []
    limits = Limits(batch, computing, pixels, files=3)
    steps = Counting(lambda job: job % groups)
    steps_taken = (taken.append(job) or job for job in jobs)
    run(steps_taken, steps, limits)
    assert taken == jobs
    assert steps.written == {job: job**2 for job in jobs}
    assert not steps.errors
    assert not steps.inside
    assert steps.most_inside <= limits.pictures
    assert steps.most_pixels <= pixels + limits.files * max(jobs)
    for pictures in steps.batches:
        assert len(pictures) <= batch
        assert len({picture % groups for picture in pictures}) == 1
    assert 1 <= steps.begun <= computing
    assert steps.finished_in == {threading.current_thread()}
    assert not our_threads()


def test_batches_are_full_where_they_can_be():
    steps = Counting(lambda job: job % 2)
    run(range(7), steps, Limits(2, 1))
    assert sorted(map(len, steps.batches)) == [1, 2, 2, 2]


def test_no_jobs():
    steps = Counting()
    run([], steps, Limits(4, 2))
    assert not steps.batches


@pytest.mark.parametrize("batch", [1, 8])
def test_only_the_culprits_fail(batch: int):
    steps = Counting()
    run(range(40), steps, Limits(batch, 1))
    reasons = {7: "not read", 8: "not computed", 9: "not written"}
    assert steps.errors == {job: reasons[job % 10] for job in range(40) if job % 10 in reasons}
    assert steps.written == {job: job**2 for job in range(40) if job % 10 < 7}


def test_reading_computing_and_writing_overlap():
    """Each stage waits for another to have begun with another job; alone it would wait in vain."""
    begun = {name: threading.Event() for name in ("read 5", "computed 2", "computed 3")}

    class Waiting(Counting):
        def read(self, job: int) -> int:
            if job == 5:
                begun["read 5"].set()
            return super().read(job)

        def compute(self, pictures: list[int]) -> list[int]:
            for picture in pictures:
                if picture in (2, 3):
                    begun[f"computed {picture}"].set()
            if 0 in pictures:
                assert begun["read 5"].wait(60)
            if 2 in pictures:  # with two computing threads
                assert begun["computed 3"].wait(60)
            return super().compute(pictures)

        def write(self, job: int, picture: int, result: int) -> None:
            if job == 0:
                assert begun["computed 2"].wait(60)
            super().write(job, picture, result)

    steps = Waiting()
    run(range(6), steps, Limits(1, 2, files=2))
    assert not steps.errors
    assert len(steps.written) == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_can_be_stopped(error: type[BaseException]):
    class Stopping(Counting):
        def finished(self, job: int, failure: Exception | None) -> None:
            super().finished(job, failure)
            if len(self.written) >= 5:
                raise error

    steps, taken = Stopping(), []
    with pytest.raises(error):
        run((taken.append(job) or job for job in good(1000)), steps, Limits(2, 2))
    assert not our_threads()
    assert len(taken) < 200
    assert all(steps.written[job] == job**2 for job in steps.written)
