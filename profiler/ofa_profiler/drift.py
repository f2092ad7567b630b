"""Drift: the reference Job through a run, and which Visits the device was at another pace for.

A Visit during which the pace changed says so itself (``Measurement.disturbed``). Here the run as a whole is looked at:
where the reference takes far more or less than it usually does, for however long, the device was another one.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ofa_tables.measurement import Measurement
from ofa_tables.table import off_pace

FEWEST_READINGS = 9  # before a median says what is usual


@dataclass(frozen=True)
class Stretch:
    """Visits of one run that the device was at another pace for. ``paces`` are the reference's time over its usual, the
    least and the most."""

    visits: int
    seconds: float
    paces: tuple[float, float]
    usual_ms: float

    def __str__(self) -> str:
        least, most = (f"{pace:.2f}" for pace in self.paces)
        pace = least if least == most else f"{least} to {most}"
        return (
            f"the device was disturbed during {self.visits} visit{'s' * (self.visits != 1)} ({self.seconds:.0f} s): "
            f"the reference job took {pace} × its usual {self.usual_ms:.3g} ms"
        )


Of = TypeVar("Of")


@dataclass
class Drift(Generic[Of]):
    """What has been read of the reference Job so far, Visit by Visit; ``of`` is whatever the caller knows it by."""

    _readings: list[tuple[float, float, Of]] = field(default_factory=list)  # (seconds, ms, of)
    _told: int = 0

    def watch(self, measurement: Measurement, of: Of) -> None:
        if measurement.ok and measurement.reference_ms is not None:
            took_s = (measurement.load_ns + measurement.timed_ns) / 1e9
            self._readings.append((took_s, measurement.reference_ms, of))

    def disturbed(self) -> tuple[list[Of], Stretch] | None:
        """Those of the Visits since it was last asked that were at another pace; None where there are none."""
        fresh, self._told = self._readings[self._told :], len(self._readings)
        if len(self._readings) < FEWEST_READINGS:
            return None
        usual_ms = float(np.median([reading for _, reading, _ in self._readings]))
        off = [reading for reading in fresh if off_pace(reading[1], usual_ms)]
        if not off:
            return None
        paces = [reading / usual_ms for _, reading, _ in off]
        stretch = Stretch(len(off), sum(took_s for took_s, _, _ in off), (min(paces), max(paces)), usual_ms)
        return [of for _, _, of in off], stretch
