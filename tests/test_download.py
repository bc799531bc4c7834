"""Downloading, against a server of this machine that can break off, resume, lie and be absent."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from disco_fast._extras import MissingExtraError
from disco_fast.checkpoints import COMPACT, random_network
from disco_fast.download import (
    OFFICIAL,
    DownloadError,
    cache_folder,
    check_checkpoint,
    download,
    fetch,
    file_sha256,
    official_url,
)

CONTENT = np.random.default_rng(0).bytes(3_000_000)  # several of gdown's blocks


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every address; ``stop_after`` bytes it hangs up."""

    daemon_threads = True
    content = CONTENT
    stop_after: int | None = None
    status = 200
    announced = True
    ranges: list[str | None]

    def url(self, name="weights.safetensors"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        whole = self.server.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        body = whole[start:]
        self.send_response(206 if asked and self.server.status == 200 else self.server.status)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        if self.server.announced:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    pytest.importorskip("gdown", reason="gdown does the downloading; it is in the [test] extra")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def accept(path):
    pass


def names(folder):
    """Files in a folder, but the lock's."""
    return [path.name for path in folder.iterdir() if path.name != ".disco-fast-download.lock"]


def test_whole_download(server, tmp_path, capfd):
    target = tmp_path / "new" / "weights.safetensors"
    seen = []
    fetch(server.url(), target, lambda path: seen.append((path.suffix, path.read_bytes())))
    assert seen == [(".safetensors", CONTENT)]
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == [target.name]
    assert "100%" in capfd.readouterr().err


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    target = tmp_path / "weights.safetensors"
    server.stop_after = 1_700_000
    with pytest.raises(DownloadError, match=r"incomplete.*run it again to go on from .*\.part"):
        fetch(server.url(), target, accept)
    (name,) = names(tmp_path)
    part = tmp_path / name
    received = part.stat().st_size
    assert part.suffix == ".part"
    assert 0 < received <= server.stop_after
    server.stop_after = None
    server.ranges.clear()
    fetch(server.url(), target, accept)
    assert f"bytes={received}-" in server.ranges
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == [target.name]


def test_what_the_check_refuses_is_thrown_away(server, tmp_path):
    """The body arrives whole, but one byte of it is not what the authors made."""
    target = tmp_path / "weights.safetensors"
    content = COMPACT.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    server.content = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(DownloadError, match=f"thrown away: .*: its SHA-256 is .*, not {sha256}"):
        fetch(server.url(), target, lambda path: check_checkpoint(path, sha256))
    assert not names(tmp_path)
    server.content = content
    fetch(server.url(), target, lambda path: check_checkpoint(path, sha256.upper()))
    assert target.read_bytes() == content


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth.tar"])
def test_what_is_no_checkpoint_is_thrown_away(server, tmp_path, name):
    """A web page in place of the file, or the first part of it under a wrong length."""
    for content in (b"<html>Sign in</html>", COMPACT.read_bytes()[:100_000], b""):
        server.content = content
        with pytest.raises(DownloadError, match="thrown away"):
            fetch(server.url(name), tmp_path / name, check_checkpoint)
        assert not names(tmp_path)


def test_a_checkpoint_that_loads_is_kept(server, tmp_path):
    server.content = COMPACT.read_bytes()
    fetch(server.url(), tmp_path / "weights.safetensors", check_checkpoint)
    assert names(tmp_path) == ["weights.safetensors"]


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_too_large_is_cut_and_thrown_away(server, tmp_path, announced):
    server.announced = announced
    with pytest.raises(DownloadError, match="thrown away: it has more than 1000000 bytes"):
        fetch(server.url(), tmp_path / "weights.safetensors", accept, largest=1_000_000)
    assert not names(tmp_path)


def test_several_processes_fetch_once(server, tmp_path):
    """One does, and the others find what it has brought."""
    code = (
        "import sys; from pathlib import Path; from disco_fast.download import fetch\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), lambda path: None)"
    )
    target = tmp_path / "new" / "weights.safetensors"
    command = [sys.executable, "-c", code, server.url(), str(target)]
    running = [subprocess.Popen(command, cwd=tempfile.gettempdir()) for _ in range(4)]
    assert [process.wait(120) for process in running] == [0] * 4
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == [target.name]
    assert len(server.ranges) == 1


def test_no_server(tmp_path):
    pytest.importorskip("gdown", reason="gdown does the downloading; it is in the [test] extra")
    with socket.socket() as unused:  # bound but not listening: nobody else can answer there
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/weights.safetensors"
        target = tmp_path / "weights.safetensors"
        with pytest.raises(DownloadError, match="there is no connection") as caught:
            fetch(url, target, accept)
    assert f"open {url} in a browser and save the file as {target}" in str(caught.value)
    assert not names(tmp_path)


def test_the_server_has_no_such_file(server, tmp_path):
    server.status = 404
    with pytest.raises(DownloadError, match=r"404.*by hand, open") as caught:
        fetch(server.url(), tmp_path / "weights.safetensors", accept)
    assert "no connection" not in str(caught.value)
    assert not names(tmp_path)


def test_without_gdown_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)  # import fails, as where it is not installed
    with pytest.raises(MissingExtraError, match=r"disco_fast\[download\]"):
        fetch("http://127.0.0.1/", tmp_path / "weights.safetensors", accept)


def test_a_file_that_is_there_is_checked_and_not_fetched(tmp_path, monkeypatch):
    """As one that was put there by hand. No address is asked: gdown is out of reach."""
    monkeypatch.setitem(sys.modules, "gdown", None)
    target = tmp_path / "disco-rand.pth.tar"
    save_as_training_state(target)
    sha256 = file_sha256(target)
    assert sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert download("disco-rand", tmp_path) == target
    assert download("disco-rand", tmp_path, sha256) == target
    with pytest.raises(DownloadError, match=f"not {'0' * 64}; remove .*disco-rand.pth.tar to"):
        download("disco-rand", tmp_path, "0" * 64)
    target.write_bytes(b"<html>Sign in</html>")
    with pytest.raises(DownloadError, match=r"remove .*disco-rand\.pth\.tar to fetch it again"):
        download("disco-rand", tmp_path)
    assert target.exists()


def save_as_training_state(target: Path) -> None:
    """The layout of the official files: a pickled dictionary that holds the weights."""
    torch.save({"state_dict": random_network(0.25).state_dict(), "epoch": 1}, target)


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match=r"name is one of disco, disco-c0\.2, disco-rand"):
        download("disco-beta", tmp_path)


def test_official_addresses_are_google_drives_files():
    """The address that is shown to the user is one that gdown knows the file by."""
    reason = "gdown reads the addresses; it is in the [test] extra"
    gdown = pytest.importorskip("gdown", reason=reason)
    for name, identity in OFFICIAL.items():
        assert gdown.parse_url.parse_url(url=official_url(name))[0] == identity


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="they have no XDG folders")
def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "disco_fast"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "disco_fast"
