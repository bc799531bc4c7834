"""Commands killed at random moments: python tests/random_kills.py COUNT SEED FOLDER [COMMAND ...].

After every kill each file under a final name is whole; then the command is started again as its
documentation says, and in the end there is what a run that nobody killed has written. Runs are
forks of this process, which has imported everything, so that most kills fall into the work itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from PIL import Image

from disco_fast import download
from disco_fast.checkpoints import COMPACT, load_checkpoint, random_network
from disco_fast.cli import main, video

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
SMALL = ["--working-size", "16", "--device", "cpu", "--precision", "fp32"]
QUICK = ["--workers", "0", "--batch", "4"]
PORT = 18493
Check = Callable[[Path], object]


@dataclass(frozen=True)
class Command:
    """A command to kill.

    Attributes:
        start: its arguments, for a folder to write to.
        again: those that go on where a killed run stopped; may look at the folder.
        growing: names that hold more and more, each with what reads it and says what must be as in
            a whole run in the end; all others are as there from the beginning.
    """

    start: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    growing: dict[str, Check]


def commands(inputs: Path) -> dict[str, Command]:
    """By name."""
    pictures, film, cache = inputs / "pictures", inputs / "film.mp4", inputs / "cache"
    picture = str(pictures / "0.png")

    def same(*words: str) -> Callable[[Path], list[str]]:
        return lambda out: [word.format(out=out) for word in words]

    def resumed(start: Callable[[Path], list[str]], name: str) -> Callable[[Path], list[str]]:
        return lambda out: start(out) + (["--resume"] if (out / "r" / name).exists() else [])

    def plain(*words: str) -> Command:
        return Command(same(*words), same(*words), {})

    def training(stage: str, data: Path, *words: str) -> Command:
        start = same("train", stage, "--data", str(data), "--out", "{out}/r", "--device", "cpu",
                     "--save-every", "0", *QUICK, *words)  # fmt: skip
        growing: dict[str, Check] = {
            "state.pt": lambda path: torch.load(path, weights_only=True)["step"],
            f"{stage}.safetensors": weights,
            "card.json": lambda path: json.loads(path.read_text()) | {"minutes": None},
        }
        return Command(start, resumed(start, "state.pt"), growing)

    colorize = ("colorize", str(pictures), "-o", "{out}/r", *SMALL)
    caching = same("train", "cache", "--data", str(PHOTOGRAPHS), "--size", "64", "--views", "3",
                   "--out", "{out}/r", *QUICK)  # fmt: skip
    evaluate = ("evaluate", "--truth", str(PHOTOGRAPHS), "--size", "64")
    teaching = ("--size", "64", "--epochs", "6", "--init", str(COMPACT), "--reconstruction", "l1")
    return {
        "colorize": Command(same(*colorize), same(*colorize, "--skip-existing"), {}),
        "anchors": plain("anchors", picture, "-o", "{out}/anchors.json", *SMALL),
        "video": plain("video", str(film), "-o", "{out}/film.mp4", *SMALL),
        "export": Command(same("export", "{out}/r"), same("export", "{out}/r", "--overwrite"), {}),
        "convert": plain("convert", str(COMPACT), "{out}/made.safetensors"),
        "download": plain("download", "disco", "--folder", "{out}"),
        "evaluate": plain(*evaluate, "--json", "{out}/report.json", *SMALL[2:]),
        "cache": Command(
            caching,
            resumed(caching, "cache.json"),
            {
                "superpixels.npy": digest,
                "cache.json": lambda path: json.loads(path.read_text()),
            },
        ),
        "tokens": training("tokens", cache, "--epochs", "4", "--anchors", "3", "5"),
        "colorizer": training("colorizer", PHOTOGRAPHS, "--first", "4", *teaching),
    }


def begun(arguments: list[str], log: Path) -> int:
    """A process that runs a command; its number."""
    process = os.fork()
    if process:
        return process
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 99
    sys.stderr.flush()
    os._exit(status)


def ended(process: int) -> int:
    """The exit status of a process, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(arguments: list[str], log: Path) -> float:
    """Run a command to its end; how many seconds it took."""
    began = time.monotonic()
    status = ended(begun(arguments, log))
    assert status == 0, f"{arguments}: {status}: {log.read_text()[-2000:]}"
    return time.monotonic() - began


def killed(arguments: list[str], log: Path, after: float) -> bool:
    """Whether a command was still running when it was killed after so many seconds."""
    process = begun(arguments, log)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    status = ended(process)
    assert status in (0, -signal.SIGKILL), f"{arguments}: {status}: {log.read_text()[-2000:]}"
    return status != 0


