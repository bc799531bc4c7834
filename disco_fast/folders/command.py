"""``disco-fast colorize`` and ``disco-fast anchors``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2

from .. import pipeline
from ..anchors import from_json
from ..colorizer import MOST_VARIANTS, Colorizer, check_settings
from ..console import DONE, FAILED, UsageError, reason, say
from ..files import remove_stale, whole_file
from ..image_files import SUFFIXES, read_image, to_tensor
from ..memory import keep_memory
from ..options import add_network_options, add_picture_options, open_colorizer
from .coloring import ByAnchors, ByNetwork, ByReference, Coloring
from .failures import Failures
from .plan import folder_of, plan
from .steps import Colorizing


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast colorize``."""
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
        help="how many places of a picture get their colour first, and guide the others; 'auto': as"
        " many as each picture needs; FILE.json: these, see 'disco-fast anchors'; default 8",
    )
    add(
        "--reference",
        type=Path,
        metavar="PHOTO",
        help="a photograph of something like it, whose colours the anchors get",
    )
    add(
        "--variants",
        type=int,
        default=1,
        metavar="N",
        help=f"how many colourings of a picture to write, as NAME-1, NAME-2, ..., up to"
        f" {MOST_VARIANTS}; default 1",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        help="of variants beyond the third, which are drawn: below 1 nearer to the probable"
        " colours, above 1 farther from them; default 1",
    )
    add_picture_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Colorize; 0 all done, 1 some failed.

    Raises:
        UsageError: nothing was begun.
    """
    keep_memory()
    options, text = _options(arguments)
    jobs = plan(
        arguments.paths, arguments.output, options["variants"], arguments.overwrite,
        arguments.skip_existing,
    )  # fmt: skip
    skipped = sum(not job.targets for job in jobs)
    jobs = [job for job in jobs if job.targets]
    if skipped:
        say(f"{skipped} pictures are done already")
    colorizer = open_colorizer(arguments)
    coloring = _coloring(arguments, colorizer, options, text)
    for folder in {target.parent for job in jobs for target in job.targets}:
        remove_stale(folder)
    # A damaged file is reported below, once; OpenCV would also describe it at length.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    folder_out = folder_of(arguments.paths, arguments.output)
    failures = Failures(folder_out) if folder_out else None
    steps = Colorizing(colorizer, coloring, options, len(jobs), failures)
    pipeline.run(jobs, steps, steps.limits())
    say(f"{len(jobs) - steps.failed} of {len(jobs)} pictures done, {steps.failed} failed")
    if steps.failed and failures:
        say(f"which, and why: {failures.path}")
    return FAILED if steps.failed else DONE


def _options(arguments: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """Keyword arguments of ``Colorizer.colorize``, and the text of the anchors if there is one."""
    text, n_anchors = None, arguments.anchors
    if n_anchors != "auto":
        try:
            n_anchors = int(n_anchors)
        except ValueError:
            text, n_anchors = _anchors_text(Path(n_anchors)), 1
    options = {
        "n_anchors": n_anchors,
        "variants": arguments.variants,
        "temperature": arguments.temperature,
        "seed": arguments.seed,
        "working_size": arguments.working_size,
        "vividness": arguments.vividness,
    }
    try:
        check_settings(mode="full", **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.variants > 1 and (text or arguments.reference):
        name = "anchors of a file" if text else "a reference"
        raise UsageError(f"--variants: expected 1 with {name}, got {arguments.variants}")
    if text and arguments.reference:
        raise UsageError("--reference: expected none with anchors of a file, which have colours")
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
    arguments: argparse.Namespace, colorizer: Colorizer, options: dict[str, Any], text: str | None
) -> Coloring:
    if text is not None:
        return ByAnchors(colorizer, options, text)
    if arguments.reference is None:
        return ByNetwork(colorizer, options)
    try:
        pixels = read_image(arguments.reference).pixels
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
    names = ("seed", "working_size", "vividness")
    options = {name: getattr(arguments, name) for name in names}
    try:
        count = "auto" if arguments.anchors == "auto" else int(arguments.anchors)
        check_settings(n_anchors=count, variants=1, mode="full", **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    image = to_tensor(read_image(arguments.picture).pixels)
    text = open_colorizer(arguments).analyze(image, n_anchors=count, **options).to_json()
    if target is None:
        print(text, end="")
    else:
        with whole_file(target) as partial:
            partial.write_text(text)
        say(f"{target} is written")
    return DONE
