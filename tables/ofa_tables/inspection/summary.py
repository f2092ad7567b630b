"""Summarise the contents of a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.estimates import PARTLY
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, calibrations
from ofa_tables.model.space import Space
from ofa_tables.table import PROFILED, LatencyTable


@dataclass(frozen=True)
class Reach:
    """The predicted latencies of the fastest and the slowest network of a space at a complete resolution, in ms.

    ``predicted`` is the number of its ``entries`` that were not measured.
    """

    space: str
    resolution_px: int
    entries: int
    predicted: int
    smallest_ms: float
    largest_ms: float
    calibrated: bool


@dataclass(frozen=True)
class Summary:
    """Counts: ``entries`` of keys, ``failed`` of keys without a latency, ``flagged`` of keys with a latency and a flag
    other than that they are partly measured.

    ``flags`` is the number of entries with each flag. ``calibrations`` holds the calibrations by space.
    ``lasted`` is the time of the first and of the last measurement, in seconds since 1970; None if there are none.
    """

    entries: int
    failed: int
    flagged: int
    flags: Mapping[str, int]
    trials: int
    networks: int
    calibrations: Mapping[str, Calibration]
    reaches: tuple[Reach, ...]
    lasted: tuple[float, float] | None


def summarise(table: LatencyTable, spaces: Sequence[Space]) -> Summary:
    by_key: dict[str, list[Entry]] = {}
    for entry in table.entries:
        by_key.setdefault(entry.key, []).append(entry)
    failed = [key for key, entries in by_key.items() if all(entry.failure for entry in entries)]
    flags = [{flag for entry in entries for flag in entry.flags} for entries in by_key.values()]
    came = [measurement.received_at for measurement in table.measurements]
    compared = {key for key, _, _, role in table.store.networks() if role != PROFILED}
    networks = {trial.key for trial in table.measurements if trial.ok} & compared
    return Summary(
        entries=len(by_key),
        failed=len(failed),
        flagged=sum(bool(of_key - {"failed", PARTLY}) for of_key in flags),
        flags=Counter(sorted(flag for of_key in flags for flag in of_key - {"failed"})),
        trials=sum(entry.trials for entries in by_key.values() for entry in entries),
        networks=len(networks),
        calibrations=calibrations(table),
        reaches=tuple(reach for space in spaces for reach in _reaches(table, space)),
        lasted=(min(came), max(came)) if came else None,
    )


def _reaches(table: LatencyTable, space: Space) -> list[Reach]:
    model = LatencyModel.calibrated(table, space)
    predicted = {entry.key for entry in model.predicted()}
    return [
        Reach(
            space=space.name,
            resolution_px=px,
            entries=len(space.keys(px)),
            predicted=len(predicted.intersection(space.keys(px))),
            smallest_ms=model.cheapest([px])[0],
            largest_ms=model.dearest([px])[0],
            calibrated=model.calibration is not None,
        )
        for px in model.resolutions_px
    ]
