"""Calibration: corrections of the latency model, fitted to whole networks that were measured on the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ofa_tables.estimates.entry import students_t
from ofa_tables.estimates.keys import place

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# What a Calibration expects before it has seen a network: how far one lies off the line, and what the line's constant
# is of a typical latency. Their ratio is the weight that draws the constant towards 0.
NETWORK_ERROR = 0.03
EXPECTED_BASE = 0.2
HUBER = 1.345  # as efficient as least squares to 95 % where errors are normal
REWEIGHTINGS = 30
PARAMETERS = 2
FEWEST_FREE = 3

# How far an entry's figure is expected to be off on its own, how far together with all that can stand at its place, and
# how far a network is off whose entries are right: its own measurement, and what is more than a sum.
ENTRY_SHIFT = 0.03
PLACE_SHIFT = 0.05
LEFT_OVER = 0.012
FEWEST_FOR_SHIFTS = 8


@dataclass(frozen=True)
class Line:
    """latency = ``base_ms`` + ``scale`` · sum. ``weights`` (networks,) say how far each network was believed."""

    scale: float
    base_ms: float
    weights: FloatArray
    error: float | None


@dataclass(frozen=True)
class Calibration:
    """Corrections fitted to whole networks: latency = ``base_ms`` + ``scale`` · Σ figure · (1 + shift).

    The line covers the effect of the blocks on each other: next to large blocks, each finds less of its data in the
    caches. ``shifts`` are by key, and by place (``keys.place``) for entries that are in none of the networks.
    ``error`` is the expected error for a network that was not used in the fit, a standard deviation relative to its
    latency; None if too few ``networks`` were used to estimate it.
    """

    scale: float
    networks: int
    base_ms: float = 0.0
    error: float | None = None
    shifts: Mapping[str, float] = field(default_factory=dict)

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of one more network's latency, relative to it; None if unknown."""
        return self.half_width_at(0.95)

    def half_width_at(self, confidence: float) -> float | None:
        """Half the interval that holds it with so much confidence."""
        if self.error is None:
            return None
        freedom = self.networks - PARAMETERS
        return students_t(freedom, confidence) * self.error * float(np.sqrt(1 + 1 / self.networks))

    def __call__(self, summed_ms: Any) -> Any:
        """The latency of a network whose shifted figures add up to ``summed_ms``."""
        return self.base_ms + self.scale * summed_ms

    def factors(self, keys: Sequence[str]) -> FloatArray:
        """(keys,): what to multiply each figure by."""
        if not self.shifts:
            return np.ones(len(keys))
        return np.array([1 + self.shifts.get(key, self.shifts.get(place(key), 0.0)) for key in keys])

    def __str__(self) -> str:
        base = f" {'+' if self.base_ms > 0 else '−'} {abs(self.base_ms):.3f} ms" if self.base_ms else ""
        return f"× {self.scale:.4f}{base}"

    @classmethod
    def fit(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> "Calibration":
        """The line alone."""
        predicted, measured = np.asarray(predicted_ms, dtype=float), np.asarray(measured_ms, dtype=float)
        line = fit_line(predicted, measured)
        return cls(line.scale, len(measured), line.base_ms, line.error)

    @classmethod
    def calibrate(cls, keys: Sequence[str], parts_ms: FloatArray, measured_ms: Sequence[float]) -> "Calibration":
        """Line and shifts. ``parts_ms`` (networks, keys) is what each entry adds to each network's sum.

        The shifts are the most probable ones where entries and places are off by as much as ENTRY_SHIFT and PLACE_SHIFT
        say, independently (Bayesian linear regression; Bishop 2006, "Pattern Recognition", section 3.3): what few
        networks do not determine stays near 0.
        """
        measured = np.asarray(measured_ms, dtype=float)
        line = fit_line(parts_ms.sum(axis=1), measured)
        if len(measured) < FEWEST_FOR_SHIFTS:
            return cls(line.scale, len(measured), line.base_ms, line.error)
        places = {name: number for number, name in enumerate(dict.fromkeys(map(place, keys)))}
        of_place = np.zeros((len(keys), len(places)))
        of_place[np.arange(len(keys)), [places[place(key)] for key in keys]] = 1
        predicted = line.base_ms + line.scale * parts_ms.sum(axis=1)
        shares = line.scale * parts_ms / predicted[:, None]
        # What is common to all networks, or goes with their size, is the line's part and no entry's.
        size = np.log(predicted) - np.log(predicted).mean()
        common = NETWORK_ERROR**2 * (1 + np.outer(size, size))
        own, together = ENTRY_SHIFT**2 * shares, PLACE_SHIFT**2 * shares @ of_place
        covariance = own @ shares.T + together @ (shares @ of_place).T + common
        believed = np.linalg.inv(covariance + np.diag(LEFT_OVER**2 / np.maximum(line.weights, 1e-3)))
        off = believed @ (measured / predicted - 1)
        by_place, by_key = together.T @ off, own.T @ off
        shifts = {name: float(by_place[number]) for name, number in places.items()}
        shifts |= {key: float(by_key[index]) + shifts[place(key)] for index, key in enumerate(keys)}
        shifted = replace(cls(1.0, len(measured)), shifts=shifts)
        again = fit_line((parts_ms * shifted.factors(keys)).sum(axis=1), measured)
        # Each network as the others predict it (Rasmussen and Williams 2006, equation 5.12).
        left_out = np.abs(off / np.diag(believed))
        left_out = np.minimum(left_out, 3 * float(np.median(left_out)) / 0.6745)
        error = float(np.sqrt((left_out**2).sum() / (len(measured) - PARAMETERS)))
        return cls(again.scale, len(measured), again.base_ms, error, shifts)


def fit_line(predicted: FloatArray, measured: FloatArray) -> Line:
    """Least squares of the relative error, robust (Huber's weights: one disturbed network among many moves it little).

    The constant is drawn towards 0, so that few networks, or networks that are all alike, teach the scale alone. So
    they do where larger sums would else be predicted to be faster.
    """
    typical_ms = float(np.median(measured))
    rows = np.stack([predicted / measured, typical_ms / measured], axis=1)
    line, weights, usual = np.array([np.median(measured / predicted), 0.0]), np.ones(len(measured)), 0.0
    for _ in range(REWEIGHTINGS):
        off = np.abs(rows @ line - 1)
        usual = max(float(np.median(off)) / 0.6745, 1e-9)  # a normal distribution's standard deviation
        weights = np.minimum(1.0, HUBER * usual / np.maximum(off, 1e-12))
        roots = np.sqrt(weights)
        weighted = np.vstack([rows * roots[:, None], [0.0, NETWORK_ERROR / EXPECTED_BASE]])
        line = np.linalg.lstsq(weighted, np.append(roots, 0.0), rcond=None)[0]
    scale, base = line
    if scale <= 0 or base * typical_ms + scale * predicted.min() <= 0:
        return Line(float(np.median(measured / predicted)), 0.0, weights, None)
    freedom = len(measured) - PARAMETERS
    off = np.minimum(np.abs(rows @ line - 1), 3 * usual)  # one disturbed network does not widen it without bound
    error = float(np.sqrt((off**2).sum() / freedom)) if freedom >= FEWEST_FREE else None
    return Line(float(scale), float(base * typical_ms), weights, error)
