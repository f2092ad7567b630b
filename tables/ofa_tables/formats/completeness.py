"""Check that a file has every entry of a space exactly once."""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from ofa_tables.errors import FileError
from ofa_tables.formats.format import PublishedEntry, short
from ofa_tables.model.space import Space
from ofa_tables.words import counted


def require_resolution(path: Path, space: Space, resolution_px: int) -> None:
    if resolution_px not in space.resolutions_px:
        known = ", ".join(map(str, space.resolutions_px))
        raise FileError(f"{path} is for {resolution_px} px, which {space.name} does not have; it has {known}")


def require_no_repeats(path: Path, entries: Sequence[PublishedEntry]) -> None:
    lines: dict[tuple[str, int | None], int] = {}
    for entry in entries:
        place = (entry.key, entry.resolution_px)
        if place in lines:
            raise FileError(
                f"{path}, line {entry.line}: {short(entry.key)} is already in line {lines[place]}; remove one of them"
            )
        lines[place] = entry.line


def require_whole(path: Path, entries: Sequence[PublishedEntry], space: Space, resolution_px: int) -> None:
    """Check that a file has exactly the entries of one resolution. Raises FileError with missing and unknown keys."""
    wanted = space.keys(resolution_px)
    known = set(wanted)
    given = {entry.key for entry in entries}
    missing = [key for key in wanted if key not in given]
    unknown = [entry for entry in entries if entry.key not in known]
    if not missing and not unknown:
        return
    complaints = []
    if missing:
        complaints.append(f"lacks {len(missing)} of {len(wanted)} keys (the first: {missing[0]})")
    if unknown:
        complaints.append(f"has {counted(len(unknown), 'unknown key')} ({describe_unknown(unknown[0], wanted)})")
    hint = "complete or correct the file"
    if 2 * len(missing) >= len(wanted):
        alike = space.resembling(given, resolution_px)
        hint = f"it looks like a table of {alike}" if alike else "is it for another space?"
    raise FileError(f"{path} for {space.name} at {resolution_px} px {' and '.join(complaints)}; {hint}")


def require_known(path: Path, entries: Sequence[PublishedEntry], known: Collection[str], space: Space) -> None:
    unknown = [entry for entry in entries if entry.key not in known]
    if unknown:
        given = {entry.key for entry in entries}
        alike = next(filter(None, (space.resembling(given, px) for px in reversed(space.resolutions_px))), "")
        raise FileError(
            f"{path} has {len(unknown)} keys that {space.name} does not have "
            f"({describe_unknown(unknown[0], known)}); "
            + (f"it looks like a table of {alike}" if alike else "is it for another space?")
        )


def describe_unknown(entry: PublishedEntry, known: Collection[str]) -> str:
    near = difflib.get_close_matches(entry.key[:200], known, n=1)
    return f"line {entry.line}: {short(entry.key)}" + (f"; the nearest is {near[0]}" if near else "")
