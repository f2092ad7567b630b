"""Select a network by name from a file that ``ofa-search`` wrote: ``FILE:NAME``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ofa_nas.spaces import Architecture, read_architectures
from ofa_tables.errors import UnknownName, UsageError


def read_networks(source: str) -> tuple[list[Architecture], bool]:
    """Read networks from a source of ``read_architectures``, or one network from ``FILE:NAME``.

    Also returns whether the source is a list of networks. Raises UnknownName, which lists the names.
    """
    file, name = _choice(source)
    if not name:
        return read_architectures(source)
    named = _named(file)
    if not named:
        raise UsageError(f"{file} does not name its networks; omit :{name}")
    if name not in named:
        raise UnknownName(f"network of {file}", name, named)
    return read_architectures(json.dumps(named[name]))


def read_names(source: str) -> list[tuple[str, Architecture]]:
    """Read the named networks of a source, with their names."""
    if is_json(source):
        return []
    file, name = _choice(source)
    chosen = [(found, value) for found, value in _named(file).items() if name in ("", found)]
    return [(found, network) for found, value in chosen for network in read_architectures(json.dumps(value))[0]]


def read_network(source: str, taker: str) -> Architecture:
    """Read one network. Raises UsageError, which lists the names, if the source has several."""
    networks, _ = read_networks(source)
    if len(networks) > 1:
        names = [] if is_json(source) else list(_named(source))
        choice = f"; add a name, such as {source}:{names[0]}; names: {', '.join(names)}" if names else ""
        raise UsageError(f"--architecture contains {len(networks)} networks, but {taker} takes one{choice}")
    return networks[0]


def _choice(source: str) -> tuple[str, str]:
    """Split ``FILE:NAME``. The name is empty if the source is a file, or JSON."""
    file, colon, name = source.rpartition(":")
    if not colon or is_json(source) or Path(source).exists() or not Path(file).exists():
        return source, ""
    return file, name


def _named(file: str) -> dict[str, Any]:
    read_architectures(file)  # raises an error for an invalid file
    return dict(_find(json.loads(Path(file).read_text())))


def _find(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        yield value["name"], value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _find(inner)


def is_json(source: str) -> bool:
    """Return whether the source is JSON text, not a path."""
    return source.lstrip()[:1] in ("{", "[")
