"""The interface of table formats, and the latencies that their files contain."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_tables import reading
from ofa_tables.errors import FileError
from ofa_tables.model.space import Space
from ofa_tables.store.measurement import AS_SIMULATED, SIMULATED, Measurement
from ofa_tables.table import LatencyTable

# Larger files are refused, because files may come from anywhere. A published file has 14 kB, a CSV of all 25
# resolutions 300 kB.
MAX_BYTES = 4 << 20
MAX_ROWS = 50_000

# Limits for plausible values: one day; a count that fits into SQLite's 64-bit integers.
MAX_LATENCY_MS = 86_400_000.0
MAX_SAMPLES = 10**12

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class PublishedEntry:
    """One entry of a published file: a latency in ms, or a failure. ``line`` is its line in the file.

    ``simulated``: the file says that the latency was computed, not measured.
    """

    key: str
    resolution_px: int | None
    latency_ms: float | None
    mean_ms: float | None
    std_ms: float | None
    samples: int
    line: int
    failure: str = ""
    simulated: bool = False

    @property
    def content(self) -> tuple[object, ...]:
        content = (self.resolution_px, self.latency_ms, self.mean_ms, self.std_ms, self.samples, self.failure)
        return (*content, SIMULATED) if self.simulated else content

    def measurement(self, format_name: str) -> Measurement:
        """Convert to one trial. Its id is a hash of the content, so that repeated imports count once."""
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
            condition=AS_SIMULATED if self.simulated else "",
        )


@dataclass(frozen=True)
class Format:
    """A table format: functions that read and write its files; None if not supported.

    ``read`` returns the entries of one file, checked against the space, and raises FileError. ``write`` returns the
    content of every file to write at or under a path. ``whole_space``: ``write`` needs a space.
    """

    name: str
    read: Callable[[Path, Space], list[PublishedEntry]] | None
    write: Callable[[LatencyTable, Path, Space | None], dict[Path, bytes]] | None
    whole_space: bool = False


def read_text(path: Path) -> str:
    """Read a text file. Raises FileError if it is missing, too large, or not text."""
    return reading.read_text(path, MAX_BYTES, "a latency table", "give a file in the format of --format")


def require_few(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise FileError(f"{path} has more than {MAX_ROWS:,} rows, the limit of a latency table; check the path")


def parse_latency_ms(text: str, place: str) -> float:
    """Parse a latency in ms. Raises FileError unless it is a finite number above zero. ``place`` is for the message."""
    value = parse_number(text, place)
    if not 0 < value <= MAX_LATENCY_MS:
        raise FileError(f"{place} is {text}; a latency must be above zero and below one day")
    return value


def parse_std_ms(text: str, place: str) -> float:
    value = parse_number(text, place)
    if not 0 <= value <= MAX_LATENCY_MS:
        raise FileError(f"{place} is {text}; a standard deviation must not be negative")
    return value


def parse_deviation(fields: Mapping[str, str], place: Callable[[str], str]) -> float | None:
    """Return the standard deviation in ms from ``std_ms``, ``std``, or a variance in ms²; None if there is none.

    ``place`` describes a field for messages. Raises FileError.
    """
    for name in ("std_ms", "std"):
        if fields.get(name):
            return parse_std_ms(fields[name], place(name))
    for name in ("var_ms2", "var"):
        if fields.get(name):
            variance = parse_number(fields[name], place(name))
            if not 0 <= variance <= MAX_LATENCY_MS**2:
                raise FileError(f"{place(name)} is {fields[name]}; a variance must not be negative")
            return math.sqrt(variance)
    return None


def parse_count(text: str, place: str) -> int:
    value = parse_number(text, place)
    if not 0 <= value <= MAX_SAMPLES or value != int(value):
        raise FileError(f"{place} is {text}; it must be a non-negative integer")
    return int(value)


def parse_number(text: str, place: str) -> float:
    """Parse a plain decimal number: not NaN, infinity, hexadecimal, or other forms that Python or YAML accept."""
    if _NOT_FINITE.fullmatch(text):
        raise FileError(f"{place} is {text}; correct the entry or measure it")
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        raise FileError(f"{place} is {short(text)!r}, which is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise FileError(f"{place} is {text}, which is out of range")
    return value


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "…"
