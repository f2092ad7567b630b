"""Interpolate the latency of entries between feature-map sizes that were measured.

Blocks of one kind differ only in the size of their feature maps. Between two measured sizes, the latency is linear in
the area of the feature map, as are arithmetic and memory traffic. It never decreases with the size. There is no
extrapolation beyond the smallest and the largest measured size.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.keys import kind_and_size
from ofa_tables.store.measurement import SIMULATED

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

INTERPOLATED = "interpolated"

# The prior of ``Interpolation.curvature``: the relative error of the line at gap 1. Blocks measured at a few sizes on
# CPUs and GPUs have smaller errors.
EXPECTED_CURVATURE = 2.0
FEWEST_SIZES = 2


class Between(NamedTuple):
    """An interpolated latency in ms.

    ``error`` is its relative standard error that follows from the errors of both ends. ``parts_ms`` is the contribution
    of each end, by key. ``gap`` is the product of the distances to both ends, in log size; the error of linear
    interpolation is proportional to it.
    """

    latency_ms: float
    error: float
    gap: float
    parts_ms: tuple[tuple[str, float], ...]
    simulated: bool = False


@dataclass(frozen=True)
class Curve:
    """The latencies of one kind of block by measured size, not decreasing, with their relative standard errors."""

    keys: tuple[str, ...]
    sizes: FloatArray
    latencies_ms: FloatArray
    errors: FloatArray
    simulated: bool = False

    @classmethod
    def through(cls, entries: dict[int, Entry]) -> "Curve":
        sizes = np.array(sorted(entries), dtype=float)
        measured = [entries[int(size)] for size in sizes]
        errors = np.array([entry.standard_error or 0.0 for entry in measured])
        logs = np.log([entry.latency_ms for entry in measured])
        keys = tuple(entry.key for entry in measured)
        latencies_ms = np.exp(not_falling(logs, 1 / np.maximum(errors, 1e-3) ** 2))
        return cls(keys, sizes, latencies_ms, errors, any(entry.simulated for entry in measured))

    def __call__(self, size: int) -> Between | None:
        """Interpolate at a size; None outside the measured sizes."""
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
        parts = tuple(zip(self.keys[ends], map(float, parts_ms), strict=True))
        return Between(latency_ms, error, gap, parts, self.simulated)

    def without(self, index: int) -> "Curve":
        sizes, latencies_ms, errors = (
            np.delete(values, index) for values in (self.sizes, self.latencies_ms, self.errors)
        )
        return Curve(self.keys[:index] + self.keys[index + 1 :], sizes, latencies_ms, errors)


class Interpolation:
    """Interpolation for all kinds. ``curvature`` is the relative error per unit of gap, from leave-one-out tests."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        kinds: dict[str, dict[int, Entry]] = defaultdict(dict)
        for entry in entries:
            place = kind_and_size(entry.key)
            if place is not None and entry.latency_ms > 0:
                kinds[place[0]][place[1]] = entry
        self._curves = {kind: Curve.through(of_kind) for kind, of_kind in kinds.items()}
        self.curvature = self._left_out()

    def __call__(self, key: str) -> Entry | None:
        """Interpolate the entry of a key; None unless its kind was measured at a smaller and a larger size."""
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
            flags=(INTERPOLATED, SIMULATED) if found.simulated else (INTERPOLATED,),
            standard_error=error,
            degrees_of_freedom=float("inf"),
            parts_ms=found.parts_ms,
        )

    def _left_out(self) -> float:
        """Fit the curvature by least squares to the leave-one-out errors, minus the noise of the trials."""
        squares, gaps = EXPECTED_CURVATURE**2 * 1e-6, 1e-6
        for curve in self._curves.values():
            for off, noise, gap in _each_left_out(curve):
                squares += off**2 - noise**2
                gaps += gap**2
        return float(np.sqrt(max(0.0, squares) / gaps))


def not_falling(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Fit the nearest non-decreasing sequence (isotonic regression, pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []  # (mean, weight, count)
    for value, weight in zip(values, weights, strict=True):
        pools.append((float(value), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, heavy, few), (two, light, more) = pools[-2:]
            pools[-2:] = [((one * heavy + two * light) / (heavy + light), heavy + light, few + more)]
    return np.concatenate([np.full(count, mean) for mean, _, count in pools])


def _each_left_out(curve: Curve) -> Iterator[tuple[float, float, float]]:
    """Yield (relative error, its noise, gap) for each inner size, interpolated from the other sizes."""
    for index in range(1, len(curve.sizes) - 1):
        found = curve.without(index)(int(curve.sizes[index]))
        if found is not None:
            off = found.latency_ms / curve.latencies_ms[index] - 1
            yield off, float(np.hypot(found.error, curve.errors[index])), found.gap
