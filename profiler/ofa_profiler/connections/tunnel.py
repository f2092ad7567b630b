"""A tunnel: a local socket that only this user can open, forwarded to a port of the device."""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Protocol

CHUNK = 1 << 16


class Stream(Protocol):
    """A socket, or an object with its interface."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> Any: ...
    def shutdown(self, how: int, /) -> Any: ...
    def close(self) -> Any: ...


class Tunnel:
    """``open_far`` opens a stream to the port of the device, or raises one of ``failures``."""

    def __init__(self, open_far: Callable[[], Stream], failures: tuple[type[Exception], ...]) -> None:
        self._open_far = open_far
        self._failures: tuple[type[Exception], ...] = (OSError, EOFError, *failures)
        self._folder = tempfile.TemporaryDirectory(prefix="ofa-")
        path = os.path.join(self._folder.name, "agent")
        self.address = f"unix:{path}"  # in the form that gRPC takes
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                far = self._open_far()
            except self._failures:
                near.close()  # gRPC tries again
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: Stream, sink: Stream) -> None:
        with contextlib.suppress(*self._failures):
            while chunk := source.recv(CHUNK):
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(*self._failures):
                end.shutdown(socket.SHUT_RDWR)  # wakes the reading thread, which close does not
                end.close()
