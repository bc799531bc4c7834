"""What strangers do to the page: what it refuses, keeps within bounds and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest

from disco_fast import Colorizer
from disco_fast.console import printable
from disco_fast.io.images import Picture, read_image, write_image

pytest.importorskip("gradio")

from disco_fast.web.folder import make_room, remove_empty, visitors_folder
from disco_fast.web.page import build
from disco_fast.web.session import Limits, Session, SessionError
from disco_fast.web.visits import Visits

COFFEE = Path(__file__).parents[1] / "examples" / "photographs" / "coffee.jpg"
LARGEST = 0.2  # megabytes of an upload


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of temporary files of the process that serves."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    options = ("--max-megabytes", LARGEST, "--name", "colors.example")
    with browser.served(*options, temporary=place) as found:
        yield found.rstrip("/")


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, names), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address: str, content: bytes, count: int = 1, **headers: str) -> tuple[int, bytes]:
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n"
    )
    kind = "multipart/form-data; boundary=x"
    return ask(
        f"{address}/gradio_api/upload", part * count + b"--x--\r\n", Content_Type=kind, **headers
    )


def event(address: str, **content: Any) -> tuple[int, bytes]:
    body = json.dumps({"session_hash": "x", "fn_index": 0, **content}).encode()
    return ask(f"{address}/gradio_api/queue/join", body, Content_Type="application/json")


# ---- what does not reach the page ---------------------------------------------------------------


def test_other_hosts_and_origins_are_refused(address: str) -> None:
    own = address.removeprefix("http://")
    for headers, status in (
        ({}, 200),
        ({"Host": "colors.example"}, 200),
        ({"Host": "colors.example:8080"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"X_Forwarded_Host": "evil.example"}, 403),
        ({"X_Forwarded_Host": "colors.example"}, 200),
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": "https://colors.example"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "["}, 403),
    ):
        assert ask(f"{address}/", **headers)[0] == status, headers
    assert upload(address, b"a", Origin="http://evil.example")[0] == 403
    assert upload(address, b"a")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=https://example.com/",
        "gradio_api/file=HTTP://example.com/",
        "gradio_api/file=%68ttp://example.com/",
        "gradio_api/proxy=https://example.com/",
        "gradio_api/run-history/buckets",
        "gradio_api/openapi.json",
        "gradio_api/vibe-code/",
        "monitoring",
        "docs",
    ],
)
def test_what_the_page_does_not_need_is_not_there(address: str, path: str) -> None:
    assert ask(f"{address}/{path}")[0] == 404


def test_events_come_through_the_queue_alone(address: str) -> None:
    body = json.dumps({"data": [None, None], "session_hash": "x"}).encode()
    for route in ("run/opened", "api/opened", "call/opened", "call/v2/opened", "run/opened/"):
        status, _ = ask(f"{address}/gradio_api/{route}", body, Content_Type="application/json")
        assert status == 404


def test_no_event_makes_the_page_fetch_an_address(address: str) -> None:
    for path in ("https://example.com/a.png", " HTTP://example.com/", "ftp://example.com/a"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        status, words = event(address, data=[None, file])
        assert (status, b"fetches nothing" in words) == (400, True)
    status, _ = ask(f"{address}/gradio_api/queue/join", b"[" * 100_000)
    assert status == 400
    # More than a connection buffers: the answer is read by who is still sending.
    assert ask(f"{address}/gradio_api/queue/join", b" " * 9_000_000)[0] == 413


def test_uploads_are_counted_together(address: str) -> None:
    half = bytes(int(LARGEST * 0.6e6))
    assert upload(address, half)[0] == 200
    status, words = upload(address, half, count=2)
    assert status == 413
    assert words == b"At most 0.21 MB, please."


def test_an_upload_without_a_length_is_counted_while_it_comes(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        client.sendall(b"%x\r\n%s\r\n" % (len(head), head))
        try:
            for _ in range(1000):
                client.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")
            answer = client.recv(1000)
        except (BrokenPipeError, ConnectionResetError):  # hung up before all was sent
            answer = b" 413 "
        assert b" 413 " in answer
    assert ask(f"{address}/")[0] == 200


def test_the_answers_say_how_they_may_be_used(address: str) -> None:
    with urllib.request.urlopen(f"{address}/", timeout=30) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_sealed_process_connects_to_this_machine_alone() -> None:
    code = """
import socket, sys
from disco_fast.web.sealing import seal
seal()
here = socket.create_server(("127.0.0.1", 0))
socket.create_connection(here.getsockname()).close()
for ask in (
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.getaddrinfo("example.com", 80),
    lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
):
    try:
        ask()
    except PermissionError as error:
        assert "connects to no other machine" in str(error)
    else:
        sys.exit("connected")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tempfile.gettempdir())


# ---- what is kept, and for how long -------------------------------------------------------------


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu")


