"""Economy: which resolutions to measure next, so that the others can be interpolated.

A network stands at one resolution, and so do the entries that are measured inside it. Measured first are the two ends
and the middle; then, one by one, the resolution that takes most off what interpolation is expected to add to the error
of a prediction, until that is little, or a third of the entries are measured.
"""

from collections.abc import Sequence

import numpy as np

from ofa_nas.spaces import Space
from ofa_tables.interpolation import EXPECTED_CURVATURE, Interpolation
from ofa_tables.table import LatencyTable

# Interpolation may add so much to a network's error, in the root mean square over the resolutions asked for.
LITTLE = 0.003
# Beyond this share of the entries, Visits are better spent on those that are measured already.
MOST_SHARE = 0.35
# One more resolution is to leave no more than so much of it.
WORTHWHILE = 0.85
SAMPLE = 200


def next_resolution(table: LatencyTable, space: Space, wanted: Sequence[int]) -> int | None:
    """The one to measure next of those wanted; None where the others can be interpolated."""
    measured = measured_resolutions(table, space, wanted)
    for first in (min(wanted), max(wanted), _middle(wanted)):
        if first not in measured:
            return first
    bend = curvature(table, space, measured)
    expected = {
        px: _added(bend, [*measured, px], wanted)
        for px in wanted
        if px not in measured and _share(space, [*measured, px], wanted) <= MOST_SHARE
    }
    added = _added(bend, measured, wanted)
    best = min(expected, key=lambda px: expected[px], default=None)
    return best if best is not None and added > LITTLE and expected[best] < WORTHWHILE * added else None


def measured_resolutions(table: LatencyTable, space: Space, wanted: Sequence[int]) -> list[int]:
    """Those of the wanted at which every entry was measured."""
    return [px for px in wanted if all(_measured(table, key) for key in space.keys(px))]


def curvature(table: LatencyTable, space: Space, measured: Sequence[int]) -> float:
    """How far the sum of a network's interpolated figures is off, relative to it, for each unit of gap.

    Each measured resolution between others is left out in turn.
    """
    squares, gaps = 1e-6 * EXPECTED_CURVATURE**2, 1e-6
    ordered = sorted(measured)
    for px in ordered[1:-1]:
        gap = _gap(px, [other for other in ordered if other != px])
        squares += _left_out(table, space, px, [other for other in ordered if other != px]) ** 2
        gaps += gap**2
    return float(np.sqrt(squares / gaps))


def _left_out(table: LatencyTable, space: Space, px: int, others: Sequence[int]) -> float:
    """By how much a resolution's networks are off, in the root mean square, where only ``others`` were measured."""
    known = {key: table.entry(key) for other in others for key in space.keys(other)}
    interpolation = Interpolation(entry for entry in known.values() if entry is not None)
    row = space.resolutions_px.index(px)
    measured = np.zeros((len(space.resolutions_px), len(space.keys(px))))
    guessed = measured.copy()
    measured[row] = table.figures_ms(space.keys(px))
    for index, key in enumerate(space.keys(px)):
        entry = known.get(key) or interpolation(key)
        guessed[row, index] = np.nan if entry is None else entry.latency_ms
    networks = space.sample_spread(SAMPLE, np.random.default_rng(px), [px])
    off = space.pricer(guessed)(networks) / space.pricer(measured)(networks) - 1
    return float(np.sqrt(np.nanmean(off**2)))


def _added(bend: float, measured: Sequence[int], wanted: Sequence[int]) -> float:
    return float(np.sqrt(np.mean([(bend * _gap(px, measured)) ** 2 for px in wanted])))


def _share(space: Space, measured: Sequence[int], wanted: Sequence[int]) -> float:
    of_measured, of_all = ({key for px in some for key in space.keys(px)} for some in (measured, wanted))
    return len(of_measured) / len(of_all)


def _gap(px: int, measured: Sequence[int]) -> float:
    """The product of the distances to the next measured ones, in the logarithm; 0 where it is measured itself."""
    low, high = (max(m for m in measured if m <= px), min(m for m in measured if m >= px))
    return float(np.log(px / low) * np.log(high / px))


def _middle(wanted: Sequence[int]) -> int:
    middle = np.sqrt(min(wanted) * max(wanted))
    return min(wanted, key=lambda px: abs(px - middle))


def _measured(table: LatencyTable, key: str) -> bool:
    entry = table.entry(key)
    return entry is not None and entry.visits > 0
