"""Spaces by name. Other packages add spaces through the entry point group ``ofa_nas.spaces``."""

from collections.abc import Collection, Sequence

from ofa_agent.operators import Block
from ofa_nas.spaces import compofa, mobilenet_v3, proxyless, resnet50d, tiny
from ofa_nas.spaces.architecture import Architecture, parse_architecture
from ofa_nas.spaces.reading import architecture_in, read_architectures
from ofa_nas.spaces.space import ABSENT, Population, Pricer, Space
from ofa_tables import plugins

__all__ = [
    "ABSENT",
    "Architecture",
    "Population",
    "Pricer",
    "Space",
    "all_spaces",
    "architecture_in",
    "find_blocks",
    "find_space",
    "parse_architecture",
    "read_architectures",
]

_BUILT_IN: dict[str, Space] = {
    space.name: space
    for space in (
        mobilenet_v3.OFA_W10,
        mobilenet_v3.OFA_W12,
        compofa.FIXED_W10,
        compofa.ELASTIC_W10,
        compofa.TINY,
        proxyless.OFA_W13,
        resnet50d.OFA_RESNET50D,
        tiny.TINY,
    )
}


def find_space(name: str) -> Space:
    """Return the space with this name. Raises UnknownName, which lists the closest names."""
    space: Space = plugins.find("space", "ofa_nas.spaces", name, _BUILT_IN)
    return space


def all_spaces() -> list[Space]:
    return plugins.find_all("ofa_nas.spaces", _BUILT_IN)


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
