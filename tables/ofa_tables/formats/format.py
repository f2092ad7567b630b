"""The interface of table formats, and the latencies that their files contain."""

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_tables.errors import FileError
from ofa_tables.model.latency_model import Space
from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

# Files come from anywhere: nothing larger is read. A published file is 14 kB, a CSV of all 25 resolutions 300 kB.
MAX_BYTES = 4 << 20

# No Block takes a day; no table rests on more runs than this (and SQLite's integers end at 2⁶³).
MAX_LATENCY_MS = 86_400_000.0
MAX_SAMPLES = 10**12

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class Figure:
    """One entry of a published file: a latency, or why there is none. ``line`` is where it stands."""

    key: str
    resolution_px: int | None
    latency_ms: float | None
    mean_ms: float | None
    std_ms: float | None
    samples: int
    line: int
    failure: str = ""

    @property
    def content(self) -> tuple[object, ...]:
        return self.resolution_px, self.latency_ms, self.mean_ms, self.std_ms, self.samples, self.failure

    def measurement(self, format_name: str) -> Measurement:
        """One trial. Its id follows from the content: the same figure imported twice counts once."""
        digest = hashlib.sha256(repr((self.key, self.content)).encode()).hexdigest()
        status, _, error = self.failure.partition(": ")
        return Measurement(
            trial_id=f"{format_name}:{digest[:32]}",
            key=self.key,
            status=status or "ok",
            error=error,
            resolution_px=self.resolution_px,
            count=self.samples,
            median_ms=self.latency_ms,
            mean_ms=self.mean_ms,
            std_ms=self.std_ms,
        )


@dataclass(frozen=True)
class Format:
    """A table format: how its files are read and written, where it can be.

    ``read`` gives one file's Figures, all of them checked against the Space, and raises FileError. ``write`` gives the
    content of every file to be written at or under a path; ``whole_space`` says that it has to be given a Space.
    """

    name: str
    read: Callable[[Path, Space], list[Figure]] | None
    write: Callable[[LatencyTable, Path, Space | None], dict[Path, bytes]] | None
    whole_space: bool = False


def read_text(path: Path) -> str:
    """Raises FileError for a file that is absent, too large, or no text."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise FileError(f"{path} is larger than {MAX_BYTES >> 20} MiB, which no latency table is; give the right file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is not a text file; give one in the format that --format names") from None


def parse_latency_ms(text: str, place: str) -> float:
    """A latency in ms. Raises FileError where it is not a finite number above zero; ``place`` says where it stands."""
    value = parse_number(text, place)
    if not 0 < value <= MAX_LATENCY_MS:
        raise FileError(f"{place} is {text}; a latency lies above zero and below a day")
    return value


def parse_std_ms(text: str, place: str) -> float:
    value = parse_number(text, place)
    if not 0 <= value <= MAX_LATENCY_MS:
        raise FileError(f"{place} is {text}; a standard deviation is not negative")
    return value


def parse_count(text: str, place: str) -> int:
    value = parse_number(text, place)
    if not 0 <= value <= MAX_SAMPLES or value != int(value):
        raise FileError(f"{place} is {text}; it has to be a whole number, and not negative")
    return int(value)


def parse_number(text: str, place: str) -> float:
    """Plain decimal numbers alone: no NaN, infinity, hexadecimal, or anything else that Python or YAML would take."""
    if _NOT_FINITE.fullmatch(text):
        raise FileError(f"{place} is {text}; correct or measure that entry, a table holds numbers alone")
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        raise FileError(f"{place} is {short(text)!r}, which is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise FileError(f"{place} is {text}, which is out of range")
    return value


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "…"
