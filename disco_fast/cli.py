"""The ``disco-fast`` command: colorize pictures, see what is installed, get and convert weights."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from . import __version__, _library, pipeline
from .checkpoints import load_checkpoint, save_checkpoint
from .colorizer import Colorizer, check_settings
from .download import OFFICIAL, DownloadError, cache_folder, download, file_sha256
from .engine import precision
from .engine.batching import enough
from .evaluate import command as evaluate
from .image_files import SUFFIXES, ImageFileError, Picture, read_image, write_image
from .memory import keep_memory
from .train import command as train

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: all done, some of it failed, nothing was begun, Ctrl-C."""


class UsageError(Exception):
    """The request makes no sense or is refused; nothing was begun."""


@dataclass(frozen=True)
class Job:
    """A picture file to colorize, and the file to write for each variant."""

    source: Path
    targets: tuple[Path, ...]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0 all done, 1 some of it failed, 2 wrong usage, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except UsageError as error:
        _say(str(error))
        return USAGE
    except (DownloadError, ImageFileError, OSError, ValueError) as error:
        _say(_reason(error))
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


def plan(paths: list[Path], out: Path, variants: int = 1, overwrite: bool = False) -> list[Job]:
    """Decide which files to read and which to write, before anything is done.

    A folder among ``paths`` stands for the pictures in it and in the folders below, by suffix;
    hidden ones and the folder ``out`` itself are passed over.

    Args:
        paths: picture files and folders.
        out: the file to write, if ``paths`` is one file and this has the suffix of a picture;
            otherwise a folder, in which files keep their names and the tree of their folder.
        variants: how many files to write for a picture; of several, the names end in -1, -2, ...
        overwrite: whether files that exist may be replaced; an input never is.

    Raises:
        UsageError: nothing to do, or something that would be lost; the message names it.
    """
    found = [pair for path in paths for pair in _pictures(path, out)]
    if not found:
        raise UsageError(f"no picture in {', '.join(map(str, paths))}")
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(paths) > 1 or paths[0].is_dir():
            raise UsageError(f"{out} is one file; give a folder for the pictures to go to")
        jobs = [Job(paths[0], _numbered(out, variants))]
    else:
        jobs = [Job(source, _numbered(out / name, variants)) for source, name in found]
    _refuse_losses(jobs, overwrite)
    return jobs


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


def _numbered(target: Path, variants: int) -> tuple[Path, ...]:
    if variants == 1:
        return (target,)
    names = (f"{target.stem}-{number}{target.suffix}" for number in range(1, variants + 1))
    return tuple(target.with_name(name) for name in names)


