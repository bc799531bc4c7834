"""``disco-fast colorize`` and ``disco-fast anchors``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

from ..anchors import from_json
from ..colorizer import Colorizer
from ..console import DONE, FAILED, UsageError, reason, say
from ..engine.memory import keep_memory
from ..io import pipeline
from ..io.atomic import remove_stale, whole_file
from ..io.bounds import MEGAPIXELS
from ..io.images import SUFFIXES, read_image, to_tensor
from ..options import MOST_VARIANTS, ColorizeOptions
from .coloring import ByAnchors, ByNetwork, ByReference, Coloring
from .failures import Failures
from .options import add_network_options, add_picture_options, open_colorizer
from .plan import STREAM, Job, folder_of, plan
from .steps import Colorizing, Writing

_FORMATS = ("jpg", "png", "tif", "webp", "avif")
_NAMED_AT_MOST = 20  # of what is left out; the list of failures has all


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast colorize``."""
    add = command.add_argument
    add(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a picture file, a folder of them, or - for standard input",
    )
    add(
        *("-o", "--output"),
        required=True,
        type=Path,
        metavar="OUT",
        help="the file to write, if PATH is one file and this has a suffix of pictures "
        f"({' '.join(SUFFIXES)}); otherwise the folder to write to; - for standard output",
    )
    add(
        "--format",
        choices=_FORMATS,
        help="of what is written to a folder or to standard output; default: that of the input,"
        " or png where it is none of these",
    )
    add(
        "--quality",
        type=_percent,
        metavar="Q",
        help="of JPEG, WebP and AVIF, 1 to 100; default 95, of AVIF 85",
    )
    add(
        "--no-mark",
        action="store_true",
        help="do not say in the metadata that the colors were made by an algorithm, and by which",
    )
    add(
        "--max-megapixels",
        type=_megapixels,
        default=MEGAPIXELS,
        metavar="N",
        help="refuse pictures that are larger, all pages of a file together; default %(default)g",
    )
    existing = command.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace files that exist")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="write only files that do not exist: go on where another run was stopped, or failed",
    )
    add_network_options(command)
    add(
        "--anchors",
        default="8",
        metavar="N|auto|FILE",
        help="how many places of a picture get their color first, and guide the others; 'auto': as"
        " many as each picture needs; FILE.json: these, see 'disco-fast anchors'; default 8",
    )
    add(
        "--reference",
        type=Path,
        metavar="PHOTO",
        help="a photograph of something like it, whose colors the anchors get",
    )
    add(
        "--variants",
        type=int,
        default=1,
        metavar="N",
        help=f"how many colorings of a picture to write, as NAME-1, NAME-2, ..., up to"
        f" {MOST_VARIANTS}; default 1",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        help="of variants beyond the third, which are drawn: below 1 nearer to the probable"
        " colors, above 1 farther from them; default 1",
    )
    add_picture_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Colorize; 0 all done, 1 some failed.

    Raises:
        UsageError: nothing was begun.
    """
    keep_memory()
    options, text = _options(arguments)
    left_out: list[tuple[Path, str]] = []
    jobs = _plan(arguments, options.variants, left_out)
    skipped = sum(not job.targets for job in jobs)
    jobs = [job for job in jobs if job.targets]
    if skipped:
        say(f"{skipped} pictures are done already")
    colorizer = open_colorizer(arguments)
    coloring = _coloring(arguments, colorizer, options, text)
    for folder in {target.parent for job in jobs for target in job.targets}:
        remove_stale(folder)
    folder_out = folder_of(arguments.paths, arguments.output)
    failures = Failures(folder_out) if folder_out else None
    steps = Colorizing(colorizer, coloring, options, len(jobs), failures, _writing(arguments))
    pipeline.run(jobs, steps, steps.limits())
    for path, why in left_out:
        if failures:
            failures.add(path, why)
    for path, why in left_out[:_NAMED_AT_MOST]:
        say(f"left out: {path}: {why}")
    also = f", {len(left_out)} left out" if left_out else ""
    say(f"{len(jobs) - steps.failed} of {len(jobs)} pictures done, {steps.failed} failed{also}")
    if failures and (steps.failed or left_out):
        say(f"which, and why: {failures.path}")
    return FAILED if steps.failed or left_out else DONE


def _plan(
    arguments: argparse.Namespace, variants: int, left_out: list[tuple[Path, str]]
) -> list[Job]:
    out, suffix = arguments.output, arguments.format and f".{arguments.format}"
    if suffix and out != STREAM and folder_of(arguments.paths, out) is None:
        raise UsageError(f"--format: expected none with a file to write, whose name has it: {out}")
    try:
        return plan(
            arguments.paths,
            out,
            variants,
            arguments.overwrite,
            arguments.skip_existing,
            suffix,
            lambda path, why: left_out.append((path, why)),
        )
    except UsageError as error:
        also = "".join(f"; left out: {path} ({why})" for path, why in left_out[:_NAMED_AT_MOST])
        raise UsageError(f"{error}{also}") from error


def _writing(arguments: argparse.Namespace) -> Writing:
    return Writing(
        arguments.format and f".{arguments.format}",
        arguments.quality,
        not arguments.no_mark,
        arguments.overwrite,
        arguments.max_megapixels,
    )


def _percent(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"expected 1..100, got {number}")
    return number


def _megapixels(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return number


def _options(arguments: argparse.Namespace) -> tuple[ColorizeOptions, str | None]:
    """How to colorize, and the text of the anchors if there is one."""
    text, n_anchors = None, arguments.anchors
    if n_anchors != "auto":
        try:
            n_anchors = int(n_anchors)
        except ValueError:
            text, n_anchors = _anchors_text(Path(n_anchors)), 1
    try:
        options = ColorizeOptions(
            n_anchors=n_anchors,
            variants=arguments.variants,
            temperature=arguments.temperature,
            seed=arguments.seed,
            working_size=arguments.working_size,
            vividness=arguments.vividness,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.variants > 1 and (text or arguments.reference):
        name = "anchors of a file" if text else "a reference"
        raise UsageError(f"--variants: expected 1 with {name}, got {arguments.variants}")
    if text and arguments.reference:
        raise UsageError("--reference: expected none with anchors of a file, which have colors")
    return options, text


def _anchors_text(path: Path) -> str:
    try:
        text = path.read_text()
        from_json(text, 1, 1)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--anchors: expected a number, 'auto' or a file of anchors, got {path} "
            f"({reason(error)})"
        ) from None
    return text


def _coloring(
    arguments: argparse.Namespace, colorizer: Colorizer, options: ColorizeOptions, text: str | None
) -> Coloring:
    if text is not None:
        return ByAnchors(colorizer, options, text)
    if arguments.reference is None:
        return ByNetwork(colorizer, options)
    try:
        pixels = read_image(arguments.reference, arguments.max_megapixels).pixels
        return ByReference(colorizer, options, to_tensor(pixels))
    except (OSError, ValueError) as error:
        raise UsageError(f"--reference: {reason(error)}") from error


def add_anchors_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast anchors``."""
    add = command.add_argument
    add("picture", type=Path, metavar="PICTURE", help="a picture file")
    add(
        *("-o", "--output"),
        type=Path,
        metavar="FILE",
        help="the .json file to write; default: standard output",
    )
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    add("--anchors", default="8", metavar="N|auto", help="how many; default 8")
    add_network_options(command)
    add_picture_options(command)


def run_anchors(arguments: argparse.Namespace) -> int:
    """Write the anchors that the network would use, to be edited and given to ``colorize``.

    Raises:
        UsageError, OSError, ValueError: nothing was written.
    """
    target = arguments.output
    if target is not None and target.exists() and not arguments.overwrite:
        raise UsageError(f"{target} exists; choose another name, or add --overwrite")
    try:
        options = ColorizeOptions(
            n_anchors="auto" if arguments.anchors == "auto" else int(arguments.anchors),
            seed=arguments.seed,
            working_size=arguments.working_size,
            vividness=arguments.vividness,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    image = to_tensor(read_image(arguments.picture).pixels)
    text = open_colorizer(arguments).analyze(image, **asdict(options)).to_json()
    if target is None:
        print(text, end="")
    else:
        remove_stale(target.parent)
        with whole_file(target, replace=arguments.overwrite) as partial:
            partial.write_text(text)
        say(f"{target} is written")
    return DONE
