"""Compare ways to time blocks: sum the blocks timed in each way, and compare with the same measured networks.

    .venv/bin/python scripts/blocks_and_networks.py --resolutions 128,160,192,224 --threads 1 --out build/ways

Everything is measured on this machine in one session. The tables stay in --out; run the same command again to resume.
Prints the excess error of each way, calibrated with one factor and with a line.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ofa_agent.operators import Activation, Block, concatenate
from ofa_nas.spaces import Space, find_space, parse_architecture
from ofa_profiler.campaign.campaign import Campaign
from ofa_profiler.campaign.effort import EFFORTS, NETWORK_BUDGET
from ofa_profiler.campaign.jobs import OTHERS_BYTES, Job, lower_jobs
from ofa_profiler.campaign.profiled_networks import profiled_network_rounds
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.comparison.compare import Comparer, draw
from ofa_profiler.comparison.statistics import ComparedNetwork, MacsLine, errors, noise, passes_of
from ofa_profiler.connections import Connection, connect
from ofa_profiler.lowering import lower
from ofa_profiler.targets.target import find_target
from ofa_tables.identity import IN_NETWORKS, Identity, Settings
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import CALIBRATION, TEST, LatencyTable

RUNTIME = "onnxruntime"
EFFORT = EFFORTS["standard"]
EMPTY = Block("empty", (1, 1, 1), (Activation("relu"),))


@dataclass(frozen=True)
class Way:
    """One way to time the blocks of a space, and the jobs of each round."""

    name: str
    rounds: Callable[[LatencyTable, Space, Sequence[int]], list[list[Job]]]


def inside_networks(table: LatencyTable, space: Space, resolutions_px: Sequence[int]) -> list[list[Job]]:
    return profiled_network_rounds(table, space, resolutions_px, EFFORT.rounds)


def between_neighbours(table: LatencyTable, space: Space, resolutions_px: Sequence[int]) -> list[list[Job]]:
    """Each block between its two neighbours in a network; only its own time is kept."""
    rounds = []
    for number in range(EFFORT.rounds):
        jobs = {}
        for px in resolutions_px:
            rng = np.random.default_rng((number, px))
            while set(space.keys(px)) - set(jobs):
                (architecture,) = space.decode(space.sample_spread(1, rng, [px]))
                blocks = space.network_blocks(architecture)
                for at, block in enumerate(blocks):
                    if block.key not in jobs:
                        jobs[block.key] = _between(blocks[max(0, at - 1) : at + 2], block)
        rounds.append(list(jobs.values()))
    return rounds


def _between(blocks: Sequence[Block], block: Block) -> Job:
    parts = tuple(part if part is block else part._replace(key="neighbour") for part in blocks)
    network = concatenate("between:" + "+".join(part.key for part in blocks), blocks)
    return Job(network, lower(RUNTIME, network, 1), parts=parts)


def alone(others_bytes: int) -> Callable[[LatencyTable, Space, Sequence[int]], list[list[Job]]]:
    def rounds(table: LatencyTable, space: Space, resolutions_px: Sequence[int]) -> list[list[Job]]:
        blocks = [EMPTY, *(block for px in resolutions_px for block in space.blocks(px))]
        return [lower_jobs(blocks, RUNTIME, 1, others_bytes)] * EFFORT.rounds

    return rounds


WAYS = (
    Way("inside networks", inside_networks),
    Way("between neighbours", between_neighbours),
    Way("alone, weights cold", alone(OTHERS_BYTES)),
    Way("alone, weights warm", alone(0)),
)


def main() -> None:
    options = _options()
    console = Console(stderr=True)
    space = find_space(options.space)
    options.out.mkdir(parents=True, exist_ok=True)
    with connect(find_target("local", {})) as connection, contextlib.ExitStack() as stack:
        tables = {
            way: stack.enter_context(_table(options.out / f"{way.name}-t{options.threads}.lut", connection, options))
            for way in WAYS
        }
        for way, table in tables.items():
            with CampaignProgress(console, way.name) as progress:
                rounds = way.rounds(table, space, options.resolutions)
                budget = NETWORK_BUDGET if way.rounds in (inside_networks, between_neighbours) else EFFORT.budget
                Campaign(table, rounds, budget, progress, "blocks and networks").run(connection)
        first = tables[WAYS[0]]
        drawn = draw(LatencyModel(first, space), space, options.networks, options.calibrate, options.seed)
        comparer = Comparer(first, space)
        with CampaignProgress(console, "networks") as progress:
            comparer.measure(drawn, connection, progress)
        tested, calibration_networks = list(comparer.measured(TEST)), list(comparer.measured(CALIBRATION))
        for line in report(space, tables, tested, calibration_networks):
            print(line)


def report(
    space: Space,
    tables: dict[Way, LatencyTable],
    tested: list[ComparedNetwork],
    calibration_networks: list[ComparedNetwork],
) -> Iterator[str]:
    passes, fitted = passes_of(tested), passes_of(calibration_networks).mean(axis=0)
    calibrate = len(calibration_networks)
    yield f"{len(tested)} networks, {calibrate} calibrate; two passes differ by {noise(passes).mape:.1%}"
    yield "| blocks timed | sum, raw | one factor | a line |"
    yield "|---|---|---|---|"
    for name, price in _prices(space, tables):
        summed, known = price(tested), price(calibration_networks)
        factor = float(np.median(fitted / known))
        line = Calibration.fit(known, fitted)
        bias = errors(summed, passes).bias
        one, two = (errors(guess, passes).excess_rms for guess in (factor * summed, line(summed)))
        yield f"| {name} | {bias:+.0%} | {one:.1%} | {two:.1%} |"
    baseline = MacsLine.fit(calibration_networks)
    excess = errors(baseline(np.array([network.macs for network in tested])), passes).excess_rms
    yield f"| *the line through MACs* | | | *{excess:.1%}* |"


def _prices(
    space: Space, tables: dict[Way, LatencyTable]
) -> Iterator[tuple[str, Callable[[list[ComparedNetwork]], np.ndarray]]]:
    for way, table in tables.items():
        model = LatencyModel(table, space)

        def price(networks: list[ComparedNetwork], model: LatencyModel = model, empty_ms: float = 0.0) -> np.ndarray:
            architectures = [parse_architecture(network.architecture) for network in networks]
            blocks = np.array([len(space.network_blocks(architecture)) for architecture in architectures])
            return model.raw(space.encode(architectures)) - empty_ms * blocks

        yield way.name, price
        empty = table.entry(EMPTY.key)
        if empty is not None:
            yield (
                f"{way.name}, less an empty network",
                lambda networks, price=price, ms=empty.latency_ms: price(networks, empty_ms=ms),
            )


@contextlib.contextmanager
def _table(path: Path, connection: Connection, options: argparse.Namespace) -> Iterator[LatencyTable]:
    description = connection.agent.describe()
    settings = Settings(threads=options.threads)
    version = description["runtimes"][RUNTIME]
    identity = Identity("local", description["fingerprint"], RUNTIME, version, settings, IN_NETWORKS)
    table = LatencyTable.open(path) if path.exists() else LatencyTable.create(path, identity, description)
    with table:
        table.require_identity(identity)
        yield table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ofa-mbv3-w1.0")
    parser.add_argument("--resolutions", type=lambda text: [int(px) for px in text.split(",")], default=[160])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--calibrate", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/ways"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
