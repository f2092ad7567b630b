"""Compare several tables of one device by the same measured networks.

    .venv/bin/python scripts/compare_tables.py COMPARED.lut OTHER.lut...

The networks are those that ofa-compare measured for the first table. Each table is calibrated with the calibration
networks of the first one. Prints the excess error of each table, and how many networks lie in their intervals.
"""

import sys
from pathlib import Path

import numpy as np

from ofa_nas.spaces import parse_architecture
from ofa_nas.spaces.recorded import spaces_of
from ofa_profiler.comparison.compare import Comparer
from ofa_profiler.comparison.statistics import errors, noise, passes_of
from ofa_tables.model.latency_model import LatencyModel, fullest_space
from ofa_tables.table import CALIBRATION, TEST, LatencyTable


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]]
    with LatencyTable.read(paths[0]) as table:
        space = fullest_space(table, spaces_of(table))
        comparer = Comparer(table, space)
        tested, calibrating = list(comparer.measured(TEST)), list(comparer.measured(CALIBRATION))
    encoded = [
        space.encode([parse_architecture(network.architecture) for network in networks])
        for networks in (tested, calibrating)
    ]
    passes_ms = passes_of(tested)
    print(f"{len(tested)} networks, {len(calibrating)} calibrate; passes differ by {noise(passes_ms).mape:.1%}")
    for path in paths:
        with LatencyTable.read(path) as table:
            model = LatencyModel(table, space)
            calibration = model.fit_calibration(encoded[1], [network.measured_ms for network in calibrating])
            model = LatencyModel(table, space, calibration)
            predicted = model.predict(encoded[0])
            raw, calibrated = errors(model.raw(encoded[0]), passes_ms), errors(predicted, passes_ms)
            half_widths, estimates = model.half_widths(encoded[0]), model.predicted_blocks(encoded[0])
            off = np.abs(predicted / passes_ms.mean(axis=0) - 1)
            print(
                f"{path.name}: excess error {calibrated.excess_rms:.2%} (raw sum {raw.excess_rms:.2%}), with the noise "
                f"{calibrated.rmspe:.2%}; within their "
                f"interval {np.mean(off <= half_widths):.0%}, median half-width {np.median(half_widths):.1%}, "
                f"{estimates.mean():.1f} predicted blocks per network"
            )


if __name__ == "__main__":
    main()
