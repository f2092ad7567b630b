"""Measure the effect of a disturbed run: pairs of profiles, the second with load on every core for a third of it.

    .venv/bin/python scripts/disturbance.py --threads 2 --pairs 3 --out build/disturbance

Each pair is measured one after the other; the tables stay in --out. Prints how much tables differ at one speed (the
median over entries): undisturbed ones from each other, disturbed ones from those, and the same where nothing is done
about it: every trial counts as it came, and none is taken again.
"""

import argparse
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from ofa_tables.estimates.entry import derive_entry
from ofa_tables.table import LatencyTable


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    quiet, burnt = [], []
    for pair in range(options.pairs):
        path = options.out / f"quiet-{pair}.lut"
        took_s = _profile(path, options)
        quiet.append(path)
        path = options.out / f"burnt-{pair}.lut"
        with _Burners(os.cpu_count() or 1, begin_s=took_s / 3, last_s=took_s / 3):
            _profile(path, options)
        burnt.append(path)
    with LatencyTable.read(quiet[0]) as table:
        reference_ms = table.reference_ms
    for name, figures in (
        ("as it is", lambda path: _figures(path, reference_ms)),
        ("nothing done", _figures_untouched),
    ):
        kept = {path: figures(path) for path in quiet + burnt}
        among = [_apart(kept[one], kept[two]) for one, two in itertools.combinations(quiet, 2)]
        across = [_apart(kept[one], kept[two]) for one, two in zip(quiet, burnt, strict=True)]
        print(
            f"{name}: undisturbed tables differ by {_listed(among)} (median {np.median(among):.1%}), "
            f"disturbed from undisturbed by {_listed(across)} (median {np.median(across):.1%})"
        )


def _profile(path: Path, options: argparse.Namespace) -> float:
    start = time.perf_counter()
    command = [Path(sys.executable).with_name("ofa-profile"), "--target", "local", "--resolutions", "160"]
    command += ["--threads", str(options.threads), "--effort", options.effort, "--out", str(path), "--fresh"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - start
    said = [line for line in done.stderr.splitlines() if line.startswith("disturbed")]
    print(f"{path.name}: {took_s:.0f} s; {' '.join(said) or 'no disturbance named'}", flush=True)
    return took_s


class _Burners:
    """Processes that keep every core busy, for a while of the block."""

    def __init__(self, count: int, begin_s: float, last_s: float) -> None:
        self._processes = [multiprocessing.Process(target=_burn, args=(last_s,), daemon=True) for _ in range(count)]
        self._timer = threading.Timer(begin_s, lambda: [process.start() for process in self._processes])

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        for process in self._processes:
            if process.pid is not None:
                process.join()


def _burn(seconds: float) -> None:
    until = time.monotonic() + seconds
    values = np.ones((256, 256), np.float32)
    while time.monotonic() < until:
        values = values @ values * 1e-3


def _figures(path: Path, reference_ms: float | None) -> dict[str, float]:
    """Latencies at one device speed for all tables."""
    with LatencyTable.read(path) as table:
        return {key: entry.latency_ms for key, entry in table.entries_at(reference_ms).items()}


def _figures_untouched(path: Path) -> dict[str, float]:
    """Medians of uncorrected trials, the first trial of each job in each round."""
    with LatencyTable.read(path) as table:
        networks = {m.trial_id: m.key for m in table.measurements}
        first: dict[tuple[str, str, int], str] = {}
        trials: dict[str, list] = {}
        for measurement in table.measurements:
            job = (networks.get(measurement.taken_with, ""), measurement.key, measurement.round)
            if measurement.ok and first.setdefault(job, measurement.taken_with) == measurement.taken_with:
                trials.setdefault(measurement.key, []).append(measurement)
        known = {entry.key for entry in table.entries}
        return {key: derive_entry(key, of_key).latency_ms for key, of_key in trials.items() if key in known}


def _apart(one: dict[str, float], two: dict[str, float]) -> float:
    """The median over entries; how much faster the device was as a whole counts, too."""
    return float(np.median([abs(np.log(one[key] / two[key])) for key in one.keys() & two.keys()]))


def _listed(shares: list[float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--out", type=Path, default=Path("build/disturbance"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