def _refuse_losses(jobs: Iterable[Job], overwrite: bool) -> None:
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
        if not overwrite:
            raise UsageError(f"{target} exists; choose another output, or add --overwrite")


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file have in common, through links and in whatever case."""
    status = path.stat()
    return status.st_dev, status.st_ino


class _Loaded(NamedTuple):
    """A picture that was read: the tensor that Colorizer takes, and what goes around it."""

    image: torch.Tensor
    alpha: np.ndarray | None
    dtype: np.dtype


class _Colorizing(pipeline.Steps[Job, _Loaded, torch.Tensor]):
    """Colorizes picture files; alpha, depth and size stay as they are.

    Args:
        colorizer: the network to use.
        options: keyword arguments of ``Colorizer.colorize``.
        total: how many jobs there are.

    Attributes:
        failed: how many jobs have failed so far.
    """

    def __init__(self, colorizer: Colorizer, options: dict[str, Any], total: int):
        self._colorizer, self._options = colorizer, options
        self._total, self._finished, self.failed = total, 0, 0
        self._on_gpu = colorizer.device.type == "cuda"

    def limits(self) -> pipeline.Limits:
        """Two computing threads on a GPU, so that one copies while the other computes."""
        pixels = self._options["working_size"] ** 2 * self._options["variants"]
        batch = enough(self._colorizer.device, pixels)
        return pipeline.Limits(batch, computing=2 if self._on_gpu else 1)

    def read(self, job: Job) -> _Loaded:
        picture = read_image(job.source)
        image = _to_tensor(picture.pixels)
        if self._on_gpu:
            image = image.pin_memory()
        return _Loaded(image, picture.alpha, picture.pixels.dtype)

    def pixels(self, picture: _Loaded) -> int:
        return picture.image.shape[1] * picture.image.shape[2]

    def group(self, picture: _Loaded) -> tuple[int, int]:
        height, width = picture.image.shape[1:]
        return self._colorizer.working_shape(height, width, self._options["working_size"])

    def begin_computing(self) -> None:
        if self._on_gpu:
            stream = torch.cuda.Stream(self._colorizer.device)
            # The weights may still be on their way.
            stream.wait_stream(torch.cuda.current_stream(self._colorizer.device))
            torch.cuda.set_stream(stream)

    def compute(self, pictures: list[_Loaded]) -> list[torch.Tensor]:
        images = [picture.image for picture in pictures]
        return self._colorizer.colorize_all(images, **self._options)

    def write(self, job: Job, picture: _Loaded, result: torch.Tensor) -> None:
        variants = result.reshape(-1, *result.shape[-3:])
        for target, image in zip(job.targets, variants, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, Picture(_to_pixels(image, picture.dtype), picture.alpha))

    def finished(self, job: Job, error: Exception | None) -> None:
        self._finished += 1
        if error is not None:
            self.failed += 1
            if isinstance(error, ImageFileError):
                _say(str(error))
            elif isinstance(error, (OSError, ValueError, RuntimeError, MemoryError)):
                _say(f"{job.source}: {_reason(error)}")
            else:
                raise error
        _show_progress(self._finished, self._total, job.source)


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, C) samples as the (C, H, W) tensor of the same grey values that Colorizer takes."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / 65535
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_pixels(image: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """The reverse of ``_to_tensor``."""
    pixels = image.permute(1, 2, 0).numpy()
    return pixels if dtype == np.uint8 else np.rint(pixels * 65535).astype(dtype)


def _run_colorize(arguments: argparse.Namespace) -> int:
    keep_memory()
    options = _colorize_options(arguments)
    jobs = plan(arguments.paths, arguments.output, arguments.variants, arguments.overwrite)
    colorizer = _open_colorizer(arguments)
    # A damaged file is reported below, once; OpenCV would also describe it at length.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    steps = _Colorizing(colorizer, options, len(jobs))
    pipeline.run(jobs, steps, steps.limits())
    _say(f"{len(jobs) - steps.failed} of {len(jobs)} pictures done, {steps.failed} failed")
    return FAILED if steps.failed else DONE


def _colorize_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``Colorizer.colorize``, checked before any picture is read."""
    options = {
        "n_anchors": arguments.anchors,
        "variants": arguments.variants,
        "seed": arguments.seed,
        "working_size": arguments.working_size,
    }
    try:
        check_settings(mode="full", **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return options


def _open_colorizer(arguments: argparse.Namespace) -> Colorizer:
    """The network that was asked for, announced on standard error."""
    checkpoint = arguments.checkpoint
    try:
        colorizer = Colorizer(checkpoint, arguments.device, arguments.precision)
    except (OSError, ValueError) as error:
        raise UsageError(_reason(error)) from error
    if checkpoint is None:
        weights = "the compact network of the package"
    elif checkpoint == "random":
        weights = "random weights: the colours mean nothing"
    else:
        weights = checkpoint
    _say(f"device {colorizer.device}, precision {colorizer.precision}, {weights}")
    return colorizer


def _run_info(arguments: argparse.Namespace) -> int:
    for name, fact in _facts():
        print(f"{name:14} {fact}")
    return DONE


def _facts() -> Iterator[tuple[str, str]]:
    yield "disco_fast", __version__
    yield "python", platform.python_version()
    yield "torch", str(torch.__version__)
    yield "numpy", np.__version__
    yield "opencv", cv2.__version__
    yield "processor", f"{_processor()}, {torch.get_num_threads()} threads"
    yield "gpu", ", ".join(_gpus()) or "none that torch can use"
    for half in _library.halves():
        yield f"{half.name} kernels", f"{'active' if half.active else 'not active'}: {half.why}"
    for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        meaning = precision.resolve("auto", torch.device(kind))
        yield f"{kind} precision", f"auto means {meaning}"
    yield "launches", _launches()
    yield "downloads", str(cache_folder())


def _launches() -> str:
    """How a picture's steps reach the device, found out by a small one that comes twice."""
    try:
        colorizer = Colorizer()
        for _ in range(2):
            colorizer.colorize(torch.zeros(1, 32, 32), working_size=32)
    except (RuntimeError, OSError) as error:
        return f"fail: {_reason(error)}"
    return colorizer.launching


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):  # no Linux, or a processor that Linux does not name there
        return platform.processor() or platform.machine()


