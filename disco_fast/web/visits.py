"""The photographs of all visitors, within a bound: those not used for longest are put away."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from .session import Kept, Session

_HELD = 400e6  # bytes in memory, of all visitors together


class Visits:
    """Sessions by the keys of their visitors; one that is put away is opened again when asked for.

    Args:
        open_session: of an upload, and of what was kept of an earlier session with it.
        most: bytes in memory, of all sessions but the one in use.
    """

    def __init__(self, open_session: Callable[[Path, Kept | None], Session], most: float = _HELD):
        self._open_session, self._most = open_session, most
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # last is used last
        self._away: dict[str, Kept] = {}
        self._lock = threading.Lock()  # Gradio forgets a visitor in a thread of its own

    def open(self, path: Path) -> str:
        """Begin a session with an upload; its key.

        Raises:
            SessionError: it is no picture, or too large.
        """
        key = secrets.token_hex(16)
        self._put(key, self._open_session(path, None))
        return key

    def session(self, key: str) -> Session | None:
        """The session of a key, None for one that is closed.

        Raises:
            SessionError: it was put away, and its upload is no longer there.
        """
        with self._lock:
            found, kept = self._sessions.get(key), self._away.get(key)
            if found is not None:
                self._sessions.move_to_end(key)
                return found
        if kept is None:
            return None
        session = self._open_session(kept.path, kept)
        self._put(key, session)
        return session

    def close(self, key: str | None) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(key or "", None)
            self._away.pop(key or "", None)

    def _put(self, key: str, session: Session) -> None:
        with self._lock:
            self._away.pop(key, None)
            self._sessions[key] = session
            while len(self._sessions) > 1 and self._bytes() > self._most:
                other, unused = self._sessions.popitem(last=False)
                self._away[other] = unused.kept()

    def _bytes(self) -> int:
        return sum(session.bytes for session in self._sessions.values())