def finals(folder: Path) -> Iterator[Path]:
    """Files whose names say that they are results."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        unchecked = path.name.startswith(("unchecked-", "events.out."))
        if path.is_file() and not hidden and not unchecked:
            yield path


def digest(path: Path) -> str:
    """Of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(path: Path) -> str:
    """A digest of the weights in a checkpoint."""
    found = hashlib.sha256()
    for value in load_checkpoint(path).state_dict().values():
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def results(folder: Path, growing: dict[str, Check]) -> dict[str, object]:
    """What there is, by its name."""
    return {
        str(path.relative_to(folder)): growing.get(path.name, digest)(path)
        for path in finals(folder)
    }


def check(folder: Path, whole: dict[str, object], growing: dict[str, Check]) -> None:
    """Every result that is there is whole."""
    for name, result in results(folder, growing).items():
        if Path(name).name not in growing:
            assert whole.get(name) == result, f"{name} is not what a whole run writes"


def make_inputs(folder: Path) -> None:
    """Pictures, a film, and a checkpoint as the official ones are."""
    import av

    (folder / "pictures").mkdir(parents=True)
    state = random_network(0.25).state_dict()  # as the official files: of the published backbone
    torch.save({"state_dict": state}, folder / "disco.pth.tar")
    photographs = [Image.open(path).convert("L") for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    for number in range(24):
        size = (160 + 8 * number, 120)
        picture = photographs[number % len(photographs)].resize(size)
        picture.save(folder / "pictures" / f"{number}.{('png', 'jpg', 'tif')[number % 3]}")
    with av.open(str(folder / "film.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(40):
            still = photographs[number // 5 % len(photographs)].resize((96 + number, 64))
            frame = av.VideoFrame.from_image(
                still.crop((number, 0, 96 + number, 64)).convert("RGB")
            )
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


class Slowly(BaseHTTPRequestHandler):
    """Hands out a checkpoint in pieces, from where it is asked to."""

    content = b""

    def do_GET(self) -> None:
        """Answer."""
        asked, content = self.headers.get("Range"), self.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        try:
            for place in range(start, len(content), 2**18):
                self.wfile.write(content[place : place + 2**18])
                time.sleep(0.01)
        except OSError:  # the other side was killed
            pass

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def serve(checkpoint: Path) -> None:
    """A server of checkpoints, in a process of its own: forks must not hold its threads' locks."""
    if os.fork() == 0:
        Slowly.content = checkpoint.read_bytes()
        server = ThreadingHTTPServer(("127.0.0.1", PORT), Slowly)
        parent = os.getppid()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(0)


def try_command(name: str, command: Command, count: int, work: Path, draws: random.Random) -> str:
    """Kill a command so many times; what came of it, in words."""
    reference, out, log = work / f"{name}-whole", work / f"{name}-killed", work / f"{name}.log"
    reference.mkdir(), out.mkdir()
    took = run(command.start(reference), log)
    whole = results(reference, command.growing)
    kills = finished = 0
    again = False

    def check_end() -> None:
        found = results(out, command.growing)
        assert found == whole, f"{name}: {found} is not {whole}"

    while kills < count:
        arguments = (command.again if again else command.start)(out)
        if killed(arguments, log, draws.uniform(0, took)):
            kills += 1
            again = True
            check(out, whole, command.growing)
        else:  # it was quicker than the kill
            finished += 1
            check_end()
            shutil.rmtree(out)
            out.mkdir()
            again = False
    run((command.again if again else command.start)(out), log)
    check_end()
    return f"{name}: {kills} kills of {took:.1f} s, {finished} ended before; equal to a whole run"


def try_all(count: int, seed: int, work: Path, names: list[str]) -> None:
    """Kill all commands by turns; an assertion fails at the first that is not as promised."""
    torch.set_num_threads(1)
    video.PART = 8
    download.official_url = lambda name: f"http://127.0.0.1:{PORT}/weights.safetensors"
    inputs = work / "inputs"
    make_inputs(inputs)
    serve(inputs / "disco.pth.tar")
    known = commands(inputs)
    names = names or list(known)
    if "tokens" in names:
        run(known["cache"].start(inputs), work / "cache.log")
        (inputs / "r").rename(inputs / "cache")
    draws = random.Random(seed)
    for number, name in enumerate(names):
        share = count // len(names) + (number < count % len(names))
        print(try_command(name, known[name], share, work, draws), flush=True)


if __name__ == "__main__":
    try_all(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
