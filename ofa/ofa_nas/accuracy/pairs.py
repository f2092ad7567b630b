"""Pairs of architecture and accuracy: a text file with one pair per line, to which pairs can be appended.

The first line is a header with the settings: ``{"space", "data", "checkpoint", "images"}``. Each other line is
``{"architecture", "accuracy", "halves"}``. ``accuracy`` is top-1 on all images, 0…1. ``halves`` is top-1 on the even
and on the odd images, which are two evaluations on disjoint sets.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_nas.spaces import Architecture, parse_architecture
from ofa_nas.spaces.space import FloatArray
from ofa_tables.errors import FileError, UsageError
from ofa_tables.reading import parse_json, read_bytes, read_text, require_regular

MAX_BYTES = 128 << 20
# Fractions of networks that are held out of every fit, and that are used for early stopping. A digest of the network
# decides, so a network that occurs twice is always on the same side.
HELD_OUT, STOPPING = 0.1, 0.1


@dataclass(frozen=True)
class Pair:
    architecture: Architecture
    accuracy: float
    halves: tuple[float, float]

    @property
    def draw(self) -> float:
        """A pseudo-random number, 0…1, that depends only on the network."""
        return int(hashlib.sha256(_text(self.architecture).encode()).hexdigest()[:13], 16) / 16**13

    @property
    def is_held_out(self) -> bool:
        return self.draw < HELD_OUT

    @property
    def reports_when_to_stop(self) -> bool:
        return HELD_OUT <= self.draw < HELD_OUT + STOPPING


@dataclass(frozen=True)
class Pairs:
    about: Mapping[str, Any]
    pairs: tuple[Pair, ...]

    @property
    def architectures(self) -> list[Architecture]:
        return [pair.architecture for pair in self.pairs]

    @property
    def accuracies(self) -> FloatArray:
        return np.array([pair.accuracy for pair in self.pairs])

    def only(self, chosen: Sequence[bool]) -> "Pairs":
        return Pairs(self.about, tuple(pair for pair, kept in zip(self.pairs, chosen, strict=True) if kept))


def read_pairs(path: Path) -> Pairs:
    """Read a pairs file. An incomplete last line is ignored. Raises FileError."""
    advice = "give the file that ofa-accuracy collect wrote"
    lines = read_text(path, MAX_BYTES, "a pairs file", advice).split("\n")
    whole = [line for line in lines[:-1] if line.strip()]
    try:
        about, *values = [parse_json(line) for line in whole]
        pairs = tuple(_pair(value) for value in values)
    except (ValueError, KeyError, TypeError, OverflowError, UsageError) as error:
        raise FileError(
            f"{path} is not a valid pairs file ({str(error)[:200]}); use one that ofa-accuracy collect wrote"
        ) from None
    if not (isinstance(about, dict) and isinstance(about.get("space"), str) and type(about.get("images", 0)) is int):
        raise FileError(f"{path} has no header with the space; use a file that ofa-accuracy collect wrote")
    return Pairs(about, pairs)


def begin_pairs(path: Path, about: Mapping[str, Any], flag: str = "--out") -> Pairs:
    """Create a pairs file, or read one that was started with the same settings. Raises FileError, UsageError.

    ``flag`` is the command-line option of the file, for messages.
    """
    if not path.exists() or _is_cut_off(path, about):
        path.unlink(missing_ok=True)
        _append(path, dict(about))
        return Pairs(dict(about), ())
    found = read_pairs(path)
    changed = [f"{name} {found.about.get(name)}" for name in about if found.about.get(name) != about[name]]
    if changed:
        raise UsageError(f"{path} was started with {', '.join(changed)}; use the same values, or another {flag}")
    whole = read_bytes(path, MAX_BYTES, "a pairs file").rfind(b"\n") + 1
    if whole < path.stat().st_size:  # an interrupted write left an incomplete last line
        os.truncate(path, whole)
    return found


def _is_cut_off(path: Path, about: Mapping[str, Any]) -> bool:
    """Return whether the file ends within its first line, after an interrupted write."""
    first = json.dumps(dict(about)).encode()
    require_regular(path)
    return path.stat().st_size <= len(first) and first.startswith(path.read_bytes())


def add_pair(path: Path, pair: Pair) -> None:
    add_pairs(path, [pair])


def add_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    _append(
        path,
        *(
            {"architecture": pair.architecture.to_json(), "accuracy": pair.accuracy, "halves": pair.halves}
            for pair in pairs
        ),
    )


def _append(path: Path, *values: Mapping[str, Any]) -> None:
    try:
        with path.open("a") as file:
            file.write("".join(json.dumps(value) + "\n" for value in values))
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror}; check that its directory exists and is writable"
        ) from None


def _pair(value: Any) -> Pair:
    accuracy, (first, second) = float(value["accuracy"]), value["halves"]
    figures = (accuracy, float(first), float(second))
    if not all(0 <= figure <= 1 for figure in figures):
        raise ValueError(f"accuracies {figures} are not between 0 and 1")
    return Pair(parse_architecture(value["architecture"]), accuracy, figures[1:])


def _text(architecture: Architecture) -> str:
    return json.dumps(architecture.to_json(), sort_keys=True)
