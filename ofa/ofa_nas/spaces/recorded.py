"""Spaces that tables, checkpoints and pairs files keep, so that later commands find them without their files.

A table keeps the definition of every space that it was used with and that no name finds otherwise. Of a space that only
Python code defines, it keeps the name: code of a table is never run.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from ofa_nas.spaces import all_spaces, find_named, find_space
from ofa_nas.spaces.files import definition_of, is_file, space_of
from ofa_nas.spaces.space import Space
from ofa_tables.errors import TableMismatch, UsageError
from ofa_tables.store.merge import SPACES
from ofa_tables.table import LatencyTable

NAME, DEFINITION = "space", "space_definition"
_IN_CODE = {"code": True}  # instead of a definition


def record(table: LatencyTable, space: Space) -> None:
    """Keep a space in a table that is open for writing. Raises TableMismatch if it has another one of this name."""
    if _is_known(space):
        return
    _require_same(table, space)
    definition = definition_of(space)
    table.store.put(SPACES + space.name, _IN_CODE if definition is None else definition)


def recorded(table: LatencyTable) -> list[Space]:
    """Return the spaces that a table keeps. Raises FileError if a definition is damaged."""
    values = {name.removeprefix(SPACES): table.store.get(name) for name in table.store.names(SPACES)}
    return [_space(name, value, str(table.path)) for name, value in values.items() if value != _IN_CODE]


def spaces_of(table: LatencyTable) -> list[Space]:
    """Return the spaces that a table keeps, then all others."""
    kept = recorded(table)
    names = {space.name for space in kept}
    return [*kept, *(space for space in all_spaces() if space.name not in names)]


def find_space_of(name: str, table: LatencyTable) -> Space:
    """Return the space of this name or file, also if only the table has it.

    Raises as ``find_space`` does, and TableMismatch if the table keeps another space of this name.
    """
    return _found(name, [table])


def find_space_in(name: str, paths: Iterable[Path]) -> Space:
    """Return the space of this name or file, also if only one of these tables has it. A missing table has none."""
    if not is_file(name) and _is_name(name):
        return find_space(name)  # without opening the tables
    with ExitStack() as opened:
        return _found(name, [opened.enter_context(LatencyTable.read(path)) for path in paths if path.exists()])


def _found(name: str, tables: Sequence[LatencyTable]) -> Space:
    kept = [space for table in tables for space in recorded(table)]
    if not is_file(name) and not _is_name(name) and name not in {space.name for space in kept}:
        for table in tables:
            if table.store.get(SPACES + name) == _IN_CODE:
                raise UsageError(
                    f"{table.path} has only the name of the space {name}, which Python code defines; give its file, as "
                    "in --space my_file.py:NAME"
                )
    space = find_space(name, kept)
    for table in tables:
        _require_same(table, space)
    return space


def about(space: Space) -> dict[str, Any]:
    """Return what a checkpoint or a pairs file keeps of its space: its name; its definition if no name finds it."""
    definition = None if _is_known(space) else definition_of(space)
    return {NAME: space.name} if definition is None else {NAME: space.name, DEFINITION: definition}


def label(space: Space) -> str:
    """Return the name of a space; with a digest of its definition if the name is not enough to find it."""
    definition = about(space).get(DEFINITION)
    if definition is None:
        return space.name
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
    return f"{space.name} (definition {digest[:8]})"


def space_about(found: Mapping[str, Any], origin: str) -> Space:
    """Return the space of ``about``. Raises FileError if the definition is damaged, else as ``find_space`` does."""
    name, definition = str(found[NAME]), found.get(DEFINITION)
    return find_space(name) if definition is None else _space(name, definition, origin)


def _space(name: str, definition: Any, origin: str) -> Space:
    return _of_json(name, json.dumps(definition, default=str, sort_keys=True), f"the space {name} in {origin}")


@lru_cache(maxsize=32)
def _of_json(name: str, text: str, origin: str) -> Space:
    definition = json.loads(text)
    return space_of(definition if isinstance(definition, dict) else {}, name, origin)


def _is_known(space: Space) -> bool:
    return find_named(space.name) is space


def _is_name(name: str) -> bool:
    return find_named(name) is not None


def _require_same(table: LatencyTable, space: Space) -> None:
    kept = table.store.get(SPACES + space.name)
    if kept is None:
        return
    there = None if kept == _IN_CODE else definition_of(_space(space.name, kept, str(table.path)))
    here = definition_of(space)
    if there != here:
        raise TableMismatch(
            f"{table.path} has another space named {space.name} ({difference(there, here)}); give this one another "
            f"name, with which it reuses the entries of the table, or use the one of the table: --space {space.name}"
        )


def difference(there: Any, here: Any, place: str = "") -> str:
    """Describe the first difference of two definitions, such as "stages 2: channels 40 there, 48 here"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in dict.fromkeys([*there, *here]):
            if there.get(name) != here.get(name):
                return difference(there.get(name), here.get(name), f"{place}{': ' if place else ''}{name}")
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here) and isinstance(here[0], dict):
        at = next(at for at, (one, two) in enumerate(zip(there, here, strict=True)) if one != two)
        return difference(there[at], here[at], f"{place} {at + 1}")
    return f"{place} {_short(there)} there, {_short(here)} here".strip()


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