def test_sessions_are_put_away_and_taken_up_again(colorizer: Colorizer) -> None:
    visits = Visits(lambda path, kept: Session(colorizer, path, None, kept), most=1)
    first = visits.open(COFFEE)
    session = visits.session(first)
    assert session is not None
    session.click(session.anchors[2].pixel)
    session.recolor("#2040d0")
    kept, color = session.kept(), session.color
    second = visits.open(COFFEE)
    assert len(visits._sessions) == 1
    again = visits.session(first)
    assert again is not None
    assert again is not session
    assert again.kept() == kept
    assert np.array_equal(again.color, color)
    for key in (first, second):
        visits.close(key)
        assert visits.session(key) is None
    assert not visits._sessions
    assert not visits._away


def test_the_network_is_asked_by_one_visitor_at_a_time(colorizer: Colorizer) -> None:
    page = build(colorizer, Limits())
    assert {event.concurrency_id for event in page.fns.values() if event.fn} == {"network"}
    assert page._queue.default_concurrency_limit == 1
    assert not page.api_open


def test_an_upload_that_is_gone_is_asked_for_again(colorizer: Colorizer, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(COFFEE.read_bytes())
    visits = Visits(lambda path, kept: Session(colorizer, path, None, kept), most=1)
    first = visits.open(path)
    visits.open(COFFEE)
    path.unlink()
    with pytest.raises(SessionError, match="no longer here: drop it again"):
        visits.session(first)


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / str(number) / "file"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    make_room(tmp_path, 250)
    assert sorted(path.parent.name for path in tmp_path.rglob("file")) == ["3", "4"]


def test_old_empty_files_go(tmp_path: Path) -> None:
    for name, content in (("old", b""), ("young", b""), ("kept", b"x"), ("in-use.lock", b"")):
        (tmp_path / name).write_bytes(content)
        if name != "young":
            os.utime(tmp_path / name, (0, 0))
    remove_empty(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in-use.lock", "kept", "young"]


def test_a_jpegs_name_with_alpha_is_offered_as_a_png(colorizer: Colorizer, tmp_path: Path) -> None:
    pixels = read_image(COFFEE).pixels
    alpha = np.tile(np.linspace(0, 255, pixels.shape[1]).astype(np.uint8), (pixels.shape[0], 1))
    write_image(tmp_path / "a.png", Picture(pixels, alpha))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    session = Session(colorizer, tmp_path / "a.jpg")
    saved, _ = session.save()
    assert saved.name == "a-color.png"
    assert np.array_equal(read_image(saved).alpha, alpha)


def test_anchors_are_counted_before_they_are_made(colorizer: Colorizer, tmp_path: Path) -> None:
    session, path = Session(colorizer, COFFEE), tmp_path / "many.json"
    entry = {"x": 1, "y": 1, "color": "#fff"}
    path.write_text(json.dumps({"anchors": [entry] * 2000}))
    with pytest.raises(SessionError, match="anchors: expected at most 280, got 2000"):
        session.load(path)
    path.write_text(json.dumps({"anchors": [entry] * 20_000}))
    with pytest.raises(SessionError, match="At most 100 kB"):
        session.load(path)


def test_a_name_cannot_command_a_terminal(colorizer: Colorizer, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202egpj.jpg"
    path.write_bytes(b"")
    with pytest.raises(SessionError) as refused:
        Session(colorizer, path, Limits())
    assert str(refused.value) == r"a\x1b[31m\u202egpj.jpg: the file is empty."
    assert printable("é 日本 \udcff") == "é 日本 \\udcff"


# ---- what is left behind ------------------------------------------------------------------------


def left(place: Path) -> list[str]:
    """Files in a folder of temporary files, but those of the machine's other programs."""
    return [str(path.relative_to(place)) for path in place.rglob("*") if "disco-fast" in str(path)]


@pytest.mark.thorough
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_after_the_end(tmp_path: Path, end: signal.Signals) -> None:
    with browser.served(temporary=tmp_path, end=end) as address:
        assert upload(address.rstrip("/"), COFFEE.read_bytes())[0] == 200
        heartbeat = f"{address}gradio_api/heartbeat/x"
        with urllib.request.urlopen(heartbeat, timeout=30):  # a page that stays open
            assert [name for name in left(tmp_path) if name.endswith("a.jpg")]
            browser.stop(address)
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    with browser.served(temporary=tmp_path, end=signal.SIGKILL) as address:
        upload(address.rstrip("/"), COFFEE.read_bytes())
    assert [name for name in left(tmp_path) if name.endswith("a.jpg")]
    with browser.served(temporary=tmp_path):
        assert not [name for name in left(tmp_path) if name.endswith("a.jpg")]
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import sys; from disco_fast.web.folder import visitors_folder\n"
        "with visitors_folder() as folder: print(folder, flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        cwd=tmp_path,
    ) as other:  # fmt: skip
        theirs = Path(other.stdout.readline().strip())
        with visitors_folder() as mine:
            assert theirs.is_dir()
            assert mine.stat().st_mode & 0o077 == 0
        other.stdin.close()
    assert not list(tmp_path.iterdir())
