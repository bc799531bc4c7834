"""Which files are read and which are written, decided before anything is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..console import UsageError
from ..io.kinds import JPEG_SUFFIXES, READ_SUFFIXES, SUFFIXES, TIFF_SUFFIXES, kind_of

LeftOut: TypeAlias = Callable[[Path, str], None]
"""Told of what is left out of a folder, and why."""

STREAM = Path("-")
"""Standard input or output."""

_OTHERWISE = ".png"  # is written for what is read but not written, and loses nothing
_ANIMATED_PNG, _ANIMATION = ".apng", ".webp"
# Their first bytes are too few to tell a picture from a text.
_VAGUE = ("BMP", "DIB", "PNM", "PCX", "JPEG XL")


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
    suffix: str | None = None,
    left_out: LeftOut = lambda path, reason: None,
) -> list[Job]:
    """Decide which files to read and which to write, before anything is done.

    A folder among ``paths`` stands for the pictures in it and in the folders below, by suffix;
    links to folders are followed, and no folder is looked into twice. Hidden ones and the folder
    ``out`` itself are passed over.

    Args:
        paths: picture files and folders; or `STREAM` alone.
        out: the file to write, if ``paths`` is one file and this has the suffix of a picture;
            otherwise a folder, in which files keep their names and the tree of their folder.
        variants: how many files to write for a picture; of several, the names end in -1, -2, ...
        overwrite: whether files that exist may be replaced; an input never is.
        skip_existing: whether files that exist are left out of the jobs.
        suffix: what all files in a folder get; None: their own, or ``.png`` for what has one that
            is not written.
        left_out: told of what cannot be a job: broken links, folders that may not be read, pipes
            and devices, and pictures that have no suffix of pictures.

    Raises:
        UsageError: nothing to do, or something that would be lost; the message names it.
    """
    if STREAM in (*paths, out):
        return [_streamed(paths, out, variants, overwrite or skip_existing)]
    folder = folder_of(paths, out)
    found = [pair for path in paths for pair in _pictures(path, out, left_out)]
    if not found:
        raise UsageError(f"no picture in {', '.join(map(str, paths))}")
    if folder is None:
        jobs = [_job(paths[0], out, variants)]
    else:
        jobs = [_job(source, out / name, variants) for source, name in _named(found, suffix)]
    _refuse_losses(jobs, overwrite or skip_existing)
    return [_missing(job) for job in jobs] if skip_existing else jobs


def folder_of(paths: list[Path], out: Path) -> Path | None:
    """The folder that is written to; None if `out` is the one file to write.

    Raises:
        UsageError: it is one file, for several, or of a kind that is not written.
    """
    kind = out.suffix.lower()
    if out != STREAM and (kind not in READ_SUFFIXES or out.is_dir()):
        return out
    if out != STREAM and kind not in SUFFIXES:
        raise UsageError(f"{out}: pictures are written as {' '.join(SUFFIXES)}")
    if len(paths) > 1 or paths[0].is_dir():
        raise UsageError(f"{out} is one file; give a folder for the pictures to go to")
    return None


def _streamed(paths: list[Path], out: Path, variants: int, existing_is_fine: bool) -> Job:
    """The job of standard input, or of standard output, or of both."""
    if folder_of(paths, out) is not None:
        raise UsageError(f"-: standard input has no name; give a file to write, or -, not {out}")
    if out == STREAM and variants > 1:
        raise UsageError(f"--variants: expected 1 on standard output, got {variants}")
    job = _job(paths[0], out, variants)
    if paths[0] != STREAM and not paths[0].is_file():
        raise UsageError(f"{paths[0]}: there is no such file")
    if out != STREAM:
        _refuse_losses([job], existing_is_fine)
    return job


def _pictures(path: Path, out: Path, left_out: LeftOut) -> Iterator[tuple[Path, Path]]:
    """The picture files that a path stands for, each with its name below the output folder."""
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for source in _walk(path, {_identity(out), _identity(path)}, left_out):
            yield source, source.relative_to(path)
    else:
        raise UsageError(f"{path}: there is no such file or folder")


def _walk(folder: Path, seen: set[tuple[int, int] | None], left_out: LeftOut) -> Iterator[Path]:
    """The pictures of a folder; folders behind links come last, so that a real one goes first."""
    links: list[Path] = []

    def unreadable(error: OSError) -> None:
        left_out(Path(error.filename), error.strerror or str(error))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        below = [Path(parent, name) for name in sorted(folders) if not name.startswith(".")]
        links += [path for path in below if path.is_symlink()]
        folders[:] = [path.name for path in below if not path.is_symlink() and _new(path, seen)]
        for name in sorted(names):
            if not name.startswith(".") and _is_picture(Path(parent, name), left_out):
                yield Path(parent, name)
    for link in links:
        if _new(link, seen):
            yield from _walk(link, seen, left_out)


def _new(folder: Path, seen: set[tuple[int, int] | None]) -> bool:
    """Whether a folder is seen for the first time."""
    identity = _identity(folder)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _is_picture(path: Path, left_out: LeftOut) -> bool:
    """Whether a file in a folder is to be colorized; what might be, and cannot, is told."""
    named = path.suffix.lower() in READ_SUFFIXES
    try:
        if path.is_file():
            if not named and (kind := _kind(path)) is not None:
                left_out(path, f"a {kind} by its content, but not by its name")
            return named
    except OSError as error:
        left_out(path, error.strerror or str(error))
        return False
    if named or (path.is_symlink() and not path.suffix):
        left_out(path, "not a regular file" if path.exists() else "a broken link")
    return False


def _kind(path: Path) -> str | None:
    """What a regular file is, as far as its first bytes tell."""
    with path.open("rb") as file:
        kind = kind_of(file.read(64))
    return None if kind in _VAGUE else kind


def _named(found: Iterable[tuple[Path, Path]], suffix: str | None) -> Iterator[tuple[Path, Path]]:
    """Each source with the name that its result gets; a new suffix never makes two names one."""
    pairs = [(source, name, _written_as(name, suffix)) for source, name in found]
    taken = {name for _, name, written in pairs if written == name}
    for source, name, written in pairs:
        if written != name:
            if written in taken:
                written = name.with_name(name.name + written.suffix)
            taken.add(written)
        yield source, written


def _written_as(name: Path, suffix: str | None) -> Path:
    if suffix is None:
        kind = name.suffix.lower()
        other = _ANIMATION if kind == _ANIMATED_PNG else _OTHERWISE
        return name if kind in SUFFIXES else name.with_suffix(other)
    alike = {".jpg": JPEG_SUFFIXES, ".tif": TIFF_SUFFIXES}.get(suffix, (suffix,))
    return name if name.suffix.lower() in alike else name.with_suffix(suffix)


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
    inputs = {_identity(job.source) for job in jobs} - {None}
    taken: dict[Path, Path] = {}
    for source, target in ((job.source, target) for job in jobs for target in job.targets):
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


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common, through links and in whatever case."""
    try:
        status = path.stat()
    except OSError:  # it is not there, or not any more
        return None
    return status.st_dev, status.st_ino
