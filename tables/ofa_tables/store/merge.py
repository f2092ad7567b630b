"""Merge two tables that were made under the same conditions."""

from dataclasses import dataclass
from pathlib import Path

from ofa_tables.conditions import as_flags, join_conditions
from ofa_tables.errors import TableMismatch, UsageError
from ofa_tables.model.latency_model import CALIBRATIONS
from ofa_tables.table import LatencyTable

SPACES = "space/"  # prefix of names in the store: definitions of spaces that the table was used with


@dataclass(frozen=True)
class Merged:
    """The result of a merge. ``calibrations`` and ``dropped`` name the spaces with a kept or a dropped calibration."""

    trials: int
    repeats: int
    calibrations: tuple[str, ...]
    dropped: tuple[str, ...]


def merge_tables(one: LatencyTable, two: LatencyTable, out: Path) -> Merged:
    """Write the measurements and networks of both tables to a new table. A trial that both have counts once.

    A calibration is kept if the merge changes neither the entries nor the roles of the networks that it was fitted to.
    Otherwise it is dropped. It is also dropped if the two tables have different calibrations for one space.
    Raises TableMismatch if device, runtime version, settings, conditions, or spaces of one name differ.
    """
    _require_comparable(one, two)
    _require_same_spaces(one, two)
    with LatencyTable.building(out, one.identity, one.device) as merged:
        for table in (one, two):
            merged.add(list(table.store.measurements(samples=True)))
            for network in table.store.networks():
                merged.store.add_network(*network)
            for name in table.store.names(SPACES):
                merged.store.put(name, table.store.get(name))
        if one.conditions or two.conditions:
            merged.keep_conditions(join_conditions(one.conditions, two.conditions))
        kept, dropped = _calibrations((one, two), merged)
        for space, value in kept.items():
            merged.store.put(f"{CALIBRATIONS}{space}", value)
        trials = len(merged.measurements)
    repeats = len(one.measurements) + len(two.measurements) - trials
    return Merged(trials, repeats, tuple(kept), tuple(dropped))


def _require_comparable(one: LatencyTable, two: LatencyTable) -> None:
    if one.path.samefile(two.path):
        raise UsageError(f"{one.path} and {two.path} are the same file; name two tables")
    differences = one.identity.differences(two.identity, f"in {one.path.name}", f"in {two.path.name}")
    set_in_one, set_in_two = as_flags(one.conditions), as_flags(two.conditions)
    if set_in_one != set_in_two:
        differences.append(
            f"{set_in_one or 'no --set'} in {one.path.name}, {set_in_two or 'no --set'} in {two.path.name}"
        )
    if differences:
        raise TableMismatch(
            f"{one.path} and {two.path} were made under different conditions ({'; '.join(differences)}); "
            "merge only tables of one device, runtime version and settings"
        )


def _require_same_spaces(one: LatencyTable, two: LatencyTable) -> None:
    for name in set(one.store.names(SPACES)) & set(two.store.names(SPACES)):
        if one.store.get(name) != two.store.get(name):
            raise TableMismatch(
                f"{one.path} and {two.path} were made with different spaces named {name.removeprefix(SPACES)}; measure "
                "one of them again with its space under another name"
            )


def _calibrations(
    tables: tuple[LatencyTable, LatencyTable], merged: LatencyTable
) -> tuple[dict[str, object], list[str]]:
    """Return the calibrations to keep, by space, and the spaces of which the calibration is dropped."""
    found: dict[str, list[object]] = {}
    stale = set()
    for table in tables:
        for name in table.store.names(CALIBRATIONS):
            space = name.removeprefix(CALIBRATIONS)
            found.setdefault(space, []).append(table.store.get(name))
            if not _unchanged(table, merged):
                stale.add(space)
    kept = {
        space: values[0]
        for space, values in found.items()
        if space not in stale and all(value == values[0] for value in values)
    }
    return kept, [space for space in found if space not in kept]


def _unchanged(table: LatencyTable, merged: LatencyTable) -> bool:
    latencies_ms = {(entry.key, entry.resolution_px): entry.latency_ms for entry in merged.entries}
    same_latencies = all(
        latencies_ms[entry.key, entry.resolution_px] == entry.latency_ms for entry in table.entries if not entry.failure
    )
    roles = {key: role for key, _, _, role in merged.store.networks()}
    return same_latencies and all(roles[key] == role for key, _, _, role in table.store.networks())
