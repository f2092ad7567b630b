"""Interpolate the latency of entries between feature-map sizes that were measured.

Blocks of one kind differ in the size of their feature maps alone. Between two sizes that were measured a latency goes
up in a straight line with the map's area, as work and memory traffic do; it never falls where maps grow. Beyond the
smallest and the largest nothing is said.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.keys import kind_and_size

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

INTERPOLATED = "interpolated"

# Before anything was left out to see: how far a straight line is off, relative to the latency, for a gap of 1 to either
# side in the logarithm of the size. Blocks of a few sizes on CPUs and GPUs lie below it.
EXPECTED_CURVATURE = 2.0
FEWEST_SIZES = 2


class Between(NamedTuple):
    """A latency between two sizes that were measured.

    ``error`` is its relative standard error from the ends' own; ``parts_ms`` what either end adds, by its key. ``gap``
    is the product of the distances to both ends, in the logarithm of the size: what a straight line is off by goes with
    it.
    """

    latency_ms: float
    error: float
    gap: float
    parts_ms: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Curve:
    """One kind of Block over its measured sizes: latencies that never fall, and their relative standard errors."""

    keys: tuple[str, ...]
    sizes: FloatArray
    latencies_ms: FloatArray
    errors: FloatArray

    @classmethod
    def through(cls, entries: dict[int, Entry]) -> "Curve":
        sizes = np.array(sorted(entries), dtype=float)
        measured = [entries[int(size)] for size in sizes]
        errors = np.array([entry.standard_error or 0.0 for entry in measured])
        logs = np.log([entry.latency_ms for entry in measured])
        keys = tuple(entry.key for entry in measured)
        return cls(keys, sizes, np.exp(not_falling(logs, 1 / np.maximum(errors, 1e-3) ** 2)), errors)

    def __call__(self, size: int) -> Between | None:
        """None beyond the ends."""
        if len(self.sizes) < FEWEST_SIZES or not self.sizes[0] <= size <= self.sizes[-1]:
            return None
        right = max(1, int(np.searchsorted(self.sizes, size)))
        ends = slice(right - 1, right + 1)
        low, high = self.sizes[ends]
        share = (size**2 - low**2) / (high**2 - low**2)
        parts_ms = np.array([1 - share, share]) * self.latencies_ms[ends]
        latency_ms = float(parts_ms.sum())
        error = float(np.hypot(*(parts_ms * self.errors[ends]))) / latency_ms
        gap = float(np.log(size / low) * np.log(high / size))
        return Between(latency_ms, error, gap, tuple(zip(self.keys[ends], map(float, parts_ms), strict=True)))

    def without(self, index: int) -> "Curve":
        others = (np.delete(values, index) for values in (self.sizes, self.latencies_ms, self.errors))
        return Curve(self.keys[:index] + self.keys[index + 1 :], *others)


class Interpolation:
    """``curvature`` is how far the straight lines are off, for each unit of gap: from each size in turn left out."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        kinds: dict[str, dict[int, Entry]] = defaultdict(dict)
        for entry in entries:
            place = kind_and_size(entry.key)
            if place is not None and entry.latency_ms > 0:
                kinds[place[0]][place[1]] = entry
        self._curves = {kind: Curve.through(of_kind) for kind, of_kind in kinds.items()}
        self.curvature = self._left_out()

    def __call__(self, key: str) -> Entry | None:
        """The entry that this key would have; None where its kind was not measured at a smaller and a larger size."""
        place = kind_and_size(key)
        found = self._curves[place[0]](place[1]) if place is not None and place[0] in self._curves else None
        if found is None:
            return None
        error = float(np.hypot(found.error, self.curvature * found.gap))
        return Entry(
            key,
            found.latency_ms,
            mean_ms=found.latency_ms,
            std_ms=error * found.latency_ms,
            spread=0.0,
            trials=0,
            samples=0,
            flags=(INTERPOLATED,),
            standard_error=error,
            degrees_of_freedom=float("inf"),
            parts_ms=found.parts_ms,
        )

    def _left_out(self) -> float:
        """Least squares over all sizes with a measured one to either side, of what is beyond the trials' own spread."""
        squares, gaps = EXPECTED_CURVATURE**2 * 1e-6, 1e-6
        for curve in self._curves.values():
            for off, noise, gap in _each_left_out(curve):
                squares += off**2 - noise**2
                gaps += gap**2
        return float(np.sqrt(max(0.0, squares) / gaps))


def not_falling(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The nearest values in the order of the given ones that never fall (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []  # (mean, weight, how many)
    for value, weight in zip(values, weights, strict=True):
        pools.append((float(value), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, heavy, few), (two, light, more) = pools[-2:]
            pools[-2:] = [((one * heavy + two * light) / (heavy + light), heavy + light, few + more)]
    return np.concatenate([np.full(count, mean) for mean, _, count in pools])


def _each_left_out(curve: Curve) -> Iterator[tuple[float, float, float]]:
    """(relative error, what of it the trials' spread explains, gap) of each inner size from the others."""
    for index in range(1, len(curve.sizes) - 1):
        found = curve.without(index)(int(curve.sizes[index]))
        if found is not None:
            off = found.latency_ms / curve.latencies_ms[index] - 1
            yield off, float(np.hypot(found.error, curve.errors[index])), found.gap
