"""Pictures that strangers send: few kinds, whose size is judged before they are decoded."""

from __future__ import annotations

from .bounds import TooLargeError
from .decoding import measure
from .images import ImageFileError, Picture, decode_image
from .kinds import kind_of

MEGAPIXELS = 40.0
"""Of a picture that a page or a service takes, by default."""

KINDS = ("JPEG", "PNG", "TIFF", "WebP")
"""What they take: each has one decoder, which is tried on damaged files."""


def decode_upload(data: bytes, max_megapixels: float = MEGAPIXELS) -> Picture:
    """The picture in the bytes of a file; see `images.decode_image`.

    Raises:
        ImageFileError: it is too large, of another kind, or cannot be decoded.
    """
    pixels(data, max_megapixels)
    return decode_image(data, max_megapixels)


def pixels(data: bytes, max_megapixels: float = MEGAPIXELS) -> int:
    """How many pixels a file's header says that it has.

    Raises:
        ImageFileError: more than `max_megapixels`, or the header does not say it.
    """
    if not data:
        raise ImageFileError("the file is empty")
    kind = kind_of(data)
    if kind not in KINDS:
        raise ImageFileError("not a JPEG, PNG, TIFF or WebP picture, or damaged")
    try:
        return measure(data, kind, max_megapixels)
    except TooLargeError as error:
        raise ImageFileError(str(error)) from error
