"""The entries of a table as a pandas frame, the content of CSV and Parquet."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from ofa_tables.estimates.entry import Entry
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.model.space import Space
from ofa_tables.table import LatencyTable

if TYPE_CHECKING:
    import pandas as pd


def entries_frame(table: LatencyTable, space: Space | None) -> "pd.DataFrame":
    """Build a frame with one row per entry: all entries of the table, or those of a space.

    Latencies are in ms, and missing if the entry failed. ``spread`` is a fraction. ``resolution`` is set only if a
    published file gave the latency for one resolution.
    """
    import pandas as pd  # takes half a second to import

    entries = [entry for entry in table.entries if space is None or _belongs(entry, space)]
    entries += LatencyModel(table, space).predicted() if space else []
    frame = pd.DataFrame(
        {
            "key": [entry.key for entry in entries],
            "resolution": pd.array([entry.resolution_px for entry in entries], dtype="Int64"),
            "latency_ms": [entry.latency_ms for entry in entries],
            "mean_ms": [entry.mean_ms for entry in entries],
            "std_ms": [entry.std_ms for entry in entries],
            "spread": [entry.spread for entry in entries],
            "trials": [entry.trials for entry in entries],
            "samples": [entry.samples for entry in entries],
            "flags": [" ".join(entry.flags) for entry in entries],
            "failure": [" ".join(entry.failure.split()) for entry in entries],
        }
    )
    frame.attrs.update(asdict(table.identity), simulated=table.simulated)
    return frame


def _belongs(entry: Entry, space: Space) -> bool:
    resolutions = space.resolutions_px if entry.resolution_px is None else (entry.resolution_px,)
    return any(entry.key in space.keys(px) for px in resolutions if px in space.resolutions_px)
