"""Mean power during a burst, used to compute the energy of an inference: of a Jetson's module, or of a GPU."""

import threading
import time
from typing import Any, Callable, List, Optional

from ofa_agent.conditions import rails
from ofa_agent.conditions.jetson import is_jetson
from ofa_agent.device.shell import Shell

# The INA3221 updates a rail every few milliseconds. More frequent reads return the same values and disturb the trial.
EVERY_S = 0.02
# A GPU reports energy and power as means over up to 100 ms.
GPU_S = 0.3
STALE_S = 0.5  # the counter does not grow


def gpu_power_w(run: Callable[[], object], gpu: Any, clock_s: Callable[[], float] = time.perf_counter) -> float:
    """Run for GPU_S and return the mean power of the GPU in W; 0 if it is unknown.

    From the energy counter, between two moments at which it grows; else the mean of the readings of the power.
    """
    if gpu is None:
        return 0.0
    if gpu.energy_j() is not None:
        return _from_counter(run, gpu, clock_s)
    readings: List[float] = []
    end_s = clock_s() + GPU_S
    while clock_s() < end_s:
        run()
        watts = gpu.power_w()
        readings.extend([watts] if watts else [])
    return sum(readings) / len(readings) if readings else 0.0


def _from_counter(run: Callable[[], object], gpu: Any, clock_s: Callable[[], float]) -> float:
    def grown(from_j: float, earliest_s: float) -> Any:
        """Run until the counter grows after a moment. Return the time and the energy; None if it does not grow."""
        while clock_s() < earliest_s + STALE_S:
            run()
            energy_j, now_s = gpu.energy_j(), clock_s()
            if energy_j is None:
                return None
            if energy_j > from_j:
                if now_s >= earliest_s:
                    return now_s, energy_j
                from_j = energy_j
        return None

    begin = grown(gpu.energy_j(), clock_s())
    end = grown(begin[1], begin[0] + GPU_S) if begin else None
    return float((end[1] - begin[1]) / (end[0] - begin[0])) if end else 0.0


class PowerMeter:
    """A context manager that measures mean power: ``mean_w`` in W, 0 if the device does not report power.

    ``of`` names the rails. Readings that a monitor began before the burst do not count.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._readings: List[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        source = rails.find(shell) if is_jetson(shell) else None
        self._source: Optional[rails.Input] = source if source and source.watts(shell) > 0 else None

    def __enter__(self) -> "PowerMeter":
        if self._source:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._source:
            self._thread.join()

    @property
    def mean_w(self) -> float:
        return sum(self._readings) / len(self._readings) if self._readings else 0.0

    @property
    def of(self) -> str:
        return self._source.names if self._source and self._readings else ""

    def _read(self) -> None:
        source = self._source
        if source is None:
            return
        new_at = time.monotonic() + source.update_s
        while not self._ended.wait(EVERY_S):  # wait first: the first reading must cover the burst only
            watts = source.watts(self._shell)
            if watts > 0 and time.monotonic() >= new_at:
                self._readings.append(watts)
