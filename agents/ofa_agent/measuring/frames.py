"""Messages between the agent and its worker through a pipe: each one follows its length."""

import os
import select
import struct
import time
from typing import List, Optional


def write_frame(descriptor: int, content: bytes, deadline: Optional[float] = None) -> None:
    """Write a message. With a deadline, the descriptor must not block. Raises TimeoutError, OSError."""
    rest = memoryview(struct.pack("<I", len(content)) + content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _, writable, _ = select.select([], [descriptor], [], _left_s(deadline))
            if not writable:
                raise TimeoutError from None


def read_frame(descriptor: int, deadline: Optional[float] = None) -> bytes:
    """Read a message. Raises TimeoutError, and EOFError if the other end is closed."""
    (length,) = struct.unpack("<I", _read_exactly(descriptor, 4, deadline))
    return _read_exactly(descriptor, length, deadline)


def _read_exactly(descriptor: int, length: int, deadline: Optional[float]) -> bytes:
    parts: List[bytes] = []
    while length:
        if deadline is not None:
            readable, _, _ = select.select([descriptor], [], [], _left_s(deadline))
            if not readable:
                raise TimeoutError
        part = os.read(descriptor, min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _left_s(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
