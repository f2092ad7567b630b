"""Calibration: corrections of the latency model, fitted to whole networks that were measured on the device.

The model:

    latency(network) = base + scale · Σ latency(entry) · (1 + shift(entry))
    shift(entry)     = shift of its place in the network + shift of its key

The line (base, scale) is a robust least-squares fit. The shifts are a Bayesian linear regression with normal priors of
mean 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ofa_tables.estimates.entry import students_t
from ofa_tables.estimates.keys import place

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# Priors: the relative error of a network around the line, and the base of the line relative to a typical latency. Their
# ratio is the weight that shrinks the base towards 0.
NETWORK_ERROR = 0.03
EXPECTED_BASE = 0.2
HUBER = 1.345  # 95 % of the efficiency of least squares for normal errors
REWEIGHTINGS = 30
PARAMETERS = 2
FEWEST_FREE = 3

# Prior standard deviations, relative: the shift of one entry, the shift common to all entries of one place, and the
# remaining error of a network (its measurement noise, and effects that are not a sum over entries).
ENTRY_SHIFT = 0.03
PLACE_SHIFT = 0.05
LEFT_OVER = 0.012
FEWEST_FOR_SHIFTS = 8


# Kinds of models: what the line is applied to.
SUM = "sum"
LAUNCH_BOUND = "launch-bound"


@dataclass(frozen=True)
class Line:
    """latency = ``base_ms`` + ``scale`` · sum. ``weights`` (networks,) are the Huber weights of the fit, 0 to 1."""

    scale: float
    base_ms: float
    weights: FloatArray
    error: float | None


@dataclass(frozen=True)
class Calibration:
    """Corrections fitted to whole networks: latency = ``base_ms`` + ``scale`` · Σ entry · (1 + shift).

    The line covers the effect of the blocks on each other: next to large blocks, each finds less of its data in the
    caches. ``shifts`` are by key, and by place (``keys.place``) for entries that are in none of the networks.
    ``error`` is the expected error for a network that was not used in the fit, a standard deviation relative to its
    latency; None if too few ``networks`` were used to estimate it. ``kind`` is SUM, or LAUNCH_BOUND: the line is then
    applied to the latency of the queue between GPU and host, and there are no shifts.
    """

    scale: float
    networks: int
    base_ms: float = 0.0
    error: float | None = None
    shifts: Mapping[str, float] = field(default_factory=dict)
    kind: str = SUM

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of one more network's latency, relative to it; None if unknown."""
        return self.half_width_at(0.95)

    def half_width_at(self, confidence: float) -> float | None:
        """Half the interval with this confidence, relative to the latency; None if unknown."""
        if self.error is None:
            return None
        freedom = self.networks - PARAMETERS
        return students_t(freedom, confidence) * self.error * float(np.sqrt(1 + 1 / self.networks))

    def __call__(self, summed_ms: Any) -> Any:
        """Compute latencies in ms from sums of shifted entries in ms."""
        return self.base_ms + self.scale * summed_ms

    def factors(self, keys: Sequence[str]) -> FloatArray:
        """Return (keys,) factors for the latencies of entries: 1 + shift."""
        if not self.shifts:
            return np.ones(len(keys))
        return np.array([1 + self.shifts.get(key, self.shifts.get(place(key), 0.0)) for key in keys])

    def __str__(self) -> str:
        base = f" {'+' if self.base_ms > 0 else '−'} {abs(self.base_ms):.3f} ms" if self.base_ms else ""
        return f"× {self.scale:.4f}{base}" + ("" if self.kind == SUM else f", model {self.kind}")

    @classmethod
    def fit(cls, predicted_ms: Sequence[float] | FloatArray, measured_ms: Sequence[float]) -> "Calibration":
        """Fit only the line to networks."""
        predicted, measured = np.asarray(predicted_ms, dtype=float), np.asarray(measured_ms, dtype=float)
        line = fit_line(predicted, measured)
        return cls(line.scale, len(measured), line.base_ms, line.error)

    @classmethod
    def calibrate(cls, keys: Sequence[str], parts_ms: FloatArray, measured_ms: Sequence[float]) -> "Calibration":
        """Fit line and shifts. ``parts_ms`` (networks, keys) is the contribution of each entry to each sum, in ms.

        The shifts are the posterior mean of a Bayesian linear regression (Bishop 2006, "Pattern Recognition and Machine
        Learning", section 3.3). Their priors are independent, with standard deviations ENTRY_SHIFT and PLACE_SHIFT.
        Shifts that the networks do not determine stay near 0. Fewer than FEWEST_FOR_SHIFTS networks give only the line.
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
        # The line, not the shifts, explains what is common to all networks or depends on their size.
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
        # Leave-one-out errors (Rasmussen and Williams 2006, "Gaussian Processes", equation 5.12).
        left_out = np.abs(off / np.diag(believed))
        left_out = np.minimum(left_out, 3 * float(np.median(left_out)) / 0.6745)
        error = float(np.sqrt((left_out**2).sum() / (len(measured) - PARAMETERS)))
        return cls(again.scale, len(measured), again.base_ms, error, shifts)


def fit_line(predicted: FloatArray, measured: FloatArray) -> Line:
    """Fit a line by least squares of the relative error, with Huber weights against disturbed networks.

    The base is shrunk towards 0, so that few or similar networks determine only the scale. The base is 0 if the fit
    would predict lower latencies for larger sums, or latencies below 0.
    """
    typical_ms = float(np.median(measured))
    rows = np.stack([predicted / measured, typical_ms / measured], axis=1)
    line, weights, usual = np.array([np.median(measured / predicted), 0.0]), np.ones(len(measured)), 0.0
    for _ in range(REWEIGHTINGS):
        off = np.abs(rows @ line - 1)
        usual = max(float(np.median(off)) / 0.6745, 1e-9)  # standard deviation of a normal distribution
        weights = np.minimum(1.0, HUBER * usual / np.maximum(off, 1e-12))
        roots = np.sqrt(weights)
        weighted = np.vstack([rows * roots[:, None], [0.0, NETWORK_ERROR / EXPECTED_BASE]])
        line = np.linalg.lstsq(weighted, np.append(roots, 0.0), rcond=None)[0]
    scale, base = line
    if scale <= 0 or base * typical_ms + scale * predicted.min() <= 0:
        return Line(float(np.median(measured / predicted)), 0.0, weights, None)
    freedom = len(measured) - PARAMETERS
    off = np.minimum(np.abs(rows @ line - 1), 3 * usual)  # limits the effect of one disturbed network
    error = float(np.sqrt((off**2).sum() / freedom)) if freedom >= FEWEST_FREE else None
    return Line(float(scale), float(base * typical_ms), weights, error)
