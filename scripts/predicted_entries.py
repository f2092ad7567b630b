"""Check the intervals of predicted entries: another table of the same device measured them.

    .venv/bin/python scripts/predicted_entries.py PREDICTED.lut MEASURED.lut...

Both tables are taken at one speed: the median factor between entries that both measured is divided out.
"""

import sys
from pathlib import Path

import numpy as np

from ofa_tables.estimates.estimates import PREDICTED
from ofa_tables.table import LatencyTable


def main() -> None:
    with LatencyTable.read(Path(sys.argv[1])) as table:
        estimates = table.estimates
        assert estimates is not None
        entries = {key: entry for key in estimates.keys if (entry := table.entry(key)) is not None}
        common = table.measured.common_error
    for path in map(Path, sys.argv[2:]):
        with LatencyTable.read(path) as table:
            truth = {entry.key: entry for entry in table.measured.of_blocks if entry.measured_ms}
        both = [key for key in entries if key in truth]
        off = {key: float(np.log(entries[key].latency_ms / truth[key].measured_ms)) for key in both}
        shared = float(np.median(list(off.values())))
        predicted = [key for key in both if PREDICTED in entries[key].flags]
        own = np.array([np.hypot(entries[key].standard_error, common) for key in predicted], dtype=float)
        own = np.sqrt(np.maximum(own**2 - 2 * common**2, 0.0))  # what all entries have in common was divided out
        noise = np.array([truth[key].trial_error for key in predicted], dtype=float)
        distances = np.abs(np.array([off[key] - shared for key in predicted]))
        print(
            f"{path.name}: {len(predicted)} predicted entries were measured there; "
            f"{np.mean(distances < 1.98 * np.hypot(own, noise)):.1%} within the 95 % interval and the error of that "
            f"measurement; half-widths {1.98 * np.median(own):.1%} and {1.98 * np.median(noise):.1%}, they differ by "
            f"{np.median(distances):.1%} in the median"
        )


if __name__ == "__main__":
    main()
