"""Read files that may come from anywhere: regular files of limited size, text, and JSON of limited depth and digits.

Every reader of a file starts here. A pipe, a device or a socket is refused, because it may never end.
"""

import contextlib
import errno
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from ofa_tables.errors import FileError

PIECE_BYTES = 1 << 24
DEEPEST = 100  # nested lists and objects
MOST_DIGITS = 20  # of an integer; 64 bits have at most 20

_ZIP_END = struct.Struct("<4s4H2LH")  # the end of central directory record, without a comment
_MOST_ENTRY_BYTES = 500  # of an entry of the directory: 46, the name, and more

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextlib.contextmanager
def opened(path: Path, most_bytes: int, what: str) -> Iterator[BufferedReader]:
    """Open a regular file of at most ``most_bytes``. ``what`` it should be is for the message. Raises FileError."""
    try:
        with _open(path) as file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                raise too_large(path, most_bytes, what)
            yield file
    except OSError as error:
        raise unreadable(path, error) from None


def read_bytes(path: Path, most_bytes: int, what: str) -> bytes:
    """Read a file. Raises FileError if it is missing, not a regular file, or too large."""
    pieces: list[bytes] = []
    left = most_bytes
    with opened(path, most_bytes, what) as file:
        while piece := file.read(min(PIECE_BYTES, left + 1)):  # to read more at once would reserve memory for all of it
            pieces.append(piece)
            left -= len(piece)
            if left < 0:  # it grows while it is read
                raise too_large(path, most_bytes, what)
    return b"".join(pieces)


def read_text(path: Path, most_bytes: int, what: str, advice: str) -> str:
    """Read a text file in UTF-8, with or without a byte order mark. ``advice`` says what to give instead of others."""
    try:
        return read_bytes(path, most_bytes, what).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is not a text file; {advice}") from None


def require_regular(path: Path) -> None:
    """Check that a file can be read, and is not a directory, pipe, device or socket. Raises FileError."""
    try:
        _open(path).close()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> FileError:
    return FileError(f"cannot read {path}: {error.strerror or error}")


def too_large(path: Path, most_bytes: int, what: str) -> FileError:
    return FileError(f"{path} is larger than {most_bytes >> 20} MiB, the limit of {what}; check the path")


def _open(path: Path) -> BufferedReader:
    # Without O_NONBLOCK, opening a pipe waits for its writer. It has no effect on regular files.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is a pipe, a device or a socket; give a regular file")


def zip_problem(file: BufferedReader, most_entries: int) -> str:
    """Say why the directory of a zip file should not be read; empty if it can. The position is 0 afterwards.

    The directory must be at the end of the file, without a comment, so that all readers find the same one.
    """
    file_bytes = os.fstat(file.fileno()).st_size
    file.seek(max(0, file_bytes - _ZIP_END.size))
    end = file.read(_ZIP_END.size)
    file.seek(0)
    if len(end) < _ZIP_END.size or not end.startswith(b"PK\x05\x06"):
        return "its end, where a zip file has its directory, is missing"
    _, _, _, _, entries, directory_bytes, _, _ = _ZIP_END.unpack(end)
    if entries > most_entries or directory_bytes > most_entries * _MOST_ENTRY_BYTES:
        return f"it has more than {most_entries:,} entries"
    return ""


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError if it is damaged, too deep, or has an integer or a string that cannot be stored."""
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(text):
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it has half of a surrogate pair, which is not a character") from None
    return value


def _is_deep(text: str) -> bool:
    """Whether brackets are nested too deeply: remove the innermost pairs, one level at a time."""
    brackets = _NOT_BRACKETS.sub("", _STRINGS.sub("", text))
    for _ in range(DEEPEST):
        shorter = brackets.replace("[]", "").replace("{}", "")
        if shorter == brackets:
            return False  # all removed, or not JSON
        brackets = shorter
    return bool(brackets)


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits, more than {MOST_DIGITS}")
    return int(text)
