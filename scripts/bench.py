"""How fast pricing and search are on this machine: medians of several runs, over a synthetic table."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from ofa_nas.accuracy import Linear, Mlp
from ofa_nas.search import Budget, Problem, find_method, search
from ofa_nas.spaces import find_space
from ofa_tables.measurement import Measurement
from ofa_tables.measurement import statistics as figures
from ofa_tables.model import LatencyModel
from ofa_tables.table import Identity, LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")
RESOLUTIONS_PX = (160, 176, 192, 208, 224)
NETWORKS = 1_000_000
RUNS = 5
HIDDEN = (400, 400, 400)
LIMIT_OF_RANGE = 0.4


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, synthetic_table(Path(folder) / "bench.lut", rng) as table:
        latency = LatencyModel(table, SPACE)
    population = SPACE.sample(NETWORKS, rng, RESOLUTIONS_PX)
    seconds = median_seconds(lambda: latency.predict(population))
    print(f"pricing  {NETWORKS / seconds / 1e6:.1f} million networks/s ({NETWORKS:,} networks, median of {RUNS})")

    smallest_ms, largest_ms = (found(RESOLUTIONS_PX)[0] for found in (latency.cheapest, latency.dearest))
    limit_ms = smallest_ms + LIMIT_OF_RANGE * (largest_ms - smallest_ms)
    problem = Problem(SPACE, latency, random_mlp(rng), limit_ms, RESOLUTIONS_PX)
    budget = Budget()
    seconds = median_seconds(lambda: search(problem, find_method("evolution"), budget))
    print(f"search   {seconds:.2f} s ({budget.generations} × {budget.population}, {HIDDEN} MLP, median of {RUNS})")


def synthetic_table(path: Path, rng: np.random.Generator) -> LatencyTable:
    """Latencies that follow MACs, give or take."""
    table = LatencyTable.create(path, Identity("synthetic", "", "synthetic", ""), {})
    blocks = {block.key: block for px in RESOLUTIONS_PX for block in SPACE.blocks(px)}
    nanoseconds = {key: round(2e4 + block.macs / 30 * rng.uniform(0.8, 1.2)) for key, block in blocks.items()}
    table.add([Measurement(key, key, **figures([value])) for key, value in nanoseconds.items()])
    return table


def random_mlp(rng: np.random.Generator) -> Mlp:
    sizes = (128, *HIDDEN, 1)
    layers = [
        Linear((rng.standard_normal((outputs, inputs)) / inputs**0.5).astype(np.float32), np.zeros(outputs, np.float32))
        for inputs, outputs in itertools.pairwise(sizes)
    ]
    return Mlp(SPACE, layers, "random")


def median_seconds(work) -> float:
    return statistics.median(timed(work) for _ in range(RUNS))


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
