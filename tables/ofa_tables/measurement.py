"""What one Visit brought back, in the form in which it is kept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OK = "ok"

# A failure of these kinds may pass when the Visit is taken again; "unsupported" and "malformed" will not.
RETRIED = ("crashed", "timed-out", "out-of-memory")


@dataclass(frozen=True)
class Measurement:
    """One Visit of one key: statistics in ms, raw samples in ns, or a typed failure.

    ``round`` is the shuffled round it was taken in. ``resolution_px`` is set only where a published file gave the
    figure for one resolution. ``warm`` and ``narrow`` say whether warm-up and burst ended by their rule, not by time.
    """

    visit_id: str
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
    started_at: float = 0.0
    received_at: float = field(default_factory=time.time)

    @property
    def ok(self) -> bool:
        return self.status == OK

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
