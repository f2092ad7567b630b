"""Find objects by name: built-in ones, and entry points of other distributions."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ofa_tables.errors import OfaError, UnknownName


def find(kind: str, group: str, name: str, built_in: Mapping[str, Any], otherwise: str = "") -> Any:
    """Return the object called ``name``: a built-in one, or an entry point of ``group``.

    ``otherwise`` is what to do if it is neither, for the message.

    Raises UnknownName, and OfaError if a plug-in does not load.
    """
    if name in built_in:
        return built_in[name]
    others = {point.name: point for point in entry_points(group=group)}
    if name in others:
        return _load(others[name])
    raise UnknownName(kind, name, [*built_in, *others], otherwise)


def find_all(group: str, built_in: Mapping[str, Any]) -> list[Any]:
    """Return the built-in objects and those of every entry point of ``group``. Raises OfaError if one does not load."""
    others = {point.name: point for point in entry_points(group=group) if point.name not in built_in}
    return [*built_in.values(), *map(_load, others.values())]


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # the code of a plug-in can raise anything
        owner = point.dist.name if point.dist else point.value
        raise OfaError(f"the plug-in {point.name} of {owner} does not load: {error}; update or uninstall it") from error
