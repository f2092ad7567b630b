"""A Measurement: the stored result of one trial."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OK = "ok"

# What a trial's condition says where it was so.
HOT = "hot"
THROTTLED = "throttled"
DEVICE = "device"  # which of several of one kind it was taken on
POWER_W = "power_w"
REFERENCE_MEAN_MS = "reference_mean_ms"

NETWORK = "network:"  # prefix of the keys of whole networks

# A failure of these kinds may pass when the trial is taken again; "unsupported" and "malformed" will not.
RETRIED = ("crashed", "timed-out", "out-of-memory")

# Where the reference Job took so much longer or shorter after a trial than before it, the device changed meanwhile.
DISTURBED = 0.15


@dataclass(frozen=True)
class Measurement:
    """One trial of one key: statistics in ms, raw samples in ns, or a typed failure.

    ``round`` is the shuffled round it was taken in. ``reference_…_ns`` is what the reference Job took right before and
    after; 0 where it was not run. ``resolution_px`` is set only where a published file gave the
    figure for one resolution. ``warm`` and ``narrow`` say whether warm-up and burst ended by their rule, not by time.
    ``condition`` is the device's, before and after, as JSON: clocks in MHz, the hottest temperature in °C, load, and
    what passed meanwhile: seconds stolen by other guests, involuntary context switches, seconds waited to cool, the
    board's power in W during the burst, and the mean of the reference Job's runs, which shows interruptions that its
    median does not feel.
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
        """How long the reference Job took around this trial: the device's speed."""
        if not (self.reference_before_ns and self.reference_after_ns):
            return None
        return (self.reference_before_ns + self.reference_after_ns) / 2e6

    @property
    def reference_mean_ms(self) -> float | None:
        """The mean where ``reference_ms`` is the median: with every turn that others had of the processor."""
        return self._reported(REFERENCE_MEAN_MS)

    @property
    def energy_mj(self) -> float | None:
        """Of one inference: what the whole board drew during the burst, for as long as this took."""
        power_w = self._reported(POWER_W)
        return None if power_w is None or self.median_ms is None else power_w * self.median_ms

    def _reported(self, what: str) -> float | None:
        if what not in self.condition:
            return None
        value: float | None = json.loads(self.condition).get(what)
        return value

    @property
    def taken_with(self) -> str:
        """The trial that it comes from: Blocks that were timed inside one network have it in common."""
        return self.trial_id.partition("/")[0]

    @property
    def disturbed(self) -> bool:
        """Whether the device changed its speed during the trial, as far as only the reference shows."""
        if self.taken_with != self.trial_id:
            return False  # the other blocks that were timed with it show the speed
        times = self.reference_before_ns, self.reference_after_ns
        return min(times) > 0 and max(times) > (1 + DISTURBED) * min(times)

    def was(self, mark: str) -> bool:
        """Whether the device was HOT or THROTTLED."""
        return f'"{mark}": true' in self.condition

    @property
    def samples_ms(self) -> np.ndarray:
        return np.frombuffer(self.samples_ns, dtype="<u8") / 1e6


def statistics(samples_ns: Sequence[int]) -> dict[str, Any]:
    """The fields of a Measurement that follow from its raw samples."""
    values = np.asarray(samples_ns, dtype="<u8")
    ms = values / 1e6
    return {
        "count": len(ms),
        "median_ms": float(np.median(ms)),
        "mean_ms": float(ms.mean()),
        "std_ms": float(ms.std()),
        "samples_ns": values.tobytes(),
    }
