"""Mean input power during a burst, used to compute the energy of an inference."""

import threading
import time
from typing import List, Optional

from ofa_agent.conditions import rails
from ofa_agent.conditions.jetson import is_jetson
from ofa_agent.device.shell import Shell

# The INA3221 updates a rail every few milliseconds. More frequent reads return the same values and disturb the trial.
EVERY_S = 0.02


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
