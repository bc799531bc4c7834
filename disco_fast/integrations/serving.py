"""The two halves of the Ray Serve application: an entrance for bytes, and networks behind it.

A slow or hostile client keeps a place in the entrance, which has many, and never a network.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from torch import Tensor

from ..colorizer import Colorizer
from ..io.images import ImageFileError, Picture, encode_image, to_pixels, to_tensor
from ..io.pipeline import Limits as PipelineLimits
from ..io.uploads import decode_upload, pixels
from .batches import colorized_or_why_not

_log = logging.getLogger("ray.serve")
_GONE = 499  # for the log: nobody reads it
_BODIES = 16  # of the largest size that the entrance holds at a time
_CLIENTS = 2000  # that the entrance serves at a time
_BATCHES = 4  # in a replica: one is computed, others are decoded and encoded meanwhile
_WAITING = 64  # batches that wait for a replica, before requests are refused
Returned = TypeVar("Returned")


class Limits(NamedTuple):
    """What a client may send.

    Attributes:
        bytes: of a body.
        megapixels: of a picture, 10^6.
        seconds: until a body is whole.
    """

    bytes: int
    megapixels: float
    seconds: float


class Scale(NamedTuple):
    """How many networks, where, and how much each does at a time.

    Attributes:
        num_replicas: networks.
        ray_actor_options: of each.
        max_batch_size: pictures computed together.
        batch_wait_timeout_s: seconds that a picture waits for others.
    """

    num_replicas: int
    ray_actor_options: dict[str, Any]
    max_batch_size: int
    batch_wait_timeout_s: float


class Answer(NamedTuple):
    """What the networks make of a file: a status of HTTP, and a PNG or a sentence."""

    status: int
    content: bytes


def application(
    network: tuple[str | Path | None, str | None, str],
    settings: Mapping[str, Any],
    scale: Scale,
    limits: Limits,
) -> Application:
    """The application of `ray.service`.

    Args:
        network: checkpoint, device and precision, as for `Colorizer`.
        settings: of `Colorizer.colorize_all`.
        scale: of the networks.
        limits: of every client.
    """
    networks = serve.deployment(
        num_replicas=scale.num_replicas,
        ray_actor_options=scale.ray_actor_options,
        max_ongoing_requests=_BATCHES * scale.max_batch_size,
        max_queued_requests=_WAITING * scale.max_batch_size,
    )(Networks)
    entrance = serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=_CLIENTS)(
        Entrance
    )
    return entrance.bind(networks.bind(network, settings, scale, limits.megapixels), limits)


class Entrance:
    """Takes bodies in, however slowly they come, and hands whole ones to the networks.

    Args:
        networks: the deployment of `Networks`.
        limits: of every client.
    """

    def __init__(self, networks: DeploymentHandle, limits: Limits):
        self._networks, self._limits, self._held = networks, limits, 0

    async def __call__(self, request: Request) -> Response:
        """The picture that is posted in color, or a sentence with a status of 400 or more."""
        if request.method != "POST":
            return Response("post a picture file, please", 405, {"allow": "POST"}, "text/plain")
        body = bytearray()
        try:
            await asyncio.wait_for(self._read(request, body), self._limits.seconds)
            status, content = await self._colored(bytes(body))
        except _RefusedError as refused:
            status, content = refused.status, str(refused).encode()
        except asyncio.TimeoutError:
            status, content = 408, b"the picture took too long to come"
        except ClientDisconnect:
            status, content = _GONE, b""
        finally:
            self._held -= len(body)
        return Response(content, status, media_type="image/png" if status == 200 else "text/plain")

    async def _read(self, request: Request, body: bytearray) -> None:
        """Add what comes to `body`, as long as that is within the limits."""
        most = self._limits.bytes
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 18 or int(announced) > most:
            raise _RefusedError(413, f"a picture of at most {most} bytes, please")
        async for part in request.stream():
            if len(body) + len(part) > most:
                raise _RefusedError(413, f"a picture of at most {most} bytes, please")
            if self._held + len(part) > _BODIES * most:
                raise _RefusedError(503, "too many pictures at a time: try again later")
            body += part
            self._held += len(part)

    async def _colored(self, data: bytes) -> Answer:
        """What the networks answer; asked once more where the replica that was asked has died."""
        try:
            try:
                return await self._networks.remote(data)
            except RayActorError:
                _log.warning("a network died with a picture: another one gets it")
                return await self._networks.remote(data)
        except BackPressureError:
            raise _RefusedError(503, "too many pictures at a time: try again later") from None
        except RayActorError:
            raise _RefusedError(500, "the networks died with this picture") from None


class Networks:
    """A network, and what surrounds it: decoding and encoding, in threads of their own.

    Args:
        network: checkpoint, device and precision, as for `Colorizer`.
        settings: of `Colorizer.colorize_all`.
        scale: how much is done at a time.
        megapixels: of a picture at most.
    """

    def __init__(
        self,
        network: tuple[str | Path | None, str | None, str],
        settings: Mapping[str, Any],
        scale: Scale,
        megapixels: float,
    ):
        self._colorizer = Colorizer(*network)
        self._settings, self._megapixels = settings, megapixels
        bounds = PipelineLimits(scale.max_batch_size, 1)
        self._files, self._computing = ThreadPoolExecutor(bounds.files), ThreadPoolExecutor(1)
        self._room = Room(bounds.pixels)
        batches: Any = self._color  # what the decorator makes of it
        batches.set_max_batch_size(scale.max_batch_size)
        batches.set_batch_wait_timeout_s(scale.batch_wait_timeout_s)

    async def __call__(self, data: bytes) -> Answer:
        """The picture in a file in color, or what is wrong with it."""
        try:
            async with self._room.of(pixels(data, self._megapixels)):
                picture = await _within(self._files, decode_upload, data, self._megapixels)
                result = await self._color(picture)
                if isinstance(result, Exception):
                    raise result
                return Answer(200, await _within(self._files, _encoded, picture, result))
        except ImageFileError as error:
            return Answer(400, str(error).encode())
        except MemoryError as error:
            return Answer(507, str(error).encode() or b"not enough memory for this picture")
        except Exception:
            _log.exception("a picture cannot be colorized")
            return Answer(500, b"this picture cannot be colorized")

    @serve.batch
    async def _color(self, pictures: list[Picture]) -> list[Tensor | Exception]:
        return await _within(self._computing, self._computed, pictures)

    def _computed(self, pictures: list[Picture]) -> list[Tensor | Exception]:
        images = [to_tensor(picture.pixels) for picture in pictures]
        return colorized_or_why_not(self._colorizer, images, self._settings)


class Room:
    """Pixels that may be in memory at a time: who finds no room waits, the first come first.

    A picture that is larger than the whole room comes in when nobody else is there.

    Args:
        pixels: of the room.
    """

    def __init__(self, pixels: int):
        self._pixels, self._taken = pixels, 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    @asynccontextmanager
    async def of(self, pixels: int) -> AsyncIterator[None]:
        """Room for so many pixels, from when there is some to the end of the context."""
        async with self._turn:
            while self._taken and self._taken + pixels > self._pixels:
                self._freed.clear()
                await self._freed.wait()
            self._taken += pixels
        try:
            yield
        finally:
            self._taken -= pixels
            self._freed.set()


class _RefusedError(Exception):
    """A request is not served; the message is for the client."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


def _encoded(picture: Picture, rgb: Tensor) -> bytes:
    pixels = to_pixels(rgb, picture.pixels.dtype)
    return encode_image(Picture(pixels, picture.alpha, picture.kept.marked()), ".png")


async def _within(threads: Executor, step: Callable[..., Returned], *arguments: Any) -> Returned:
    """A step in a thread, while the event loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(threads, step, *arguments)
