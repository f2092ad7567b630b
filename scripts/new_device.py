"""How well a few entries predict all others: a complete table is the truth, and its entries are "measured" one by one.

    scripts/new_device.py TABLE [--prior TABLE]... [--seeds 10] [--noise 0.003] [--counts 10,20,40,80]

Prints, for each number of measured entries, the error of 400 random networks (root mean square of the log ratio, after
one common factor is taken out), as the median over the seeds: with entries that are chosen by the expected error, with
random entries, and by a line through six amounts of work that is fitted to the same random entries.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from scipy.optimize import nnls

from ofa_agent.operators import Block
from ofa_nas.spaces.recorded import spaces_of
from ofa_profiler.campaign.choosing import Targets, block_candidates, choose
from ofa_profiler.priors import read_priors
from ofa_tables.estimates.physics import works
from ofa_tables.estimates.prior import Hypotheses
from ofa_tables.model.latency_model import LatencyModel, fullest_space
from ofa_tables.table import LatencyTable

NETWORKS = 400


class Truth:
    """A complete table, and the networks that are predicted."""

    def __init__(self, path: Path) -> None:
        with LatencyTable.read(path) as table:
            self.space = fullest_space(table, spaces_of(table))
            model = LatencyModel(table, self.space)
            self.resolutions_px = model.resolutions_px
            blocks = {block.key: block for px in self.resolutions_px for block in self.space.blocks(px)}
            self.blocks = list(blocks.values())
            row = {key: number for number, key in enumerate(blocks)}
            sums, counts = np.zeros(len(blocks)), np.zeros(len(blocks))
            for px in self.resolutions_px:
                rows = [row[key] for key in self.space.keys(px)]
                np.add.at(sums, rows, model.figures_ms[self.space.resolutions_px.index(px)])
                np.add.at(counts, rows, 1)
            self.log_ms = np.log(sums / counts)
        self.networks = self.space.sample(NETWORKS, np.random.default_rng(0), self.resolutions_px)
        self.targets = Targets.of_space(self.space, self.resolutions_px, list(blocks))
        self._rows = self.targets.rows_of(self.networks)

    def error(self, log_ms: np.ndarray) -> float:
        """The error of the networks by these (blocks,) log latencies, without what all have in common."""
        off = [np.log(np.exp(log_ms[rows]).sum() / np.exp(self.log_ms[rows]).sum()) for rows in self._rows]
        return float(np.std(off))


def active(truth: Truth, hypotheses: Hypotheses, counts: Sequence[int], noise: float, seed: int) -> list[float]:
    """The errors after each of ``counts`` entries, chosen by the expected error; the first one is random."""
    rng = np.random.default_rng(seed)
    rows, found = [int(rng.integers(len(truth.blocks)))], []
    observed = truth.log_ms + noise * rng.standard_normal(len(truth.blocks))
    while True:
        mixture = hypotheses.fit(rows, observed[rows], np.full(len(rows), noise))
        if len(rows) in counts:
            found.append(truth.error(mixture.mean))
            if len(found) == len(counts):
                return found
        left = [one for one in block_candidates(mixture.mean, lambda _: 1.0) if int(one.rows[0]) not in set(rows)]
        rows.append(int(choose(truth.targets, mixture, left, noise, 0.0)[0].rows[0]))


def passive(
    truth: Truth, hypotheses: Hypotheses, counts: Sequence[int], noise: float, seed: int
) -> tuple[list[float], list[float]]:
    """The errors after each of ``counts`` random entries: by the model, and by the line through six amounts of work."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truth.blocks))
    observed = truth.log_ms + noise * rng.standard_normal(len(truth.blocks))
    by_model, by_line = [], []
    for count in counts:
        rows = order[:count]
        by_model.append(truth.error(hypotheses.fit(rows, observed[rows], np.full(count, noise)).mean))
        by_line.append(truth.error(six_costs(truth.blocks, rows, observed)))
    return by_model, by_line


def six_costs(blocks: Sequence[Block], rows: np.ndarray, log_ms: np.ndarray) -> np.ndarray:
    """Predict (blocks,) log latencies by non-negative least squares of the relative error."""
    amounts = np.array([np.sum([work.units[:5] for work in works(block)], axis=0) for block in blocks])
    amounts = np.hstack([amounts, np.ones((len(blocks), 1))])
    amounts /= amounts.mean(axis=0)
    costs, _ = nnls(amounts[rows] / np.exp(log_ms[rows])[:, None], np.ones(len(rows)))
    return np.asarray(np.log(np.maximum(amounts @ costs, 1e-9)))


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--prior", "priors", multiple=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=10)
@click.option("--noise", default=0.003)
@click.option("--counts", default="10,20,40,80")
def main(table: Path, priors: tuple[Path, ...], seeds: int, noise: float, counts: str) -> None:
    truth, numbers = Truth(table), [int(count) for count in counts.split(",")]
    print(f"{table.stem}: {truth.space.name}, {len(truth.resolutions_px)} resolutions, {len(truth.blocks)} entries")
    ways = {"without prior": Hypotheses(truth.blocks)}
    if priors:
        ways["with prior"] = Hypotheses(truth.blocks, read_priors(priors, table))
    by_seed = {name: [active(truth, way, numbers, noise, seed) for seed in range(seeds)] for name, way in ways.items()}
    both = [passive(truth, ways["without prior"], numbers, noise, seed) for seed in range(seeds)]
    by_seed["random entries"] = [model for model, _ in both]
    by_seed["six costs, random entries"] = [line for _, line in both]
    print("entries".ljust(28), *(f"{number:>8}" for number in numbers))
    for name, errors in by_seed.items():
        print(name.ljust(28), *(f"{100 * value:7.2f}%" for value in np.median(errors, axis=0)))


if __name__ == "__main__":
    main()
