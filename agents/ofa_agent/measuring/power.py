"""Mean power of the board during a burst, used to compute the energy of an inference."""

import threading
from typing import List

from ofa_agent.conditions import jetson
from ofa_agent.device.shell import Shell

# The INA3221 updates a rail every few milliseconds. More frequent reads return the same values and disturb the trial.
EVERY_S = 0.02


class PowerMeter:
    """A context manager that measures mean power: ``mean_w`` in W, 0 if the device does not report power."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._readings: List[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._reports = jetson.is_jetson(shell) and jetson.power_w(shell) > 0

    def __enter__(self) -> "PowerMeter":
        if self._reports:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._reports:
            self._thread.join()

    @property
    def mean_w(self) -> float:
        return sum(self._readings) / len(self._readings) if self._readings else 0.0

    def _read(self) -> None:
        while not self._ended.wait(EVERY_S):  # wait first: the first reading must cover the burst only
            watts = jetson.power_w(self._shell)
            if watts > 0:
                self._readings.append(watts)
