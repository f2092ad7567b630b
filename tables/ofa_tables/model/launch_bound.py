"""Networks on a GPU: the latency is that of a queue between host and device, not a sum.

The host launches the kernels of one block after the other, and the device executes them in order. Where executing takes
longer, the launches are hidden, also those of later blocks; where launching takes longer, the device waits:

    end(i) = max(end(i-1) + device(i), launched(i))        launched(i) = launch(0) + … + launch(i)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ofa_tables.model.space import Population, Space

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# Shares of the device in the weighted sums whose extreme networks are candidates for the extreme latency.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class LaunchBound:
    """Latencies of networks from the times of their blocks on device and host: (resolutions, entries) each, in ms."""

    def __init__(self, space: Space, device_ms: FloatArray, launch_ms: FloatArray) -> None:
        self._space = space
        self._device_ms = device_ms
        self._launch_ms = launch_ms

    def __call__(self, population: Population) -> FloatArray:
        """Return (N,) latencies in ms; NaN if a time is missing."""
        indices = self._space.entry_indices(population)  # (positions, N), negative at empty positions
        rows = population.genes[-1][None, :]
        device = np.where(indices < 0, 0.0, self._device_ms[rows, indices])
        launch = np.where(indices < 0, 0.0, self._launch_ms[rows, indices])
        launched = np.cumsum(launch, axis=0)
        after = np.cumsum(device[::-1], axis=0)[::-1] - device  # on the device after each block
        return np.asarray(np.maximum(device.sum(axis=0), (launched + after).max(axis=0)))

    def extreme(self, resolutions_px: Sequence[int], largest: bool = False) -> tuple[float, Any]:
        """Return the lowest (or highest) latency in ms of a few candidates, and the network that has it.

        The candidates are the networks that are extreme in a weighted sum of device and launch times. Another network
        may be lower (or higher).
        """
        sign = -1.0 if largest else 1.0
        candidates = [self._space.pricer(sign * self.weighted(share)).cheapest(resolutions_px)[1] for share in SHARES]
        latencies = [sign * float(self(candidate)[0]) for candidate in candidates]
        best = int(np.argmin(latencies))
        return sign * latencies[best], candidates[best]

    def weighted(self, share: float) -> FloatArray:
        """Return (resolutions, entries) whose sum over a network is at most its latency; ``share`` is the device's."""
        return np.asarray(share * self._device_ms + (1 - share) * self._launch_ms)

    def lower_bound(self, resolutions_px: Iterable[int]) -> FloatArray:
        """Return the weighted sum that is the largest for the network with the lowest latency."""
        network = self.extreme(list(resolutions_px))[1]
        sums = [float(self._space.pricer(self.weighted(share))(network)[0]) for share in SHARES]
        return self.weighted(SHARES[int(np.argmax(sums))])
