"""Read other tables as prior for the estimates of a new one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ofa_nas.spaces import find_blocks
from ofa_nas.spaces.recorded import spaces_of
from ofa_tables.errors import UsageError
from ofa_tables.estimates.prior import PriorTable
from ofa_tables.model.latency_model import fullest_space
from ofa_tables.table import LatencyTable

FEWEST_ENTRIES = 5


def read_priors(paths: Sequence[Path], out: Path) -> list[PriorTable]:
    """Read tables, and all tables in folders, except the table that is being written (``out``). Raises OfaError."""
    return [_read(path) for path in _tables(paths) if not (out.exists() and path.samefile(out))]


def priors_of(table: LatencyTable, given: Sequence[Path], say: Callable[[str], None]) -> list[PriorTable]:
    """Read the given tables or folders, and remember them in ``table``; if none are given, read those it remembers."""
    if given:
        found = read_priors(given, table.path)
        table.store.put("priors", [str(path.resolve()) for path in given])
        return found
    remembered = [Path(path) for path in table.store.get("priors") or []]
    for path in remembered:
        if not path.exists():
            say(f"{path}, a prior of {table.path}, no longer exists and is left out")
    return read_priors([path for path in remembered if path.exists()], table.path)


def _tables(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; --prior needs a table file, or a folder with tables")
        found = sorted(path.glob("*.lut")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path} contains no table (*.lut)")
        yield from found


def _read(path: Path) -> PriorTable:
    with LatencyTable.read(path) as table:
        measured = [entry for entry in table.measured.of_blocks if not entry.failure]
        spaces = spaces_of(table)
        blocks = find_blocks({entry.key for entry in measured}, [fullest_space(table, spaces), *spaces])
        entries = [entry for entry in measured if entry.key in blocks]
        usable = {entry.key: entry for entry in entries if entry.latency_ms > 0}
        if len(usable) < FEWEST_ENTRIES:
            raise UsageError(f"{path} has {len(usable)} entries of known blocks; a prior needs {FEWEST_ENTRIES}")
        return PriorTable(path.stem, tuple(blocks[key] for key in usable), tuple(usable.values()))
