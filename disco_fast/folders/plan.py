"""Which files are read and which are written, decided before anything is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..console import UsageError
from ..image_files import SUFFIXES


@dataclass(frozen=True)
class Job:
    """A picture file to colorize, and the files to write.

    Attributes:
        source: the picture.
        targets: the files; none if all are there already.
        numbers: which variant each gets, from 0.
    """

    source: Path
    targets: tuple[Path, ...]
    numbers: tuple[int, ...] = (0,)


def plan(
    paths: list[Path],
    out: Path,
    variants: int = 1,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> list[Job]:
    """Decide which files to read and which to write, before anything is done.

    A folder among ``paths`` stands for the pictures in it and in the folders below, by suffix;
    hidden ones and the folder ``out`` itself are passed over.

    Args:
        paths: picture files and folders.
        out: the file to write, if ``paths`` is one file and this has the suffix of a picture;
            otherwise a folder, in which files keep their names and the tree of their folder.
        variants: how many files to write for a picture; of several, the names end in -1, -2, ...
        overwrite: whether files that exist may be replaced; an input never is.
        skip_existing: whether files that exist are left out of the jobs.

    Raises:
        UsageError: nothing to do, or something that would be lost; the message names it.
    """
    found = [pair for path in paths for pair in _pictures(path, out)]
    if not found:
        raise UsageError(f"no picture in {', '.join(map(str, paths))}")
    if folder_of(paths, out) is None:
        jobs = [_job(paths[0], out, variants)]
    else:
        jobs = [_job(source, out / name, variants) for source, name in found]
    _refuse_losses(jobs, overwrite or skip_existing)
    return [_missing(job) for job in jobs] if skip_existing else jobs


def folder_of(paths: list[Path], out: Path) -> Path | None:
    """The folder that is written to; None if `out` is the one file to write.

    Raises:
        UsageError: it is one file, for several.
    """
    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        return out
    if len(paths) > 1 or paths[0].is_dir():
        raise UsageError(f"{out} is one file; give a folder for the pictures to go to")
    return None


def _pictures(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """The picture files that a path stands for, each with its name below the output folder."""
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for source in _walk(path, out.resolve()):
            yield source, source.relative_to(path)
    else:
        raise UsageError(f"{path}: there is no such file or folder")


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=stop):
        kept = [name for name in folders if Path(parent, name).resolve() != out]
        folders[:] = sorted(name for name in kept if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(parent, name)


def _job(source: Path, target: Path, variants: int) -> Job:
    if variants == 1:
        return Job(source, (target,))
    names = (f"{target.stem}-{number}{target.suffix}" for number in range(1, variants + 1))
    return Job(source, tuple(map(target.with_name, names)), tuple(range(variants)))


def _missing(job: Job) -> Job:
    pairs = zip(job.targets, job.numbers, strict=True)
    left = [(target, number) for target, number in pairs if not target.exists()]
    return Job(job.source, tuple(t for t, _ in left), tuple(n for _, n in left))


def _refuse_losses(jobs: Iterable[Job], existing_is_fine: bool) -> None:
    """Raise UsageError for the first output that cannot be written or would destroy something."""
    inputs = {_identity(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for source, target in ((job.source, target) for job in jobs for target in job.targets):
        if target.suffix.lower() not in SUFFIXES:
            kinds = " ".join(SUFFIXES)
            raise UsageError(f"{source}: pictures are written as {kinds}; name such a file by -o")
        if target in taken:
            raise UsageError(f"{taken[target]} and {source} would both be written to {target}")
        taken[target] = source
        if not target.exists():
            continue
        if _identity(target) in inputs:
            raise UsageError(f"{target} is an input, and would be overwritten")
        if not existing_is_fine:
            raise UsageError(
                f"{target} exists; choose another output, or add --overwrite or --skip-existing"
            )


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file have in common, through links and in whatever case."""
    status = path.stat()
    return status.st_dev, status.st_ino
