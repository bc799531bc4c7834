"""A process that makes no connection to any other machine, whatever a visitor asks of it."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any


def seal() -> None:
    """From now on, for good, Python code of this process connects to this machine alone.

    A page's framework can be asked by a visitor to fetch an address; this is where that ends.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a path of this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if host and not _is_here(host):
        raise PermissionError(f"the page connects to no other machine, so not to {host!r}")


def _is_here(host: str | bytes) -> bool:
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
