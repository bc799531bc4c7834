"""Requests a second, and how long a request waits, of the Ray Serve service.

    python benchmarks/serving.py --seconds 5  # a quick look
    python benchmarks/serving.py --json benchmarks/results/serving-cpu.json

Every client posts photographs one after the other, the next when the answer is there. Hostile ones
send a head and ten bytes and then nothing, garbage, a body without an end, or hang up.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from harness.clock import context, summary
from harness.inputs import PHOTOGRAPHS
from harness.report import Report, caption, digits, milliseconds, save, table

PORT = 18477
LARGEST = 4 * 2**20  # bytes of an upload
PATIENCE = 60.0  # seconds that a client waits for its answer


class Clients:
    """Clients that ask at the same time, until told to stop.

    Attributes:
        waits: seconds of every honest request that was answered with a picture.
        failed: what came of the other honest ones.
    """

    def __init__(self, honest: int, hostile: int):
        self.waits: list[float] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        files = [path.read_bytes() for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
        manners = itertools.cycle((_slow, _garbage, _endless, _hang_up))
        self._threads = [
            threading.Thread(target=self._ask, args=(files[n % len(files)],)) for n in range(honest)
        ]
        self._threads += [
            threading.Thread(target=self._annoy, args=(next(manners),)) for _ in range(hostile)
        ]

    def run(self, seconds: float) -> float:
        """Ask for so long; the time until the last answer, in seconds."""
        began = time.perf_counter()
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._over.set()
        for thread in self._threads:
            thread.join()
        return time.perf_counter() - began

    def _ask(self, photograph: bytes) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            try:
                status = post(photograph)
            except OSError as error:
                self.failed.append(type(error).__name__)
                continue
            if status == 200:
                self.waits.append(time.perf_counter() - began)
            else:
                self.failed.append(str(status))

    def _annoy(self, manner: Callable[[threading.Event], None]) -> None:
        while not self._over.is_set():
            with suppress(OSError, http.client.HTTPException):
                manner(self._over)
            self._over.wait(0.1)


def post(body: bytes) -> int:
    """The status of the answer to a file."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE)
    try:
        connection.request("POST", "/", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _begin(length: int) -> socket.socket:
    """A connection on which a body of so many bytes is promised, and ten are sent."""
    connection = socket.create_connection(("127.0.0.1", PORT), PATIENCE)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
    connection.sendall(10 * b"a")
    return connection


def _slow(over: threading.Event) -> None:
    with _begin(100_000):
        over.wait(5)


def _garbage(over: threading.Event) -> None:
    post(os.urandom(1000))


def _endless(over: threading.Event) -> None:
    with _begin(2**40) as connection:
        for _ in range(2 * LARGEST // 2**16):
            connection.sendall(2**16 * b"a")


def _hang_up(over: threading.Event) -> None:
    _begin(100_000).close()


def measure(clients: Sequence[int], beside: int, seconds: float) -> Report:
    """Every number of clients alone, and at last half of `beside` of them beside hostile ones."""
    import ray
    from ray import serve

    from disco_fast.integrations.ray import service

    os.chdir(tempfile.gettempdir())  # workers look for modules there: not in the source folder
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(service(largest_upload=LARGEST))
    half = beside // 2
    pairs = [(n, 0) for n in clients] + ([(half, 0), (half, half)] if half else [])
    rows = []
    try:
        Clients(4, 0).run(3)  # warm up
        for honest, hostile in pairs:
            asking = Clients(honest, hostile)
            took = asking.run(seconds)
            rows.append(
                {
                    "clients": honest,
                    "hostile": hostile,
                    "requests_per_second": round(len(asking.waits) / took, 2),
                    "answered": len(asking.waits),
                    "failed": len(asking.failed),
                    "ms": summary(asking.waits) if asking.waits else None,
                }
            )
    finally:
        serve.shutdown()
        ray.shutdown()
    return {
        "what": "serving",
        "context": context(torch.device("cpu")),
        "settings": {"seconds": seconds, "photographs": "examples/photographs"},
        "rows": rows,
    }


def serving_table(reports: Sequence[Report]) -> str:
    """Requests a second and waits; reports of one command side by side are of several commits."""
    parts = []
    for report in reports:
        rows = [
            [
                str(row["clients"]),
                str(row["hostile"]),
                digits(row["requests_per_second"]) if row["answered"] else "0",
                milliseconds(row["ms"]),
                str(row["failed"]),
            ]
            for row in report["rows"]
        ]
        header = ["clients", "hostile", "requests/s", "wait, ms", "failed"]
        parts += [table(header, rows), f"Commit {report['context']['commit']}. {caption(report)}"]
    return "\n\n".join(parts)


TABLES = {"serving": serving_table}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--beside", type=int, default=32, help="half honest, half hostile; 0: none")
    parser.add_argument("--seconds", type=float, default=20.0, help="of every row")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    target = a.json and a.json.absolute()
    report = measure(a.clients, a.beside, a.seconds)
    print(serving_table([report]))
    if target:
        save(report, target)


if __name__ == "__main__":
    main()
