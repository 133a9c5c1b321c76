"""A TCP proxy that loses replies: the server has done its work, and the client never hears of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

_METHODS = (b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ", b"PATCH ")


class LosingProxy:
    """Stands before a server on loopback."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._to_lose = 0
        self._asked, self._every, self._passed = b"", 1, 0
        self.lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def lose_replies(self, count: int, to: bytes = b"", every: int = 1) -> None:
        """Close the connection instead of passing on the next replies, or every so many of them.

        Args:
            count: how many.
            to: bytes that the request must hold.
            every: 2 lets every second of these through, so that who tries again hears something.
        """
        with self._lock:
            self._to_lose, self._asked, self._every, self._passed = count, to, every, every - 1

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                asked = [b""]  # the last request of this connection, from where it begins
                for source, target, replies in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass_on, args=(source, target, replies, asked), daemon=True
                    ).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, replies: bool, asked: list[bytes]
    ) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                if not replies and data.startswith(_METHODS):
                    asked[0] = data
                if replies and self._loses(asked[0]):
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)

    def _loses(self, request: bytes) -> bool:
        with self._lock:
            if not self._to_lose or self._asked not in request:
                return False
            self._passed += 1
            if self._passed < self._every:
                return False
            self._passed = 0
            self._to_lose -= 1
            self.lost += 1
            return True
