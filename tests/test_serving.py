"""The service by Ray Serve: what it answers, and that nobody stops it for the others."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import struct
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from disco_fast import Colorizer, colorize
from disco_fast.integrations.batches import colorized_or_why_not
from disco_fast.io.images import Picture, encode_image

PORT = 18425
LARGEST = 50_000  # bytes
SECONDS = 3.0  # for an upload
SETTINGS = {"working_size": 64, "precision": "fp32"}


def picture(seed: int) -> np.ndarray:
    """Soft shapes, (H, W, 1) uint8."""
    y, x = np.mgrid[:32, :48] / 7
    return np.rint(127 + 110 * np.sin(x + seed) * np.cos(y)).astype(np.uint8)[..., None]


def alone(pixels: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return colorize(image, **SETTINGS).permute(1, 2, 0).numpy()


def file(seed: int) -> bytes:
    return encode_image(Picture(picture(seed)), ".png")


def post(data: bytes) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", data, timeout=60) as answer:
        return answer.read()


def is_answered(seed: int) -> bool:
    decoded = cv2.imdecode(np.frombuffer(post(file(seed)), np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.array_equal(decoded, alone(picture(seed)))


def refusal(data: bytes) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(data)
    return refused.value.code, refused.value.read().decode()


def png(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and holds a few bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def begun(length: int) -> socket.socket:
    """A connection on which so many bytes are promised, and four sent."""
    client = socket.create_connection(("127.0.0.1", PORT), timeout=30)
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\naaaa" % length)
    return client


@pytest.fixture(scope="module")
def served(ray: Any) -> Iterator[None]:
    from ray import serve

    from disco_fast.integrations.ray import service

    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(
        service(
            num_replicas=2,
            ray_actor_options={"num_cpus": 0.5},
            largest_upload=LARGEST,
            max_megapixels=1,
            upload_timeout_s=SECONDS,
            **SETTINGS,
        )
    )
    yield
    serve.shutdown()


@pytest.mark.usefixtures("served")
def test_what_is_no_picture_is_answered_with_a_sentence() -> None:
    for data, status, sentence in (
        (b"no picture", 400, "not a JPEG, PNG, TIFF or WebP picture"),
        (b"", 400, "the file is empty"),
        (file(0)[:-20], 400, "damaged"),
        (png(30_000, 30_000), 400, "30000 x 30000 pixels are 900 megapixels; at most 1 are read"),
        (b"GIF89a" + struct.pack("<HH", 30_000, 30_000) + bytes(40), 400, "not a JPEG"),
        (b"x" * (LARGEST + 1), 413, f"at most {LARGEST} bytes"),
    ):
        code, words = refusal(data)
        assert (code, sentence in words) == (status, True), words
    assert is_answered(0)


@pytest.mark.usefixtures("served")
def test_only_what_is_posted_is_colored() -> None:
    for method in ("GET", "PUT", "DELETE"):
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/", file(0), method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert (refused.value.code, refused.value.headers["allow"]) == (405, "POST")
        assert refused.value.read() == b"post a picture file, please"
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/-/healthz", timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.usefixtures("served")
def test_a_body_without_an_end_is_cut() -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100 * LARGEST:
            sent += 10_000
            yield bytes(10_000)

    client = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        client.request("POST", "/", endless(), encode_chunked=True)
        assert client.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):  # hung up before all was sent
        pass
    finally:
        client.close()
    assert is_answered(1)


@pytest.mark.usefixtures("served")
def test_slow_clients_stop_nobody_and_are_told() -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(begun(10_000)) for _ in range(40)]
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(is_answered, range(8)))
        for client in slow:
            assert b" 408 " in client.recv(1000)
    for _ in range(20):
        begun(10_000).close()  # they hang up
    assert is_answered(2)


@pytest.mark.usefixtures("served")
def test_bad_pictures_fail_alone() -> None:
    bad = [png(100, 100), b"no picture", file(0)[:50]]
    with ThreadPoolExecutor(12) as threads:
        good = [threads.submit(is_answered, seed) for seed in range(8)]
        others = [threads.submit(refusal, data) for data in bad]
        assert all(answer.result() for answer in good)
        assert all(answer.result()[0] == 400 for answer in others)


def is_below(process: Path) -> bool:
    """Whether it belongs to this process, and not to a test beside this one."""
    number = int(process.name)
    while number not in (0, os.getpid()):
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    return number != 0


def replicas() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
            if b"ServeReplica:default:Networks" in name and is_below(process):
                found.append(int(process.name))
        except OSError:  # gone meanwhile
            pass
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes as on Linux")
@pytest.mark.usefixtures("served")
def test_a_service_that_loses_a_replica_answers_all() -> None:
    """Nobody has to ask twice: the service itself does."""
    begin = threading.Barrier(6, timeout=60)
    running = replicas()
    assert len(running) >= 2

    def ask(first: int) -> bool:
        begin.wait()
        return all(is_answered(seed) for seed in range(first, 30, 5))

    with ThreadPoolExecutor(5) as threads:
        answers = [threads.submit(ask, first) for first in range(5)]
        begin.wait()
        os.kill(running[0], signal.SIGKILL)
        assert all(answer.result() for answer in answers)


# ---- what the service is made of, without Ray's processes ---------------------------------------


def test_one_bad_picture_of_a_batch_fails_alone() -> None:
    images = [torch.from_numpy(picture(seed)).permute(2, 0, 1) / 255 for seed in range(3)]
    images[1] = images[1] * float("nan")
    first, bad, last = colorized_or_why_not(
        Colorizer(device="cpu", precision="fp32"), images, {"working_size": 64}
    )
    assert isinstance(bad, ValueError)
    assert torch.equal(first, colorize(images[0], **SETTINGS))
    assert torch.equal(last, colorize(images[2], **SETTINGS))


def test_room_is_given_in_turn() -> None:
    pytest.importorskip("ray")
    from disco_fast.integrations.serving import Room

    room, inside, order = Room(10), 0, []

    async def enter(number: int, pixels: int) -> None:
        nonlocal inside
        async with room.of(pixels):
            order.append(number)
            inside += pixels
            assert inside <= 10 or inside == pixels
            await asyncio.sleep(0.001)
            inside -= pixels

    async def all_of_them() -> None:
        sizes = (4, 4, 4, 100, 1, 9, 10, 1)
        await asyncio.gather(*(enter(number, size) for number, size in enumerate(sizes)))

    asyncio.run(all_of_them())
    assert order == list(range(8))
