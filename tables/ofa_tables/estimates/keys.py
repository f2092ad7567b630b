"""Parse a published key: kind, sizes, and place in the network."""

import re
from collections.abc import Sequence
from functools import lru_cache

_MAPS = re.compile(r"-input:(\d+)x\1x(\d+)-output:(\d+)x\3x(\d+)")
_WIDTH_AND_KERNEL = re.compile(r"-expand:(\d+)-kernel:(\d+)(?=-)")


@lru_cache(maxsize=1 << 14)
def kind_and_size(key: str) -> tuple[str, int] | None:
    """Split a key into its kind and the input size in pixels; None for keys without a feature map.

    Blocks of one kind differ only in the size of their feature maps.
    """
    found = _MAPS.search(key)
    if found is None:
        return None
    return f"{key[: found.start()]}-{found.group(2)}-{found.group(4)}{key[found.end() :]}", int(found.group(1))


def width_and_kernel(key: str) -> tuple[str, int, int] | None:
    """Split a key into (the rest of the key, mid channels, kernel size); None for keys without them."""
    found = _WIDTH_AND_KERNEL.search(key)
    if found is None:
        return None
    return key[: found.start()] + key[found.end() :], int(found.group(1)), int(found.group(2))


@lru_cache(maxsize=1 << 14)
def place(key: str) -> str:
    """Return the part of a key that all blocks at one place of a network share, at any resolution."""
    kind = kind_and_size(key)
    rest = kind[0] if kind else key
    narrowed = width_and_kernel(rest)
    return narrowed[0] if narrowed else rest


def some(keys: Sequence[str], listed: int = 3) -> str:
    """Format the first keys and the number of further ones."""
    more = len(keys) - listed
    return ", ".join(keys[:listed]) + (f" and {more} more" if more > 0 else "")
