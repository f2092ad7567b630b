"""Limit the streams that occupy a thread of the server: each one does so until it ends."""

import contextlib
import threading
from typing import Any, Iterator, List

import grpc

THREADS = 32  # of the server; more than all streams together, so that a thread is always free to describe the device
MAX_MEASURE = 16
MAX_SILENT = 8  # streams whose first message has not arrived; the oldest one makes way for a new one
MAX_WATCH = 4
HELLO_S = 5.0  # time in which the first message of a stream must arrive


class Entrance:
    """Admits the streams of ``Measure`` and ``Watch``."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._measures = 0
        self._watches = 0
        self._silent: "List[_FirstMessage]" = []

    @contextlib.contextmanager
    def measure(self, context: Any) -> Iterator[None]:
        """Count a stream of ``Measure`` while it lasts; abort it if there are too many."""
        with self._mutex:
            full = self._measures >= MAX_MEASURE
            self._measures += not full
        if full:  # not RESOURCE_EXHAUSTED, which tells a host that another one holds the device
            context.abort(grpc.StatusCode.UNAVAILABLE, "the agent serves %d streams already; try again" % MAX_MEASURE)
        try:
            yield
        finally:
            with self._mutex:
                self._measures -= 1

    @contextlib.contextmanager
    def watch(self, context: Any) -> Iterator[None]:
        """Count a stream of ``Watch`` while it lasts; abort it if there are too many."""
        with self._mutex:
            full = self._watches >= MAX_WATCH
            self._watches += not full
        if full:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "%d watches are the limit of the agent" % MAX_WATCH)
        try:
            yield
        finally:
            with self._mutex:
                self._watches -= 1

    def first_message(self, requests: Iterator[Any], context: Any) -> Any:
        """Return the first message of a stream, None if it has none; abort a stream that stays silent.

        Silent streams never keep out a host that sends its message: the oldest of too many makes way.
        """
        first = _FirstMessage()
        with self._mutex:
            self._silent.append(first)
            if len(self._silent) > MAX_SILENT:
                self._silent.pop(0).make_way()
        threading.Thread(target=first.read, args=(requests,), name="hello", daemon=True).start()
        in_time = first.settled.wait(HELLO_S)
        with self._mutex:
            if first in self._silent:
                self._silent.remove(first)
        if not in_time:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no hello within %g s; send it first" % HELLO_S)
        if not first.arrived:
            context.abort(grpc.StatusCode.UNAVAILABLE, "too many streams wait for their hello; try again")
        return first.message


class _FirstMessage:
    """The first message of a stream, read in a separate thread, because reading cannot be interrupted."""

    def __init__(self) -> None:
        self.settled = threading.Event()
        self.arrived = False
        self.message: Any = None

    def read(self, requests: Iterator[Any]) -> None:
        try:
            self.message = next(requests, None)
        except Exception:  # the stream was interrupted; gRPC raises an exception without a type
            pass
        self.arrived = True
        self.settled.set()

    def make_way(self) -> None:
        self.settled.set()
