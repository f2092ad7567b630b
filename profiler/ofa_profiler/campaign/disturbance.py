"""Find trials during which the device speed was unusual, from the reference job.

A trial during which the speed changed says so itself (``Measurement.disturbed``). Here the run as a whole is looked at:
where the reference takes far more or less than it usually does, for however long, the device was another one; so it
was slowed by other processes, which the mean of its runs shows and their median does not.
"""

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from ofa_tables.estimates.device_speed import interrupted, off_speed
from ofa_tables.store.measurement import Measurement
from ofa_tables.words import counted

FEWEST_READINGS = 9  # needed for a usual value


Of = TypeVar("Of")


@dataclass(frozen=True)
class Stretch:
    """Trials of one run during which the device speed was unusual. ``slowdowns`` are the reference job's latencies
    relative to the usual one; ``means`` are the same for the mean of its iterations, if only the mean shows the
    disturbance.
    """

    trials: int
    seconds: float
    slowdowns: tuple[float, ...]
    usual_ms: float
    means: tuple[float, ...] = ()

    def __str__(self) -> str:
        reported = []
        if self.slowdowns:
            reported.append(f"the reference job took {_range(self.slowdowns)} × its usual {self.usual_ms:.3g} ms")
        if self.means:
            mean = f"{_range(self.means)} × its usual mean"
            reported.append(f"others kept the processor from the reference job, which took {mean}")
        trials = counted(self.trials, "trial")
        return f"the device was disturbed during {trials} ({self.seconds:.0f} s): {'; '.join(reported)}"


def _range(ratios: tuple[float, ...]) -> str:
    least, most = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return least if least == most else f"{least} to {most}"


class _Reading(NamedTuple, Generic[Of]):
    took_s: float
    median_ms: float
    mean_ms: float | None
    of: Of


@dataclass
class Drift(Generic[Of]):
    """The readings of the reference job so far, one per trial. ``of`` identifies the trial for the caller."""

    _readings: list[_Reading[Of]] = field(default_factory=list)
    _reported: int = 0

    def watch(self, measurement: Measurement, of: Of) -> None:
        if measurement.ok and measurement.reference_ms is not None:
            took_s = (measurement.load_ns + measurement.timed_ns) / 1e9
            self._readings.append(_Reading(took_s, measurement.reference_ms, measurement.reference_mean_ms, of))

    def disturbed(self) -> tuple[list[Of], Stretch] | None:
        """The disturbed trials since the last call, with their stretch; None if there are none."""
        fresh, self._reported = self._readings[self._reported :], len(self._readings)
        if len(self._readings) < FEWEST_READINGS:
            return None
        usual_ms = float(np.median([reading.median_ms for reading in self._readings]))
        means_ms = [reading.mean_ms for reading in self._readings if reading.mean_ms]
        usual_mean_ms = float(np.median(means_ms)) if means_ms else None
        off = [r for r in fresh if off_speed(r.median_ms, usual_ms) or interrupted(r.mean_ms, usual_mean_ms)]
        if not off:
            return None
        slowed = [reading for reading in off if off_speed(reading.median_ms, usual_ms)]
        kept = [reading for reading in off if not off_speed(reading.median_ms, usual_ms)]
        stretch = Stretch(
            trials=len(off),
            seconds=sum(reading.took_s for reading in off),
            slowdowns=tuple(reading.median_ms / usual_ms for reading in slowed),
            usual_ms=usual_ms,
            means=tuple(r.mean_ms / usual_mean_ms for r in kept if r.mean_ms and usual_mean_ms),
        )
        return [reading.of for reading in off], stretch
