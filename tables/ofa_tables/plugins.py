"""Find objects by name: built-in ones, and entry points of other distributions."""

from importlib.metadata import entry_points
from typing import Any

from ofa_tables.errors import UnknownName


def find(kind: str, group: str, name: str, built_in: dict[str, Any]) -> Any:
    """Return the object called ``name``: a built-in one, or an entry point of ``group``. Raises UnknownName."""
    if name in built_in:
        return built_in[name]
    others = {point.name: point for point in entry_points(group=group)}
    if name in others:
        return others[name].load()
    raise UnknownName(kind, name, [*built_in, *others])


def find_all(group: str, built_in: dict[str, Any]) -> list[Any]:
    """Return the built-in objects and those of every entry point of ``group``."""
    others = {point.name: point for point in entry_points(group=group) if point.name not in built_in}
    return [*built_in.values(), *(point.load() for point in others.values())]
