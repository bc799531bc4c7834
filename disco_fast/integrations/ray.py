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
from typing import Any

import numpy as np
import torch

from ..colorizer import Colorizer, check_settings
from ..image_files import ImageFileError, Picture, decode_image, encode_image, to_pixels, to_tensor


class Colorize:
    """For `Dataset.map_batches`: a network in each actor, and a batch's pictures in colour.

    Pictures are (H, W), (H, W, 1) or (H, W, 3) arrays, uint8 0-255 or floating 0-1, of any sizes.
    What comes out depends on nothing but the picture and the settings: a batch that an actor loses
    can be computed again by another.

    Args:
        column: of the pictures.
        result: the column that gets RGB of the same size and type; the other columns stay.
        checkpoint: as for `Colorizer`, like the next two.
        device: see there.
        precision: see there.
        settings: of `Colorizer.colorize_all`.

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
        **settings: Any,
    ):
        self._column, self._result, self._settings = column, result, settings
        self._colorizer = Colorizer(checkpoint, device, precision)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The batch with its pictures in colour.

        Raises:
            KeyError: it has no such column.
            TypeError, ValueError: one of its pictures is none.
        """
        if self._column not in batch:
            raise KeyError(f"column: expected one of {', '.join(batch)}, got {self._column!r}")
        images = [_tensor(np.asarray(picture)) for picture in batch[self._column]]
        colored = self._colorizer.colorize_all(images, **self._settings)
        return {
            **batch,
            self._result: _column([image.permute(1, 2, 0).numpy() for image in colored]),
        }


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _column(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One array of pictures of one size, or an array of arrays."""
    if len({picture.shape for picture in pictures}) == 1:
        return np.stack(pictures)
    column = np.empty(len(pictures), dtype=object)
    column[:] = pictures
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
    **settings: Any,
) -> Any:
    """A Ray Serve application: a picture file is posted, a PNG in colour comes back.

    Requests that come within `batch_wait_timeout_s` are computed together. What is no picture is
    answered with status 400 and a sentence, what is larger than `largest_upload` with 413. A
    request whose replica dies fails, and may be sent again: nothing is kept.

    Args:
        checkpoint: as for `Colorizer`, like the next two.
        device: see there.
        precision: see there.
        num_replicas: networks.
        ray_actor_options: of each, for instance `{"num_gpus": 0.25}`.
        max_batch_size: pictures computed together.
        batch_wait_timeout_s: seconds that a picture waits for others.
        largest_upload: bytes.
        settings: of `Colorizer.colorize_all`; one variant.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import Response

    known = {"n_anchors": 8, "variants": 1, "seed": 0, "working_size": 256, "mode": "full"}
    check_settings(**{**known, **settings})
    if settings.get("variants", 1) != 1:
        raise ValueError(f"variants: expected 1, got {settings['variants']}")

    @serve.deployment(num_replicas=num_replicas, ray_actor_options=dict(ray_actor_options or {}))
    class ColorizeService:
        def __init__(self) -> None:
            self._colorizer = Colorizer(checkpoint, device, precision)

        @serve.batch(max_batch_size=max_batch_size, batch_wait_timeout_s=batch_wait_timeout_s)
        async def colorize(self, pictures: list[Picture]) -> list[bytes | Exception]:
            images = [to_tensor(picture.pixels) for picture in pictures]
            colored = self._colorizer.colorize_all(images, **settings)
            pairs = zip(pictures, colored, strict=True)
            return [
                encode_image(Picture(to_pixels(rgb, p.pixels.dtype), p.alpha), ".png")
                for p, rgb in pairs
            ]

        async def __call__(self, request: Request) -> Response:
            data = await request.body()
            if len(data) > largest_upload:
                return Response(f"a picture of at most {largest_upload} bytes, please", 413)
            try:
                picture = decode_image(data)
            except ImageFileError as error:
                return Response(str(error), 400)
            return Response(await self.colorize(picture), media_type="image/png")

    return ColorizeService.bind()  # type: ignore[attr-defined]
