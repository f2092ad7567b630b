"""Compare two tables of one space: entries that differ by more than their trials explain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_tables.errors import EntriesMissing
from ofa_tables.estimates.entry import Entry
from ofa_tables.table import LatencyTable

# The number of standard errors above which a difference counts. With hundreds of entries, two would flag too many.
SIGNIFICANT = 3.0


@dataclass(frozen=True)
class Difference:
    """One key in both tables. ``ratio`` is the second latency over the first; ``uncertainty`` is its relative standard
    error."""

    key: str
    resolution_px: int | None
    first_ms: float
    second_ms: float
    ratio: float
    uncertainty: float

    @property
    def exceeds(self) -> bool:
        """Whether the two differ by more than their uncertainty."""
        return bool(abs(np.log(self.ratio)) > SIGNIFICANT * self.uncertainty)


@dataclass(frozen=True)
class Diff:
    """The comparison of two tables. ``only_first`` and ``only_second`` are keys that the other table lacks."""

    differences: tuple[Difference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def median_ratio(self) -> float:
        return float(np.median([difference.ratio for difference in self.differences]))

    @property
    def median_apart(self) -> float:
        """The median difference of the latencies, relative to the smaller of the two, so that order does not matter."""
        return float(np.exp(np.median([abs(np.log(difference.ratio)) for difference in self.differences])) - 1)


def diff_tables(first: LatencyTable, second: LatencyTable) -> Diff:
    """Compare two tables. Raises EntriesMissing if they have no entry in common."""
    ours, theirs = _entries(first.entries), _entries(second.entries)
    common = [place for place in ours if place in theirs]
    if not common:
        raise EntriesMissing(
            f"{first.path} and {second.path} have no entry in common; "
            "ofa-table show prints the spaces and resolutions of each"
        )
    return Diff(
        tuple(_difference(ours[place], theirs[place]) for place in common),
        tuple(key for key, _ in ours.keys() - theirs.keys()),
        tuple(key for key, _ in theirs.keys() - ours.keys()),
    )


def _entries(entries: Sequence[Entry]) -> dict[tuple[str, int | None], Entry]:
    return {(entry.key, entry.resolution_px): entry for entry in entries if entry.latency_ms > 0}


def _difference(first: Entry, second: Entry) -> Difference:
    ratio = second.latency_ms / first.latency_ms
    uncertainty = float(np.hypot(first.standard_error or 0.0, second.standard_error or 0.0))
    return Difference(first.key, first.resolution_px, first.latency_ms, second.latency_ms, ratio, uncertainty)