def _gpus() -> Iterator[str]:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        major, minor = torch.cuda.get_device_capability(index)
        yield f"{torch.cuda.get_device_name(index)} (compute capability {major}.{minor})"


def _run_convert(arguments: argparse.Namespace) -> int:
    source, target = arguments.source, arguments.target
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file")
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: the name of a converted checkpoint ends in .safetensors")
    if target.exists() and not arguments.overwrite:
        raise UsageError(f"{target} exists; choose another name, or add --overwrite")
    save_checkpoint(load_checkpoint(source), target)
    _say(f"{target} is written")
    return DONE


def _run_download(arguments: argparse.Namespace) -> int:
    path = download(arguments.name, arguments.folder, arguments.sha256)
    _say(f"SHA-256 {file_sha256(path)}")
    _say(f"use it by: disco-fast colorize --checkpoint {path} ...")
    print(path)
    return DONE


def _show_progress(done: int, total: int, source: Path) -> None:
    """Announce a finished picture: in a bar on a terminal, in a line of its own elsewhere."""
    if sys.stderr.isatty():
        bar = f"[{'=' * (30 * done // total):30}] {done}/{total} {source}"
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r{bar[:columns]:{columns}}", end="", file=sys.stderr, flush=True)
    else:
        print(f"[{done}/{total}] {source}", file=sys.stderr, flush=True)


def _say(message: str) -> None:
    """Print a line on standard error, over the progress bar if that is there."""
    if sys.stderr.isatty():
        print(f"\r{'':{shutil.get_terminal_size().columns - 1}}\r", end="", file=sys.stderr)
    print(f"disco-fast: {message}", file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not 64 hexadecimal digits")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="disco-fast",
        description="Colorize grey photographs with the DISCO network.",
        epilog="Exit status: 0 all done, 1 some of it failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"disco_fast {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose, add_arguments, run in (
        ("colorize", "colorize pictures", _colorize_arguments, _run_colorize),
        ("info", "show what is installed, and which kernels run and why", None, _run_info),
        ("convert", "convert a checkpoint to safetensors", _convert_arguments, _run_convert),
        ("download", "fetch an official checkpoint", _download_arguments, _run_download),
        ("train", "train a network", train.add_arguments, train.run),
        ("evaluate", "measure the quality of colours", evaluate.add_arguments, evaluate.run),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose.capitalize() + ".")
        command.set_defaults(run=run)
        if add_arguments:
            add_arguments(command)
    return parser


def _colorize_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="a picture file, or a folder of them")
    add(
        *("-o", "--output"),
        required=True,
        type=Path,
        metavar="OUT",
        help="the file to write, if PATH is one file and this has a suffix of pictures "
        f"({' '.join(SUFFIXES)}); otherwise the folder to write to",
    )
    add("--overwrite", action="store_true", help="replace files that exist")
    add(
        "--checkpoint",
        metavar="FILE",
        help="the weights to use, or 'random' for fixed random ones, to try and to time; "
        "default: the compact network that comes with the package",
    )
    add(
        "--anchors",
        type=_positive,
        default=8,
        metavar="N",
        help="how many places of a picture get their colour first, and guide the others; default 8",
    )
    add(
        "--variants",
        type=int,
        choices=(1, 2, 3),
        default=1,
        help="how many colourings of a picture to write, as NAME-1, NAME-2, ...; default 1",
    )
    add("--seed", type=int, default=0, help="another seed gives other colours; default 0")
    add("--device", help="cpu, cuda, cuda:1, ...; default: cuda if there is one")
    add(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="the arithmetic of the network; default auto, see 'disco-fast info'",
    )
    add(
        "--working-size",
        type=_positive,
        default=256,
        metavar="PIXELS",
        help="the side of the square that colours are decided on; default 256",
    )


def _convert_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("source", type=Path, metavar="SOURCE", help="the checkpoint to read, of any kind")
    add("target", type=Path, metavar="TARGET", help="the .safetensors file to write")
    add("--overwrite", action="store_true", help="replace TARGET if it exists")


def _download_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "name",
        nargs="?",
        choices=tuple(OFFICIAL),
        default="disco",
        help="default disco, the recommended one; disco-c0.2 gives less saturated colours, "
        "disco-rand bears any placing of the anchors",
    )
    add("--folder", type=Path, metavar="DIR", help="where to put it; default: see info")
    add("--sha256", type=_sha256, metavar="HEX", help="refuse a file of another SHA-256")


if __name__ == "__main__":
    sys.exit(main())
