"""Architectures, and their JSON form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa_tables.errors import UsageError

RESOLUTION = ("r", "image_size")
LONGEST_NAME = 60  # characters
NAMED = "alternatives"  # the gene list of names; the others have numbers
EXAMPLE = '{"ks": 7, "e": 6, "d": 4, "r": 224}'  # of ofa-mbv3-w1.0


@dataclass(frozen=True)
class Architecture:
    """One member of a Space: gene lists by name (``ks``, ``e``, ``d`` for MobileNetV3) and a resolution in px."""

    genes: Mapping[str, tuple[Any, ...]]
    resolution_px: int

    def to_json(self) -> dict[str, Any]:
        """Return ``{"ks": […], "e": […], "d": […], "r": 160}``."""
        return {**{name: list(values) for name, values in self.genes.items()}, "r": self.resolution_px}


def parse_architecture(value: Any, example: str = EXAMPLE) -> Architecture:
    """Parse gene lists, and the resolution as ``r`` (number or list of one) or ``image_size``. Raises UsageError."""
    if not isinstance(value, Mapping):
        raise UsageError(f"an architecture is an object such as {example}, not {short(value)}")
    resolution = next((value[name] for name in RESOLUTION if name in value), None)
    if isinstance(resolution, list | tuple) and len(resolution) == 1:
        resolution = resolution[0]
    resolution = _whole(resolution)
    if not isinstance(resolution, int) or isinstance(resolution, bool):
        raise UsageError(f"an architecture needs a resolution, as in {example}, not {short(resolution)}")
    genes = {}
    for name, entries in value.items():
        if name in RESOLUTION or not isinstance(entries, list | tuple):
            continue
        is_fitting = is_name if name == NAMED else is_number
        if not all(map(is_fitting, entries)):
            kind = "name" if name == NAMED else "number"
            raise UsageError(f"'{name}' of the architecture has a value that is not a {kind}: {short(list(entries))}")
        genes[str(name)] = tuple(_whole(entry) for entry in entries)
    return Architecture(genes, resolution)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME


def short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
