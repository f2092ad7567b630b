"""Select networks in every form of ``spaces.reading``, and by name from a file of ``ofa-search``: ``FILE:NAME``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ofa_nas.spaces import Architecture, Space, read_architectures
from ofa_nas.spaces.network_config import is_network_config
from ofa_nas.spaces.reading import architectures_in, is_inline, read_value
from ofa_tables.errors import UnknownName, UsageError


def read_networks(
    source: str, space: Space | None = None, resolutions_px: Sequence[int] | None = None
) -> tuple[list[Architecture], bool]:
    """Read networks from a source of ``read_architectures``, or one network from ``FILE:NAME``.

    Also returns whether the source is a list of networks. Raises UnknownName, which lists the names.
    """
    file, name = _choice(source)
    if not name:
        return read_architectures(source, space, resolutions_px)
    named = _named(file)
    if not named:
        raise UsageError(f"{file} does not name its networks; omit :{name}")
    if name not in named:
        raise UnknownName(f"network of {file}", name, named)
    found = list(architectures_in(named[name], space, resolutions_px))
    return found, len(found) > 1


def read_names(source: str, space: Space | None = None) -> list[tuple[str, Architecture]]:
    """Read the named networks of a source, with their names."""
    if is_inline(source):
        return []
    file, name = _choice(source)
    chosen = [(found, value) for found, value in _named(file).items() if name in ("", found)]
    return [(found, network) for found, value in chosen for network in architectures_in(value, space)]


def read_network(
    source: str, taker: str, space: Space | None = None, resolutions_px: Sequence[int] | None = None
) -> Architecture:
    """Read one network. Raises UsageError, which lists the names, if the source has several."""
    networks, _ = read_networks(source, space, resolutions_px)
    if len(networks) > 1:
        names = [] if is_inline(source) else list(_named(source))
        choice = f"; add a name, such as {source}:{names[0]}; names: {', '.join(names)}" if names else ""
        raise UsageError(f"--architecture contains {len(networks)} networks, but {taker} takes one{choice}")
    return networks[0]


def _choice(source: str) -> tuple[str, str]:
    """Split ``FILE:NAME``. The name is empty if the source is a file, or an architecture."""
    file, colon, name = source.rpartition(":")
    if not colon or is_inline(source) or Path(source).exists() or not Path(file).exists():
        return source, ""
    return file, name


def _named(file: str) -> dict[str, Any]:
    return dict(_find(read_value(file)))


def _find(value: Any) -> Iterator[tuple[str, Any]]:
    if is_network_config(value):  # its name is that of a class
        return
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        yield value["name"], value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _find(inner)
