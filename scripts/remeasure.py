"""Check the intervals of a table: measure entries again with a new agent, and count how many lie in their interval.

    .venv/bin/python scripts/remeasure.py TABLE.lut --resolutions 160,192,224 --entries 200

Uses --effort thorough, so that the second measurement adds little spread, and the speed of the first table.
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from ofa_tables.table import LatencyTable


def main() -> None:
    options = _options()
    with LatencyTable.read(options.table) as table:
        first = {entry.key: entry for entry in table.entries if not entry.failure}
        identity, reference_ms, ended = table.identity, table.reference_ms, table.measurements[-1].received_at
    command = [Path(sys.executable).with_name("ofa-profile"), "--target", identity.target, "--fresh"]
    command += ["--resolutions", options.resolutions, "--threads", identity.settings.threads]
    command += ["--effort", options.effort, "--out", options.out]
    subprocess.run([str(word) for word in command], check=True)
    with LatencyTable.read(options.out) as table:
        hours = (table.measurements[0].received_at - ended) / 3600
        second = table.entries_at(reference_ms)
    common = sorted(first.keys() & second.keys())
    keys = random.Random(0).sample(common, min(options.entries, len(common)))
    off = np.array([second[key].latency_ms / first[key].latency_ms - 1 for key in keys])
    half_widths = np.array([first[key].half_width for key in keys], dtype=float)
    print(
        f"{len(keys)} entries, {hours:.1f} hours later: {np.mean(np.abs(off) <= half_widths):.1%} within their 95 % "
        f"interval, whose median half-width is {np.median(half_widths):.1%}; they differ by "
        f"{np.median(np.abs(off)):.1%} in the median, all together by {np.median(off):+.1%}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--resolutions", default="160,192,224")
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("--effort", default="thorough")
    parser.add_argument("--out", type=Path, default=Path("again.lut"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
