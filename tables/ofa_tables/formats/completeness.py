"""Check that a file has every entry of a space exactly once."""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from ofa_tables.errors import FileError
from ofa_tables.formats.format import Figure, short
from ofa_tables.model.latency_model import Space


def require_resolution(path: Path, space: Space, resolution_px: int) -> None:
    if resolution_px not in space.resolutions_px:
        known = ", ".join(map(str, space.resolutions_px))
        raise FileError(f"{path} is for {resolution_px} px, which {space.name} does not have; it has {known}")


def require_no_repeats(path: Path, figures: Sequence[Figure]) -> None:
    lines: dict[tuple[str, int | None], int] = {}
    for figure in figures:
        place = (figure.key, figure.resolution_px)
        if place in lines:
            raise FileError(
                f"{path}, line {figure.line}: {short(figure.key)} is there already, in line {lines[place]}; "
                "remove the wrong one"
            )
        lines[place] = figure.line


def require_whole(path: Path, figures: Sequence[Figure], space: Space, resolution_px: int) -> None:
    """The Figures are the entries of one resolution. Raises FileError: how many of how many are missing or unknown."""
    wanted = space.keys(resolution_px)
    known = set(wanted)
    given = {figure.key for figure in figures}
    missing = [key for key in wanted if key not in given]
    unknown = [figure for figure in figures if figure.key not in known]
    if not missing and not unknown:
        return
    complaints = []
    if missing:
        complaints.append(f"lacks {len(missing)} of {len(wanted)} keys (the first: {missing[0]})")
    if unknown:
        complaints.append(f"has {len(unknown)} that are not its keys ({describe_unknown(unknown[0], wanted)})")
    hint = "is it for another space?" if 2 * len(missing) >= len(wanted) else "complete or correct the file"
    raise FileError(f"{path} for {space.name} at {resolution_px} px {' and '.join(complaints)}; {hint}")


def require_known(path: Path, figures: Sequence[Figure], known: Collection[str], space: Space) -> None:
    unknown = [figure for figure in figures if figure.key not in known]
    if unknown:
        raise FileError(
            f"{path} has {len(unknown)} keys that {space.name} does not have "
            f"({describe_unknown(unknown[0], known)}); is it for another space?"
        )


def describe_unknown(figure: Figure, known: Collection[str]) -> str:
    near = difflib.get_close_matches(figure.key[:200], known, n=1)
    return f"line {figure.line}: {short(figure.key)}" + (f"; the nearest is {near[0]}" if near else "")
