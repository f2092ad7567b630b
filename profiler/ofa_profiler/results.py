"""What the functions of ``library.py`` return."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_nas.search import Found
from ofa_nas.spaces import Architecture
from ofa_profiler.campaign.campaign import Outcome
from ofa_tables.table import LatencyTable


class Latencies(np.ndarray):
    """Predicted latencies in ms, an array. ``simulated``: the table was computed instead of measured."""

    simulated = False

    @classmethod
    def of(cls, latencies_ms: np.ndarray, simulated: bool) -> "Latencies":
        found = np.asarray(latencies_ms).view(cls)
        found.simulated = simulated
        return found

    def __array_finalize__(self, source: Any) -> None:
        self.simulated = getattr(source, "simulated", False)

    def __repr__(self) -> str:
        return repr(np.asarray(self)) + (" (simulated)" if self.simulated else "")


@dataclass(frozen=True)
class ProfileResult:
    """The table that ``profile`` built: its file, counts of its entries (as ``ofa-profile --json``), what happened."""

    path: Path
    summary: Mapping[str, Any]
    outcome: Outcome

    @property
    def table(self) -> LatencyTable:
        """The table, opened for reading."""
        return LatencyTable.read(self.path)

    @property
    def simulated(self) -> bool:
        """Whether the latencies were computed instead of measured."""
        return bool(self.summary["simulated"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {self.summary[name]}" for name in ("entries", "measured", "failed", "flagged"))
        return f"ProfileResult({str(self.path)!r}: {counts}{', simulated' if self.simulated else ''})"


@dataclass(frozen=True)
class SearchResult:
    """The best network found: latency in ms, accuracy as a fraction (or MACs without an accuracy model).

    ``simulated``: the table was computed instead of measured.
    """

    architecture: Architecture
    predicted_latency_ms: float
    predicted_accuracy: float
    found: Found
    simulated: bool = False

    def __repr__(self) -> str:
        latency = f"{self.predicted_latency_ms:.4g} ms{' (simulated)' if self.simulated else ''}"
        return f"SearchResult({latency}, accuracy {self.predicted_accuracy:.4g}, {self.architecture.to_json()})"
