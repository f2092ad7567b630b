"""The performance counters of OpenVINO: how long each kernel takes.

A counter is the average over all runs of the compiled model, in whole microseconds. Each run is also rounded down to
whole microseconds. The first runs, which are slow, would stay in the average. Counters are therefore read again and
again, and the average of the later runs is computed from the differences.
"""

from typing import Any, Dict, List

import numpy as np

from ofa_agent.measuring.parts import Profiled

WARM_UP = 0.25  # this fraction of the runs is not counted
LOST_US = 0.5  # the average loss when a time is rounded down to whole microseconds
INTERRUPTED = 2.0  # a kernel was interrupted if it took this many times its average
PASSES = 5  # over the readings to find the interrupted ones


class Counters:
    """Collects readings of the counters of one compiled model."""

    def __init__(self, owners: Dict[str, int], operators: int) -> None:
        self._owners = owners
        self._operators = operators
        self._runs: List[int] = []
        self._readings: List[Dict[str, float]] = []

    def add(self, runs: int, averages_us: Dict[str, float]) -> None:
        """Add a reading after this number of runs: the average of each executed kernel, in µs."""
        self._runs.append(runs)
        self._readings.append(averages_us)

    def profiled(self) -> Profiled:
        """Return the operator times of all runs: the same average for each of them."""
        names = list(self._readings[-1])
        averages = np.array([[reading.get(name, 0.0) for name in names] for reading in self._readings])
        kernel_ns = later_average_us(np.array(self._runs), averages) * 1e3
        owners = np.array([self._owners[name] for name in names], dtype=np.int64)
        operator_ns = np.bincount(owners, weights=kernel_ns, minlength=self._operators)
        return Profiled(
            np.tile(operator_ns, (self._runs[-1], 1)), np.bincount(owners, minlength=self._operators), pure=True
        )


def later_average_us(runs: Any, averages_us: Any) -> Any:
    """Return the average time of each kernel after warm-up, in µs.

    ``runs`` (readings,): the number of runs before each reading. ``averages_us`` (readings, kernels): the averages over
    these runs, rounded down. A kernel that was interrupted between two readings is not counted there.
    """
    first = int(np.argmax(runs >= runs[-1] * WARM_UP))
    if first == len(runs) - 1:  # a single reading
        return averages_us[-1] + 2 * LOST_US
    totals = runs[:, None] * (averages_us + LOST_US)
    took, counts = np.diff(totals[first:], axis=0), np.diff(runs[first:])[:, None]
    error = runs[first + 1 :, None]  # of a difference of two totals
    average = took.sum(axis=0) / counts.sum()
    for _ in range(PASSES):
        kept = took <= INTERRUPTED * counts * average + error
        average = (took * kept).sum(axis=0) / np.maximum(1, (counts * kept).sum(axis=0))
    return np.maximum(average, 0.0) + LOST_US
