"""Architectures, and their published JSON forms."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_tables.errors import FileError, UsageError

# Keys under which published files and our files store architectures.
_WRAPPERS = ("architecture", "architectures", "networks", "front", "results")


@dataclass(frozen=True)
class Architecture:
    """One member of a Space: gene lists by name (``ks``, ``e``, ``d`` for MobileNetV3) and a resolution in px."""

    genes: Mapping[str, tuple[Any, ...]]
    resolution_px: int

    def to_json(self) -> dict[str, Any]:
        """Return ``{"ks": […], "e": […], "d": […], "r": 160}``."""
        return {**{name: list(values) for name, values in self.genes.items()}, "r": self.resolution_px}


def parse_architecture(value: Any) -> Architecture:
    """Parse gene lists, and the resolution as ``r`` (number or list of one) or ``image_size``. Raises UsageError."""
    if not isinstance(value, Mapping):
        raise UsageError(
            f"an architecture is an object such as {{'ks': […], 'e': […], 'd': […], 'r': 160}}, not {_short(value)}"
        )
    resolution = value.get("r", value.get("image_size"))
    if isinstance(resolution, list) and len(resolution) == 1:
        resolution = resolution[0]
    if not _is_int(resolution):
        raise UsageError(
            f"an architecture needs a resolution, such as 'r': 160 or 'image_size': 160, not {_short(resolution)}"
        )
    genes = {}
    for name, entries in value.items():
        if name in ("r", "image_size") or not isinstance(entries, list):
            continue
        if not all(_is_int(entry) or isinstance(entry, float) for entry in entries):
            raise UsageError(f"'{name}' of the architecture has a value that is not a number: {_short(entries)}")
        genes[name] = tuple(entries)
    return Architecture(genes, resolution)


def read_architectures(source: str) -> tuple[list[Architecture], bool]:
    """Read architectures from JSON text or from the path of a JSON file. Also return whether the source is a list.

    Raises UsageError for invalid JSON or architectures, and FileError if the file cannot be read.
    """
    text = source if source.lstrip()[:1] in ("{", "[") else _read(Path(source))
    try:
        value = json.loads(text)
        found = list(_find(value))
    except RecursionError:
        raise UsageError(f"{_short(source)} is nested too deeply for architectures") from None
    except ValueError as error:
        raise UsageError(
            f"{_short(source)} is not JSON ({error}); "
            "an architecture looks like {'ks': […], 'e': […], 'd': […], 'r': 160}"
        ) from None
    if not found:
        raise UsageError(f"{_short(source)} does not contain an architecture")
    return found, len(found) > 1 or isinstance(value, list)


def _find(value: Any) -> Iterator[Architecture]:
    if isinstance(value, list):
        for item in value:
            yield from _find(item)
    elif isinstance(value, Mapping) and any(name in value for name in _WRAPPERS):
        for name in _WRAPPERS:
            if name in value:
                yield from _find(value[name])
    else:
        yield parse_architecture(value)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}; give a JSON file or the JSON itself") from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is not a text file; give a JSON file or the JSON itself") from None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
