"""A TCP proxy that loses replies: the server has done its work, and the client never hears of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class LosingProxy:
    """Stands before a server on loopback."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._to_lose = 0
        self.lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def lose_replies(self, count: int) -> None:
        """Close the connection instead of passing on the next replies."""
        with self._lock:
            self._to_lose = count

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for source, target, replies in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass_on, args=(source, target, replies), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                if replies and self._loses():
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)

    def _loses(self) -> bool:
        with self._lock:
            if not self._to_lose:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True
