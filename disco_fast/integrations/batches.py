"""A batch in which one bad picture fails alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..colorizer import Colorizer


def colorized_or_why_not(
    colorizer: Colorizer, images: Sequence[Tensor], settings: Mapping[str, Any]
) -> list[Tensor | Exception]:
    """Each picture in color, or the error that it raises.

    A batch that fails is computed again one by one, so that only the culprit fails.

    Args:
        colorizer: the network.
        images: as for `Colorizer.colorize_all`.
        settings: of `Colorizer.colorize_all`.
    """
    try:
        return [*colorizer.colorize_all(images, **settings)]
    except Exception as error:
        if len(images) == 1:
            return [error]
        return [colorized_or_why_not(colorizer, [image], settings)[0] for image in images]
