"""Choose the next resolution to measure, so that the others can be interpolated.

A network stands at one resolution, and so do the entries that are measured inside it. Measured first are the two ends
and the middle; then, one by one, the resolution that takes most off what interpolation is expected to add to the error
of a prediction, until that is little, or a good third of the entries are measured.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ofa_nas.spaces import Space
from ofa_tables.estimates.interpolation import EXPECTED_CURVATURE, Interpolation
from ofa_tables.estimates.keys import kind_and_size
from ofa_tables.table import LatencyTable

# Largest error (root mean square over the wanted resolutions) that interpolation may add to a network.
LITTLE = 0.003
# Beyond this fraction of the entries, more trials of measured entries are worth more.
MOST_SHARE = 0.357
# Kernels prefer some map sizes: an interpolated entry has at least this error, however close its neighbours are.
WIGGLE = 0.01
# One more resolution must leave at most this fraction of it.
WORTHWHILE = 0.95
SAMPLE = 200


def next_resolution(table: LatencyTable, space: Space, wanted: Sequence[int]) -> int | None:
    """The resolution to measure next, of those wanted; None if the others can be interpolated."""
    measured = measured_resolutions(table, space, wanted)
    for first in (min(wanted), max(wanted), _middle(wanted)):
        if first not in measured:
            return first
    bend = curvature(table, space, measured)
    expected = {
        px: _added(space, bend, [*measured, px], wanted)
        for px in wanted
        if px not in measured and _share(space, [*measured, px], wanted) <= MOST_SHARE
    }
    added = _added(space, bend, measured, wanted)
    best = min(expected, key=lambda px: expected[px], default=None)
    return best if best is not None and added > LITTLE and expected[best] < WORTHWHILE * added else None


def measured_resolutions(table: LatencyTable, space: Space, wanted: Sequence[int]) -> list[int]:
    """The wanted resolutions at which every entry was measured."""
    return [px for px in wanted if all(_measured(table, key) for key in space.keys(px))]


def curvature(table: LatencyTable, space: Space, measured: Sequence[int]) -> float:
    """The relative error of a network's interpolated latency per unit of gap.

    It is estimated by leaving out each measured resolution that lies between others.
    """
    squares, gaps = 1e-6 * EXPECTED_CURVATURE**2, 1e-6
    ordered = sorted(measured)
    for px in ordered[1:-1]:
        gap = _gap(px, [other for other in ordered if other != px])
        squares += _left_out(table, space, px, [other for other in ordered if other != px]) ** 2
        gaps += gap**2
    return float(np.sqrt(squares / gaps))


def _left_out(table: LatencyTable, space: Space, px: int, others: Sequence[int]) -> float:
    """The relative error (root mean square) of networks at ``px`` if only ``others`` were measured."""
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


def _added(space: Space, bend: float, measured: Sequence[int], wanted: Sequence[int]) -> float:
    """The error (root mean square over the wanted resolutions) that interpolation is expected to add to a network.

    An entry whose map size was measured at any resolution adds nothing: late in a network, four or eight resolutions
    share one map size.
    """
    sizes: dict[str, set[int]] = defaultdict(set)
    for px in measured:
        for kind, size, _ in _entries(space, px):
            sizes[kind].add(size)
    known = {kind: sorted(of_kind) for kind, of_kind in sizes.items()}
    added = [
        sum(
            share * (WIGGLE + bend * _gap(size, known[kind]))
            for kind, size, share in _entries(space, px)
            if size not in sizes[kind]
        )
        for px in wanted
    ]
    return float(np.sqrt(np.mean(np.square(added))))


@lru_cache
def _entries(space: Space, px: int) -> list[tuple[str, int, float]]:
    """(kind, map size, share of the MACs) of each entry."""
    total = sum(block.macs for block in space.blocks(px))
    return [(*(kind_and_size(block.key) or (block.key, 1)), block.macs / total) for block in space.blocks(px)]


def _share(space: Space, measured: Sequence[int], wanted: Sequence[int]) -> float:
    of_measured, of_all = ({key for px in some for key in space.keys(px)} for some in (measured, wanted))
    return len(of_measured) / len(of_all)


def _gap(size: int, measured: Sequence[int]) -> float:
    """The product of the distances to the nearest measured sizes, in logarithms; 0 if the size itself was measured."""
    low, high = max(m for m in measured if m <= size), min(m for m in measured if m >= size)
    return float(np.log(size / low) * np.log(high / size))


def _middle(wanted: Sequence[int]) -> int:
    middle = np.sqrt(min(wanted) * max(wanted))
    return min(wanted, key=lambda px: abs(px - middle))


def _measured(table: LatencyTable, key: str) -> bool:
    entry = table.entry(key)
    return entry is not None and entry.trials > 0
