"""Spaces by name, or from files. Other packages add spaces through the entry point group ``ofa_nas.spaces``.

``built_in/`` has the files of the built-in spaces. ``docs/spaces.md`` describes space files.
"""

from collections import ChainMap
from collections.abc import Collection, Iterable, Sequence

from ofa_agent.operators import Block
from ofa_nas.spaces.architecture import Architecture, parse_architecture
from ofa_nas.spaces.files import BuiltIn, is_file, read_space, require_free_name
from ofa_nas.spaces.reading import architecture_in, read_architectures
from ofa_nas.spaces.space import ABSENT, Population, Pricer, Space
from ofa_tables import plugins
from ofa_tables.errors import UnknownName

__all__ = [
    "ABSENT",
    "Architecture",
    "Population",
    "Pricer",
    "Space",
    "all_spaces",
    "architecture_in",
    "find_blocks",
    "find_named",
    "find_space",
    "parse_architecture",
    "read_architectures",
]

_GROUP = "ofa_nas.spaces"
_BUILT_IN = BuiltIn()


def find_space(name: str, known: Iterable[Space] = ()) -> Space:
    """Return the space with this name, also one of ``known``, or the space of a file: FILE.toml, FILE.py:NAME.

    Raises UnknownName, which lists the closest names; FileError and UsageError for a file.
    """
    if is_file(name):
        space = read_space(name)
        require_free_name(space, name, find_named(space.name))
        return space
    by_name = ChainMap({space.name: space for space in known}, _BUILT_IN)  # type: ignore[arg-type]
    found: Space = plugins.find("space", _GROUP, name, by_name, "a space file is given as --space my_space.toml")
    return found


def find_named(name: str) -> Space | None:
    """Return the built-in space or the space of another package with this name, if there is one."""
    try:
        found: Space = plugins.find("space", _GROUP, name, _BUILT_IN)
    except UnknownName:
        return None
    return found


def all_spaces() -> list[Space]:
    return plugins.find_all(_GROUP, _BUILT_IN)


def find_blocks(keys: Collection[str], first: Sequence[Space] = ()) -> dict[str, Block]:
    """Return the blocks with these keys, by key. The spaces ``first`` are looked through before the others."""
    found: dict[str, Block] = {}
    left = set(keys)
    for space in (*first, *all_spaces()):
        if not left:
            break
        blocks = (block for px in space.resolutions_px for block in space.blocks(px))
        found |= {block.key: block for block in blocks if block.key in left}
        left -= found.keys()
    return found
