"""What a request must be like to reach the page: its host, its origin, its path and its size."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .folder import make_room

_API = "/gradio_api"
_READ = re.compile(
    r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\d+)?)?"
    r"|/(assets|static|svelte|_app)/[^:]*"
    rf"|{_API}/(app_id|info|startup-events|theme\.css|upload_progress|queue/data)"
    rf"|{_API}/heartbeat/[^/:]*"
    rf"|{_API}/file=(?!\w\w+:).*"  # a path; what the framework would fetch begins with https:
)
_WRITTEN = re.compile(rf"{_API}/(upload|queue/join|cancel|reset)/?")
_ADDRESS = re.compile(r"\s*\w{2,}:")  # not a drive's letter
_EVENT = 1_000_000  # bytes of a request that is no upload
_FORM = 10_000  # bytes of an upload besides the file
_SECONDS = 300.0  # until an upload is whole
_REST, _PATIENCE = 10_000_000, 2.0  # bytes and seconds of a refused request that are waited for
_HELD = 40  # of the largest uploads: what is kept of all visitors
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Gate:
    """ASGI middleware that lets through what the page's own visitors send.

    Args:
        app: the page.
        names: hosts under which it is reached, besides localhost and addresses in numbers: a name
            that somebody else points to this machine is refused (DNS rebinding).
        folder: where uploads are kept.
        largest_upload: bytes of a file.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], folder: Path, largest_upload: int):
        self._app, self._folder, self._largest = app, folder, largest_upload
        self._names = {"localhost", *(name.lower() for name in names)}
        self._arriving = 0  # bytes of uploads that are under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a sentence, or let the page answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        incoming = _Incoming(receive)
        try:
            self._check(scope)
            if scope["method"] == "POST":
                await self._post(scope, incoming, _with_headers(send))
            else:
                await self._app(scope, incoming, _with_headers(send))
        except _RefusedError as refused:
            await incoming.take_rest()
            await PlainTextResponse(str(refused), refused.status)(scope, receive, send)

    def count(self, size: int) -> None:
        """Take note that so many bytes came."""
        self._arriving += size
        if self._arriving > _HELD * self._largest:
            raise _RefusedError(503, "Too many uploads at a time: try again later.")

    async def _post(self, scope: Scope, incoming: _Incoming, send: Send) -> None:
        is_upload = scope["path"].startswith(f"{_API}/upload")
        body = _Body(incoming, self._largest + _FORM if is_upload else _EVENT, self)
        body.check_announced(Headers(scope=scope).get("content-length", "0"))
        try:
            if is_upload:
                await asyncio.to_thread(make_room, self._folder, _HELD * self._largest)
            else:
                _check_event(await body.whole())
            await self._app(scope, body, send)
        finally:
            self._arriving -= body.came

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        hosts = [headers[name] for name in ("host", "x-forwarded-host") if name in headers]
        for host in hosts:
            if not self._is_known(host):
                raise _RefusedError(403, "This page is not served under that name.")
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin.partition("://")[2], hosts):
            raise _RefusedError(403, "This page takes nothing from other pages.")
        method = scope["method"]
        if not (_WRITTEN if method == "POST" else _READ).fullmatch(path):
            raise _RefusedError(404, "There is no such page.")
        if method not in ("GET", "HEAD", "POST"):
            raise _RefusedError(405, "This page is read and posted to.")

    def _is_known(self, host: str) -> bool:
        name = _name(host)
        return name in self._names or _is_number(name)

    def _is_own(self, origin: str, hosts: list[str]) -> bool:
        if not origin or origin in hosts:
            return bool(origin)
        name = _name(origin)  # other programs of this machine have other ports
        return name in self._names and name != "localhost" and not _is_number(name)


class _Incoming:
    """What a connection says, and whether it has said all of a request.

    Attributes:
        complete: whether it has.
    """

    def __init__(self, receive: Receive):
        self.complete = False
        self._receive = receive

    async def __call__(self) -> Message:
        message = await self._receive()
        self.complete = not message.get("more_body", False)
        return message

    async def take_rest(self) -> None:
        """Take what is still being sent, within bounds.

        Hung up on, a client that is still sending fails in that and never reads the answer.
        """
        left, end = _REST, time.monotonic() + _PATIENCE
        while not self.complete and left > 0:
            try:
                message = await asyncio.wait_for(self(), end - time.monotonic())
            except asyncio.TimeoutError:
                return
            left -= len(message.get("body", b""))


class _Body:
    """The body of a request, counted and timed while it comes."""

    def __init__(self, incoming: _Incoming, most: int, gate: Gate):
        self.most, self.came = most, 0
        self._incoming, self._gate, self._end = incoming, gate, time.monotonic() + _SECONDS
        self._kept: list[Message] = []

    def check_announced(self, length: str) -> None:
        """Refuse what says by itself that it is too long."""
        if not length.isdecimal() or len(length) > 18 or int(length) > self.most:
            raise self._too_long()

    async def whole(self) -> bytes:
        """All of it, which the page can then receive as well."""
        while not self._incoming.complete:
            self._kept.append(await self())
        return b"".join(part.get("body", b"") for part in self._kept)

    async def __call__(self) -> Message:
        """The next part; once all are there, what the connection says."""
        if self._incoming.complete:
            return self._kept.pop(0) if self._kept else await self._incoming()
        try:
            message = await asyncio.wait_for(self._incoming(), self._end - time.monotonic())
        except asyncio.TimeoutError:
            raise _RefusedError(408, "The file took too long to come.") from None
        size = len(message.get("body", b""))
        self.came += size
        self._gate.count(size)
        if self.came > self.most:
            raise self._too_long()
        return message

    def _too_long(self) -> _RefusedError:
        return _RefusedError(413, f"At most {self.most / 1e6:.3g} MB, please.")


class _RefusedError(Exception):
    """A request does not reach the page; the message is for who sent it."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return sent


def _check_event(body: bytes) -> None:
    """Refuse an event with an address in the place of a file: it would be fetched."""
    try:
        event = json.loads(body or b"null")
    except (ValueError, RecursionError):
        raise _RefusedError(400, "Not JSON.") from None
    left: list[Any] = [event]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and _ADDRESS.match(path):
                raise _RefusedError(400, "This page fetches nothing from other addresses.")
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _name(host: str) -> str:
    """The host without its port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
