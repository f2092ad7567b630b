"""Space files: TOML, or a Python file and the name of a Space in it. The built-in spaces are such files, too.

A *definition* is the content of a space file as plain values. Tables, checkpoints and pairs files keep it, so that
later commands find the space without its file.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from ofa_agent.operators import InvalidBlock
from ofa_nas.spaces.alternatives import AlternativesSpace
from ofa_nas.spaces.alternatives_file import define_alternatives, read_alternatives
from ofa_nas.spaces.bottlenecks import BottleneckSpace
from ofa_nas.spaces.definitions import (
    Definition,
    define_bottlenecks,
    define_inverted_residuals,
    read_bottlenecks,
    read_inverted_residuals,
)
from ofa_nas.spaces.fields import Fields
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces.python_file import read_python
from ofa_nas.spaces.space import Space
from ofa_tables.errors import FileError, OfaError, UsageError
from ofa_tables.reading import read_text

MAX_BYTES = 1 << 18
DEEPEST_LIKE = 5
# The largest space, at all resolutions together: joint codes of its positions, and operators of its entries.
MOST_CODES, MOST_OPERATORS = 1 << 22, 1 << 17
EXAMPLE = "my_space.toml, or my_file.py:NAME"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_PYTHON = re.compile(r"(.+\.py)(?::(\w+))?", re.DOTALL)


@dataclass(frozen=True)
class Family:
    """A family of spaces: the class, and how it is made of a definition, and the reverse."""

    made: type[Space]
    read: Callable[[str, Fields], Space]
    define: Callable[[Any], dict[str, Any]]


FAMILIES = {
    "inverted-residuals": Family(InvertedResidualSpace, read_inverted_residuals, define_inverted_residuals),
    "bottlenecks": Family(BottleneckSpace, read_bottlenecks, define_bottlenecks),
    "alternatives": Family(AlternativesSpace, read_alternatives, define_alternatives),
}


class BuiltIn(Mapping[str, Space]):
    """The built-in spaces by name. Each file is read when its space is first asked for."""

    NAMES = (
        "ofa-mbv3-w1.0",
        "ofa-mbv3-w1.2",
        "compofa-fixed-w1.0",
        "compofa-elastic-w1.0",
        "compofa-tiny",
        "ofa-proxyless-w1.3",
        "ofa-resnet50d",
        "tiny",
    )

    def __getitem__(self, name: str) -> Space:
        if name not in self.NAMES:
            raise KeyError(name)
        return _built_in(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.NAMES)

    def __len__(self) -> int:
        return len(self.NAMES)


def is_file(name: str) -> bool:
    """Whether a text names a space file, not a space."""
    return name.endswith(".toml") or _PYTHON.fullmatch(name) is not None or "/" in name


def read_space(source: str) -> Space:
    """Read the space of ``FILE.toml`` or ``FILE.py:NAME``. Raises FileError; UsageError for another kind of file."""
    python = _PYTHON.fullmatch(source)
    if python is not None:
        file, name = python.groups()
        space = checked(read_python(Path(file), name), source)
    elif source.endswith(".toml"):
        path = Path(source)
        space = _of_text(read_text(path, MAX_BYTES, "a space file", "it must be TOML"), path)
    else:
        raise UsageError(f"{source} is not a space file; give {EXAMPLE}")
    space.source = source
    return space


def space_of(definition: Definition, name: str, origin: str) -> Space:
    """Make the space of a definition that a file keeps. ``origin`` is for messages. Raises FileError."""
    return checked(_read(name, dict(definition), origin), origin)


def definition_of(space: Space) -> dict[str, Any] | None:
    """Return the definition of a space; None if its class is not one of ours, or no file can express it."""
    name = next((name for name, family in FAMILIES.items() if type(space) is family.made), None)
    if name is None:
        return None
    try:
        definition = {"family": name, **FAMILIES[name].define(space)}
        again = _read(space.name, definition, space.name)
        return definition if FAMILIES[name].define(again) | {"family": name} == definition else None
    except (OfaError, StopIteration):
        return None


def require_free_name(space: Space, origin: str, named: Space | None) -> None:
    """Raise FileError if ``named``, the space that the name finds without the file, is another one."""
    if named is not None and named is not space and definition_of(named) != definition_of(space):
        raise FileError(f"{origin}: there is another space named {space.name}; choose another name in the file")


def with_width(name: str, width: float) -> Space:
    """Return a built-in space with another multiplier of its channels."""
    values = _flattened(*_built_in_values(name))
    return _read(f"{name} of width {width:g}", {**values, "width": width}, name)


def checked(space: Space, origin: str) -> Space:
    """Check the blocks and the size of a space that did not come with this package. Raises FileError."""
    try:
        largest = space.blocks(max(space.resolutions_px))
    except InvalidBlock as error:
        raise FileError(f"{origin}: {error}") from None
    codes = sum(position.entries.size for position in space.positions) * len(space.resolutions_px)
    operators = sum(len(block.operators) for block in largest) * len(space.resolutions_px)
    if codes > MOST_CODES or operators > MOST_OPERATORS:
        raise FileError(
            f"{origin}: the space is too large: it has {len(largest):,} entries at {len(space.resolutions_px)} "
            "resolutions; use fewer resolutions or choices"
        )
    for px in space.resolutions_px:
        try:
            blocks = space.blocks(px)
            macs = [block.macs for block in blocks]
        except InvalidBlock as error:
            raise FileError(f"{origin}: at {px} px, {error}") from None
        if not sum(macs):
            raise FileError(f"{origin}: no block does any work; add a convolution")
        known: dict[str, Any] = {}
        for block in blocks:
            if known.setdefault(block.key, block.operators) != block.operators:
                raise FileError(
                    f"{origin}: at {px} px, two different blocks have the key {block.key}; give one of them another "
                    "kernel size or other channels"
                )
    return space


@lru_cache(maxsize=64)
def _of_text(text: str, path: Path) -> Space:
    origin = str(path)
    values = _flattened(parse_toml(text, origin), origin, path.parent)
    name = values.pop("name", path.stem)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FileError(
            f"{origin}: name is {str(name)[:60]!r}; it must have letters, digits, dots, hyphens and underscores, and "
            'begin with a letter or digit: name = "my-space"'
        )
    return checked(_read(name, values, origin), origin)


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """Raises FileError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise FileError(f"{origin} is nested too deeply for a space file") from None
    except ValueError as error:  # also integers with too many digits
        raise FileError(f"{origin} is not valid TOML: {str(error)[:200]}") from None


