"""Where the colors of a folder's pictures come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, replace

import torch
from torch import Tensor

from ..analysis import Analysis, GivenAnchor
from ..colorizer import Colorizer
from ..options import ColorizeOptions


class Coloring(ABC):
    """From pictures to their results."""

    @abstractmethod
    def __call__(self, images: list[Tensor]) -> list[Tensor]:
        """Results of the pictures of a batch, as of `Colorizer.colorize_all`."""

    def animation(self, frames: list[Tensor]) -> list[Tensor]:
        """Results of the frames of one animation."""
        return [result for frame in frames for result in self([frame])]


class ByNetwork(Coloring):
    """The network's own anchors and colors.

    Args:
        colorizer: the network.
        options: in mode "full".
    """

    def __init__(self, colorizer: Colorizer, options: ColorizeOptions):
        self._colorizer, self._options = colorizer, options

    def __call__(self, images: list[Tensor]) -> list[Tensor]:
        """See `Colorizer.colorize_all`."""
        return self._colorizer.colorize_all(images, **asdict(self._options))

    def animation(self, frames: list[Tensor]) -> list[Tensor]:
        """One variant follows its anchors from frame to frame, as in a film."""
        options = self._options
        if options.variants > 1:
            return super().animation(frames)
        from ..video.tracking import Tracker

        count = options.n_anchors
        if not isinstance(count, int):
            first = self._colorizer.analyze(frames[0], **asdict(options))
            count = len(first.anchors)
        tracker = Tracker(
            self._colorizer.engine,
            count,
            options.seed,
            options.working_size,
            vividness=options.vividness,
        )
        at_once = tracker.at_once(*frames[0].shape[1:])
        colored: list[Tensor] = []
        for start in range(0, len(frames), at_once):
            colored += tracker.colorize(torch.stack(frames[start : start + at_once]))
        return colored


class _OneByOne(Coloring):
    def __init__(self, colorizer: Colorizer, options: ColorizeOptions):
        self._colorizer, self._options = colorizer, options

    def __call__(self, images: list[Tensor]) -> list[Tensor]:
        """Pictures in the colors of their anchors."""
        analyses = (self._colorizer.analyze(image, **asdict(self._options)) for image in images)
        return [analysis.colorize(self.anchors(analysis)) for analysis in analyses]

    @abstractmethod
    def anchors(self, analysis: Analysis) -> tuple[GivenAnchor, ...]:
        """The anchors of a picture."""


class ByAnchors(_OneByOne):
    """The same anchors for every picture, their places scaled to its size.

    Args:
        colorizer: the network.
        options: as for `ByNetwork`.
        text: of the anchors, see `anchors.from_json`.

    Raises:
        ValueError: the text is none of anchors.
    """

    def __init__(self, colorizer: Colorizer, options: ColorizeOptions, text: str):
        super().__init__(colorizer, replace(options, n_anchors=1))
        self._text = text

    def anchors(self, analysis: Analysis) -> tuple[GivenAnchor, ...]:
        """See `_OneByOne.anchors`."""
        return analysis.from_json(self._text)


class ByReference(_OneByOne):
    """The network's own anchors in the colors of a reference photograph.

    Args:
        colorizer: the network.
        options: as for `ByNetwork`.
        reference: [3,H,W], in color.

    Raises:
        ValueError: the reference has no colors.
    """

    def __init__(self, colorizer: Colorizer, options: ColorizeOptions, reference: Tensor):
        super().__init__(colorizer, options)
        size = options.working_size
        self._reference = colorizer.analyze(reference, n_anchors=1, working_size=size)
        self._reference.anchors_from(self._reference)  # refuses a gray one before any work

    def anchors(self, analysis: Analysis) -> tuple[GivenAnchor, ...]:
        """See `_OneByOne.anchors`."""
        return analysis.anchors_from(self._reference)
