"""A Measurement: the stored result of one trial."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

OK = "ok"

# Names in the condition of a trial.
HOT = "hot"
THROTTLED = "throttled"
SIMULATED = "simulated"  # computed, not measured; also a flag of entries, and the runtime of simulated tables
DEVICE = "device"  # the device of a device pool that ran the trial
POWER_W = "power_w"
POWER_OF = "power_of"  # the power rails that power_w is the sum of
REFERENCE_MEAN_MS = "reference_mean_ms"
# On a GPU: how long it executes the kernels, how long the host launches them, how long the GPU is idle before them.
DEVICE_MS = "device_ms"
LAUNCH_MS = "launch_ms"
GAP_MS = "gap_ms"
# Of a model file: the most memory that it took, and why its layers were not timed.
PEAK_MB = "peak_mb"
LAYERS_ERROR = "layers_error"
# What the estimates use of them: numbers, and the name of the rails.
_REPORTED = (POWER_W, POWER_OF, REFERENCE_MEAN_MS, DEVICE_MS, LAUNCH_MS)
_MOST_REPORTED = 1e12

AS_SIMULATED = json.dumps({SIMULATED: True})  # the condition of a computed latency

NETWORK = "network:"  # prefix of the keys of whole networks
LAYER = "layer:"  # prefix of the keys of the layers of model files

# Failures that a retry may fix; "unsupported" and "malformed" are permanent.
RETRIED = ("crashed", "timed-out", "out-of-memory")

# A trial is disturbed if the reference latencies before and after it differ by more than this fraction.
DISTURBED = 0.15


@dataclass(frozen=True)
class Measurement:
    """One trial of one key: statistics in ms, raw samples in ns, or a typed failure.

    ``round`` is the number of the shuffled round. ``reference_before_ns`` and ``reference_after_ns`` are the median
    latencies of the reference job around the trial; 0 if it did not run. ``resolution_px`` is set only if a published
    file gave the latency for one resolution. ``warm`` and ``narrow`` are False if warm-up or burst ended by timeout.
    ``condition`` is the condition of the device before and after the trial, as JSON: clocks in MHz, the highest
    temperature in °C, load, seconds stolen by other virtual machines, involuntary context switches, seconds waited to
    cool down, the power in W during the burst and the rails that it was measured on, and the mean latency of the
    reference job. The mean shows interruptions that the median does not show. For a GPU it also has the times on device
    and host (DEVICE_MS, LAUNCH_MS, GAP_MS). A computed latency has the mark
    SIMULATED there.
    """

    trial_id: str
    key: str
    status: str = OK
    error: str = ""
    round: int = 0
    resolution_px: int | None = None
    count: int = 0
    median_ms: float | None = None
    mean_ms: float | None = None
    std_ms: float | None = None
    samples_ns: bytes = b""
    warmup_runs: int = 0
    first_ns: int = 0
    timed_ns: int = 0
    load_ns: int = 0
    warm: bool = True
    narrow: bool = True
    reference_before_ns: int = 0
    reference_after_ns: int = 0
    condition: str = ""
    started_at: float = 0.0
    received_at: float = field(default_factory=time.time)

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def reference_ms(self) -> float | None:
        """The latency of the reference job around this trial, in ms: the device speed. None if it did not run."""
        if not (self.reference_before_ns and self.reference_after_ns):
            return None
        return (self.reference_before_ns + self.reference_after_ns) / 2e6

    @property
    def reference_mean_ms(self) -> float | None:
        """The mean latency of the reference job, in ms, which includes interruptions by other processes."""
        return self._number(REFERENCE_MEAN_MS)

    @property
    def device_ms(self) -> float | None:
        """How long the GPU executes the kernels of one run, in ms; None if unknown."""
        return self._number(DEVICE_MS)

    @property
    def launch_ms(self) -> float | None:
        """How long the host launches the kernels of one run, in ms; None if unknown."""
        return self._number(LAUNCH_MS)

    @property
    def energy_mj(self) -> float | None:
        """The energy of one inference in mJ: power during the burst × median latency. None if unknown."""
        power_w = self._number(POWER_W)
        return None if power_w is None or self.median_ms is None else power_w * self.median_ms

    @property
    def energy_of(self) -> str:
        """The power rails that the energy was measured on, such as ``VDD_IN``; empty if unknown."""
        return self._reported.get(POWER_OF) or ""

    def _number(self, name: str) -> float | None:
        value: float | None = self._reported.get(name)
        return value

    @cached_property
    def _reported(self) -> Mapping[str, Any]:
        return reported_in(self.condition)

    def with_reported(self, reported: Mapping[str, Any]) -> "Measurement":
        """Keep what ``reported_in`` returns for the condition, so that it is parsed only once. Returns itself."""
        object.__setattr__(self, "_reported", reported)  # access to __dict__ would slow down all later accesses
        return self

    def scaled(self, factor: float) -> "Measurement":
        """Multiply the latencies by a factor. Raw samples do not change."""
        latencies_ms = {
            name: factor * value
            for name in ("median_ms", "mean_ms", "std_ms")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **latencies_ms).with_reported(self._reported)

    @property
    def taken_with(self) -> str:
        """The trial of the profiled network, common to all blocks that were timed in it; otherwise this trial."""
        return self.trial_id.partition("/")[0]

    @property
    def disturbed(self) -> bool:
        """Whether the device speed changed during the trial, if only the reference job measured it."""
        if self.taken_with != self.trial_id:
            return False  # the other blocks of the profiled network measure the speed
        times = self.reference_before_ns, self.reference_after_ns
        return min(times) > 0 and max(times) > (1 + DISTURBED) * min(times)

    def was(self, mark: str) -> bool:
        """Return whether the condition has a mark: HOT, THROTTLED or SIMULATED."""
        return f'"{mark}": true' in self.condition

    @property
    def samples_ms(self) -> np.ndarray:
        return np.frombuffer(self.samples_ns, dtype="<u8") / 1e6


def simulated(trial_id: str, key: str, latency_ms: float) -> Measurement:
    """Return a computed latency. Its mark stays with it in every table and file."""
    return Measurement(trial_id, key, median_ms=latency_ms, mean_ms=latency_ms, std_ms=0.0, condition=AS_SIMULATED)


def reported_in(condition: str) -> dict[str, Any]:
    """Return the values of a condition that the estimates use. Raises ValueError if it is not such a condition."""
    if not condition:
        return {}
    try:
        values = json.loads(condition)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    found = {name: values[name] for name in _REPORTED if name in values and values[name] is not None}
    for name, value in found.items():
        if name == POWER_OF:
            is_valid = isinstance(value, str) and value.isprintable()
        else:
            is_valid = type(value) in (int, float) and 0 <= value <= _MOST_REPORTED
        if not is_valid:
            raise ValueError(f"{name} has a wrong value")
    return found


def statistics(samples_ns: Sequence[int]) -> dict[str, Any]:
    """Compute the fields of a Measurement that follow from its raw samples in ns."""
    values = np.asarray(samples_ns, dtype="<u8")
    ms = values / 1e6
    return {
        "count": len(ms),
        "median_ms": float(np.median(ms)),
        "mean_ms": float(ms.mean()),
        "std_ms": float(ms.std()),
        "samples_ns": values.tobytes(),
    }
