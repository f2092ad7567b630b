"""Find out which space, or which width of a family, a set of keys belongs to."""

from collections.abc import Collection, Iterator

from ofa_nas.spaces import all_spaces
from ofa_nas.spaces.files import with_width

FAMILIES = {"ofa-mbv3": "ofa-mbv3-w1.0", "ofa-proxyless": "ofa-proxyless-w1.3"}
WIDTHS = (0.35, 0.5, 0.6, 0.75, 0.8, 0.9, 1.0, 1.1, 1.2, 1.25, 1.3, 1.4, 1.5, 1.75, 2.0)
# The least fraction of the keys of a space that must be there.
ENOUGH = 0.5


def resembling(keys: Collection[str], resolution_px: int) -> str:
    """Describe the space that has most of these keys at this resolution; empty if none has half of its own."""
    given = set(keys)
    best, text = ENOUGH, ""
    for description, own in _candidates(resolution_px):
        found = len(given.intersection(own)) / len(own)
        if found > best:
            best, text = found, description
    return text


def _candidates(resolution_px: int) -> Iterator[tuple[str, list[str]]]:
    for space in all_spaces():
        if resolution_px in space.resolutions_px:
            yield f"{space.name}; use --space {space.name}", space.keys(resolution_px)
    for family, name in FAMILIES.items():
        for width in WIDTHS:
            space = with_width(name, width)
            if resolution_px in space.resolutions_px:
                yield f"{family} of width {width:g}, which is not a space of this version", space.keys(resolution_px)