def _flattened(values: dict[str, Any], origin: str, folder: Path | None = None, depth: int = 0) -> dict[str, Any]:
    """Return the values with those of the space that ``like`` names, if it does. ``folder`` is None if built in."""
    like = values.get("like")
    if like is None:
        return dict(values)
    if not isinstance(like, str) or depth >= DEEPEST_LIKE:
        raise FileError(f"{origin}: like must name a space or a space file, and at most {DEEPEST_LIKE} in a row")
    if like in BuiltIn.NAMES:
        base = _flattened(*_built_in_values(like), depth=depth + 1)
    elif folder is not None and like.endswith(".toml"):
        path = folder / like
        text = read_text(path, MAX_BYTES, "a space file", "it must be TOML")
        base = _flattened(parse_toml(text, str(path)), str(path), path.parent, depth + 1)
    else:
        raise FileError(
            f'{origin}: like is {like[:60]!r}; it must be a file such as "other.toml", or one of '
            f"{', '.join(BuiltIn.NAMES)}"
        )
    own = {name: value for name, value in values.items() if name != "like"}
    return {name: value for name, value in base.items() if name != "name"} | own


def _read(name: str, values: dict[str, Any], origin: str) -> Space:
    fields = Fields(values, origin)
    return FAMILIES[fields.one_of("family", list(FAMILIES))].read(name, fields)


@cache
def _built_in(name: str) -> Space:
    values, origin = _built_in_values(name)
    return _read(name, _flattened(values, origin), origin)


@cache
def _built_in_values(name: str) -> tuple[dict[str, Any], str]:
    origin = f"{name}.toml"
    file = resources.files("ofa_nas.spaces").joinpath("built_in", origin)
    return parse_toml(file.read_text("utf-8"), origin), origin
