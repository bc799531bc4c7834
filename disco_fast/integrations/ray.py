"""Many pictures on many machines by Ray Data, and as a service by Ray Serve.

from disco_fast.integrations.ray import Colorize
colored = ray.data.read_images("photographs/").map_batches(
Colorize, concurrency=4, num_gpus=0.25, batch_size=16
)

from disco_fast.integrations.ray import service
serve.run(service(num_replicas=2))  # POST a picture file, get a PNG
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..colorizer import Colorizer
from ..console import reason
from ..io import bounds
from ..io.images import Picture, decode_image, to_pixels, to_tensor
from ..io.uploads import MEGAPIXELS
from ..options import ColorizeOptions, Settings
from .batches import colorized_or_why_not

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NO_PICTURE = np.zeros((0, 0, 3), np.uint8)


class Colorize:
    """For `Dataset.map_batches`: a network in each actor, and a batch's pictures in color.

    Pictures are arrays (H, W) or (H, W, C), C from 1 to 4: gray or RGB, of 2 and 4 channels the
    last is alpha; uint8 0-255, uint16 0-65535, floating 0-1 or bool, of any sizes and modes in one
    batch. Or they are the bytes of files, as from `ray.data.read_binary_files`. What comes out
    depends on nothing but the picture and the settings: a batch that an actor loses can be computed
    again by another.

    Args:
        column: of the pictures.
        result: the column that gets RGB, with alpha RGBA, of the same size and type (of bool:
            uint8); the other columns stay.
        checkpoint: as for `Colorizer`.
        device: as for `Colorizer`.
        precision: as for `Colorizer`.
        error: the column that says what is wrong with a picture, "" where nothing is. The result
            of such a picture has no pixels: (0, 0, 3).
        max_megapixels: of a picture in the bytes of a file, 10^6; looked up in its head before it
            is decoded.
        settings: `ColorizeOptions` by name; one variant.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    def __init__(
        self,
        column: str = "image",
        result: str = "colorized",
        checkpoint: str | Path | None = None,
        device: str | None = None,
        precision: str = "auto",
        error: str = "error",
        max_megapixels: float = bounds.MEGAPIXELS,
        **settings: Unpack[Settings],
    ):
        ColorizeOptions(**settings).only("in Ray", variants=1)
        if not max_megapixels > 0:
            raise ValueError(f"max_megapixels: expected more than 0, got {max_megapixels}")
        self._megapixels = max_megapixels
        self._column, self._result, self._error = column, result, error
        self._settings = settings
        self._colorizer = Colorizer(checkpoint, device, precision)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its pictures in color.

        Raises:
            KeyError: it has no such column.
        """
        if self._column not in batch:
            raise KeyError(f"column: expected one of {', '.join(batch)}, got {self._column!r}")
        values = batch[self._column]
        pictures: dict[int, Picture] = {}
        results, errors = [_NO_PICTURE] * len(values), [""] * len(values)
        for row, value in enumerate(values):
            try:
                pictures[row] = _picture(value, self._megapixels)
            except Exception as error:  # whatever somebody's data holds, the job goes on
                errors[row] = reason(error)
        images = [to_tensor(picture.pixels) for picture in pictures.values()]
        colored = colorized_or_why_not(self._colorizer, images, self._settings)
        for (row, picture), rgb in zip(pictures.items(), colored, strict=True):
            if isinstance(rgb, Exception):
                errors[row] = reason(rgb).removeprefix("images[0]: ")
            else:
                results[row] = _with_alpha(to_pixels(rgb, picture.pixels.dtype), picture.alpha)
        return {**batch, self._result: _column(results), self._error: np.array(errors, object)}


def _picture(value: Any, megapixels: float) -> Picture:
    """What a row holds, as something that `to_tensor` takes."""
    if isinstance(value, bytes):
        return decode_image(value, megapixels)
    pixels = np.asarray(value)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype.kind not in "ufb" or pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise ValueError(
            "expected the bytes of a file, or an array (H, W) or (H, W, 1 to 4) of uint8, uint16,"
            f" floating numbers or bool, got {_kind(value)}"
        )
    if pixels.dtype == bool:
        pixels = np.where(pixels, np.uint8(255), np.uint8(0))
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    if pixels.shape[2] % 2:
        return Picture(pixels)
    return Picture(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1])


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__


def _with_alpha(rgb: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    return rgb if alpha is None else np.concatenate([rgb, alpha[..., None]], axis=2)


def _column(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One array of pictures of one size and type, or an array of arrays."""
    if len({(picture.shape, picture.dtype) for picture in pictures}) == 1:
        return np.stack(pictures)
    column = np.empty(len(pictures), dtype=object)
    for row, picture in enumerate(pictures):
        column[row] = picture
    return column


def service(
    checkpoint: str | Path | None = None,
    device: str | None = None,
    precision: str = "auto",
    num_replicas: int = 1,
    ray_actor_options: Mapping[str, Any] | None = None,
    max_batch_size: int = 16,
    batch_wait_timeout_s: float = 0.02,
    largest_upload: int = 32 * 2**20,
    max_megapixels: float = MEGAPIXELS,
    upload_timeout_s: float = 60.0,
    **settings: Unpack[Settings],
) -> Any:
    """A Ray Serve application: a picture file is posted, a PNG in color comes back.

    Requests that come within `batch_wait_timeout_s` are computed together; one bad picture fails
    alone. What is refused is answered with a sentence: status 400 for what is no picture or has too
    many pixels, 405 for anything but POST, 413 for too many bytes, 408 for a body that takes too
    long, 503 where too many pictures wait, 507 where memory runs out. `GET /-/healthz` is Ray
    Serve's own: 200 as long as it serves. A request whose replica dies is given to another one,
    once. Bodies are taken in by a deployment of its own, so that slow clients keep no network
    waiting.

    Args:
        checkpoint: as for `Colorizer`.
        device: as for `Colorizer`.
        precision: as for `Colorizer`.
        num_replicas: networks.
        ray_actor_options: of each, for instance `{"num_gpus": 0.25}`.
        max_batch_size: pictures computed together.
        batch_wait_timeout_s: seconds that a picture waits for others.
        largest_upload: bytes; counted while they come.
        max_megapixels: of a picture, 10^6; looked up in its head before it is decoded.
        upload_timeout_s: seconds until a body must be whole.
        settings: `ColorizeOptions` by name; one variant.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    ColorizeOptions(**settings).only("in Ray", variants=1)
    bounds = {
        "max_batch_size": max_batch_size,
        "largest_upload": largest_upload,
        "max_megapixels": max_megapixels,
        "upload_timeout_s": upload_timeout_s,
    }
    for name, bound in bounds.items():
        if not bound > 0:
            raise ValueError(f"{name}: expected more than 0, got {bound}")
    from .serving import Limits, Scale, application

    return application(
        (checkpoint, device, precision),
        settings,
        Scale(num_replicas, dict(ray_actor_options or {}), max_batch_size, batch_wait_timeout_s),
        Limits(largest_upload, max_megapixels, upload_timeout_s),
    )
