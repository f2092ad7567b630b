"""Whether a supernet learns as the papers claim: recipes against each other, on the same ten sub-networks.

    python scripts/learning.py OUT [--data fashion-mnist] [--train-images 10000] [--epochs-scale 0.03] [--seeds 3]
                               [--table TABLE --max-latency-ms X] [--jobs 2]

Trains the space tiny by each recipe and seed (those that OUT has already are not trained again), and prints the mean
test accuracy of the sub-networks and the paired differences with their standard error over seeds: progressive against
none, compound against progressive, sub-networks against networks trained alone; with --table the recipe none with the
table against without it, for ten sub-networks under the limit.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ofa_nas.spaces import Architecture, find_space
from ofa_tables.model.latency_model import LatencyModel

FULL, TIED = "tiny", "compofa-tiny"
NETWORKS = 10


@dataclass(frozen=True)
class Training:
    name: str
    seed: int
    arguments: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--epochs-scale", type=float, default=0.03)
    parser.add_argument("--rate-scale", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--max-latency-ms", type=float)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, each on one thread")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tied = find_space(TIED)
    networks = spread(tied.sample_spread(4000, np.random.default_rng(5)), tied, tied.macs)
    trainings = claims(options, networks)
    limited: list[Architecture] = []
    if options.table:
        limited = under_limit(options.table, options.max_latency_ms)
        trainings += with_table(options, limited)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = dict(
            zip(
                [(each.name, each.seed) for each in trainings],
                pool.map(lambda each: train(options, each), trainings),
                strict=True,
            )
        )
    if options.table:
        for seed in range(options.seeds):
            checkpoint = options.out / f"none-{seed}" / "supernet.pth"
            results["uniform", seed] = {"test": evaluated(checkpoint, options, limited)}
    report(results, options.seeds, len(networks))


def claims(options: argparse.Namespace, networks: Sequence[Architecture]) -> list[Training]:
    followed = listed(networks)
    trainings = []
    for seed in range(options.seeds):
        trainings += [
            Training("progressive", seed, ("--space", FULL, "--recipe", "progressive", "--evaluate", followed)),
            Training("none", seed, ("--space", FULL, "--recipe", "none", "--evaluate", followed)),
            Training("compound", seed, ("--space", TIED, "--recipe", "compound", "--evaluate", followed)),
        ]
        for at, network in enumerate(networks):
            alone = ("--space", FULL, "--recipe", "independent", "--architecture", listed([network]))
            trainings.append(Training(f"independent-{at}", seed, alone))
    return trainings


def with_table(options: argparse.Namespace, limited: Sequence[Architecture]) -> list[Training]:
    arguments = ("--space", FULL, "--recipe", "none", "--evaluate", listed(limited))
    arguments += ("--table", str(options.table), "--max-latency-ms", str(options.max_latency_ms))
    return [Training("table", seed, arguments) for seed in range(options.seeds)]


def evaluated(checkpoint: Path, options: argparse.Namespace, networks: Sequence[Architecture]) -> list[dict]:
    """Test accuracies of other sub-networks than those that the training followed, by statistics of the same images."""
    from ofa_nas.supernet import load_supernet
    from ofa_nas.training.data import open_data
    from ofa_nas.training.evaluation import accuracy, statistics_batches
    from ofa_nas.training.processes import Processes

    one, supernet = Processes(0, 1, torch.device("cpu")), load_supernet(checkpoint)
    found = open_data(options.data).with_fewer(options.train_images)
    return [
        {
            "accuracy": accuracy(
                supernet, each, found.test, statistics_batches(found.train, 2000, each.resolution_px, 0, one), one
            )
        }
        for each in networks
    ]


def train(options: argparse.Namespace, training: Training) -> dict:
    """Its summary. Raises SystemExit where OUT has it with other settings."""
    out = options.out / f"{training.name}-{training.seed}"
    command = arguments(options, training, out)
    asked = out.with_suffix(".json")
    if out.exists() and not (asked.exists() and json.loads(asked.read_text()) == command):
        sys.exit(f"{out} was trained with other settings than {' '.join(command)}; name another OUT")
    asked.write_text(json.dumps(command))
    if not (out / "summary.json").exists():
        resume = ["--resume"] if (out / "state.pth").exists() else []
        with (options.out / f"{training.name}-{training.seed}.log").open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "ofa_nas.training", *command, *resume], check=True, stdout=log, stderr=log
            )
        print(f"{training.name}, seed {training.seed}: done", file=sys.stderr, flush=True)
    return json.loads((out / "summary.json").read_text())


def arguments(options: argparse.Namespace, training: Training, out: Path) -> list[str]:
    return [
        *training.arguments,
        *("--data", options.data, "--train-images", str(options.train_images)),
        *("--epochs-scale", str(options.epochs_scale), "--batch-size", str(options.batch_size)),
        *("--rate-scale", str(options.rate_scale)),
        *("--seed", str(training.seed), "--out", str(out), "--threads", "1", "--evaluations", "4"),
    ]


def spread(candidates, space, sizes) -> list[Architecture]:
    figures = sizes(candidates)
    wanted = np.linspace(figures.min(), figures.max(), NETWORKS)
    return space.decode(candidates[[int(np.abs(figures - size).argmin()) for size in wanted]])


def under_limit(path: Path, limit_ms: float) -> list[Architecture]:
    space = find_space(FULL)
    latency = LatencyModel.read(path, space)
    candidates = space.sample_spread(20_000, np.random.default_rng(6))
    return spread(candidates[latency.predict(candidates) <= limit_ms], space, latency.predict)


def listed(networks: Sequence[Architecture]) -> str:
    return json.dumps([network.to_json() for network in networks])


def report(results: dict[tuple[str, int], dict], seeds: int, count: int) -> None:
    def accuracies(name: str) -> np.ndarray:
        """(seeds, networks)"""
        return np.array([[each["accuracy"] for each in results[name, seed]["test"]] for seed in range(seeds)])

    alone = np.concatenate([accuracies(f"independent-{at}") for at in range(count)], axis=1)
    found = {name: accuracies(name) for name in ("progressive", "none", "compound")} | {"independent": alone}
    pairs = [("progressive", "none"), ("compound", "progressive"), ("progressive", "independent")]
    if ("table", 0) in results:
        found |= {"uniform": accuracies("uniform"), "table": accuracies("table")}
        pairs.append(("table", "uniform"))
    for name, values in found.items():
        print(f"{name:12} {values.mean():.2%}  by network " + " ".join(f"{each:.1%}" for each in values.mean(axis=0)))
    for one, other in pairs:
        by_seed = (found[one] - found[other]).mean(axis=1)
        error = by_seed.std(ddof=1) / len(by_seed) ** 0.5
        print(
            f"{one} − {other}: {100 * by_seed.mean():+.2f} ± {100 * error:.2f} points, by seed "
            + " ".join(f"{100 * each:+.2f}" for each in by_seed)
        )
    for name in ("progressive", "none", "compound"):
        hours = np.mean([results[name, seed]["cost"]["device_hours"] for seed in range(seeds)])
        print(f"{name}: {results[name, 0]['epochs']} epochs, {60 * hours:.1f} minutes on one thread")


if __name__ == "__main__":
    main()
