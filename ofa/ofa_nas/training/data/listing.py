"""List the images below a directory, and find copies among them."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
# Directories of macOS, NAS devices, Windows and notebooks. Names that start with a dot are hidden, too.
NOT_DATA = frozenset({"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"})
MOST_COMPARED = 100_000  # files; more would take minutes to read
END_BYTES = 4096


def is_hidden(name: str) -> bool:
    """Whether a file or a directory belongs to a system or a program, and is not a user's."""
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in NOT_DATA


def images_below(folder: Path) -> tuple[list[Path], int]:
    """(images, number of hidden files with the suffix of an image), sorted by path."""
    found: list[Path] = []
    hidden = 0
    for place, folders, files in os.walk(folder):
        images = [name for name in files if Path(name.rstrip("~")).suffix.lower() in SUFFIXES]
        visible = [name for name in images if not is_hidden(name)]
        hidden += len(images) - len(visible)
        hidden += sum(_count_images(Path(place, name)) for name in folders if is_hidden(name))
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(place, name) for name in visible]
    return sorted(found), hidden


def _count_images(folder: Path) -> int:
    return sum(Path(name).suffix.lower() in SUFFIXES for _, _, files in os.walk(folder) for name in files)


def first_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """For each file with the same content as an earlier one: the first of these. Empty if there are too many files.

    Files of the same size are compared by their ends, and those of the same end by a digest of all of it.
    """
    if len(paths) > MOST_COMPARED:
        return {}
    groups: Iterable[Sequence[Path]] = [paths]
    for key in (_size, _end, _digest):
        groups = [alike for group in groups for alike in _alike(group, key)]
    return {copy: first for first, *copies in groups for copy in copies}


def _alike(paths: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """The groups of at least two paths that have the same key. Files that cannot be read are left out."""
    found: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            found[key(path)].append(path)
        except OSError:  # reported where it is decoded
            continue
    return [group for group in found.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(END_BYTES, path.stat().st_size), os.SEEK_END)
        return hashlib.blake2b(file.read()).digest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
