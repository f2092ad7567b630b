"""Measure the speed of prediction and search with a synthetic table: medians of interleaved runs."""

import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from landscape import landscape

from ofa_nas.accuracy import MacsStandIn, Mlp
from ofa_nas.accuracy.encoding import PUBLISHED_PX
from ofa_nas.accuracy.layers import forward
from ofa_nas.search import Problem, Question, find_method, search
from ofa_nas.spaces import Architecture, find_space
from ofa_tables.identity import Identity
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.measurement import Measurement
from ofa_tables.store.measurement import statistics as figures
from ofa_tables.table import LatencyTable

OFA, FIXED = find_space("ofa-mbv3-w1.0"), find_space("compofa-fixed-w1.0")
RESOLUTIONS_PX = (160, 176, 192, 208, 224)
NETWORKS = 1_000_000
RUNS = 5
BATCH, BATCHES = 100, 501
LIMIT_OF_RANGE = 0.4
KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, synthetic_table(Path(folder) / "bench.lut", rng) as table:
        latency, fixed = LatencyModel(table, OFA), LatencyModel(table, FIXED)
        figures_ms = {key: table.entry(key).latency_ms for px in RESOLUTIONS_PX for key in OFA.keys(px)}
    population = OFA.sample(NETWORKS, rng, RESOLUTIONS_PX)
    (pricing,) = take_turns(lambda: latency.predict(population))
    print(f"pricing     {NETWORKS / pricing / 1e6:.1f} million networks/s ({NETWORKS:,} networks, median of {RUNS})")

    problem = within(latency, landscape(OFA), RESOLUTIONS_PX)
    looked_up = lookup_ms(figures_ms)
    require_same_inputs(problem)
    inputs = problem.accuracy._encoder(population[: BATCH * BATCHES])
    evaluations = BATCH * BATCHES
    mlp, ofa, default, published = take_turns(
        lambda: mlp_alone(problem.accuracy, inputs),
        lambda: counted(search(problem, find_method("ofa")).evaluated, evaluations),
        lambda: counted(search(problem, find_method("annealing")).evaluated, evaluations),
        lambda: counted(published_search(problem, looked_up, BATCHES - 1), evaluations),
    )
    print(f"accuracy    {mlp:.2f} s for {evaluations:,} rows in batches of {BATCH}: the MLP alone, 3 × 400")
    against_torch(problem.accuracy, inputs)
    for name, seconds in (("ofa", ofa), ("annealing", default)):
        print(
            f"{name:<11} {seconds:.2f} s for {evaluations:,} evaluations in such batches: {seconds / mlp:.2f} × the MLP"
        )
    print(
        f"published   {published:.2f} s for {evaluations:,} evaluations: the same as ofa in plain Python, one network "
        f"after the other: {published / ofa:.1f} × ofa, {published / default:.1f} × annealing"
    )
    compofa = within(fixed, MacsStandIn(FIXED), FIXED.resolutions_px)
    compofa_mlp = within(fixed, landscape(FIXED, known_px=FIXED.resolutions_px), FIXED.resolutions_px)
    exhaustive, with_mlp = take_turns(
        lambda: search(compofa, find_method("exhaustive")), lambda: search(compofa_mlp, find_method("exhaustive"))
    )
    print(f"exhaustive  {exhaustive:.3f} s by MACs, {with_mlp:.3f} s by an MLP: 243 networks × 25 resolutions")


def within(latency: LatencyModel, accuracy: Mlp | MacsStandIn, resolutions_px: tuple[int, ...]) -> Problem:
    smallest, largest = latency.cheapest(resolutions_px)[0], latency.dearest(resolutions_px)[0]
    limit_ms = smallest + LIMIT_OF_RANGE * (largest - smallest)
    return Question(latency.space, accuracy, (limit_ms,), resolutions_px=resolutions_px).to_problem([latency])


def synthetic_table(path: Path, rng: np.random.Generator) -> LatencyTable:
    """Latencies proportional to MACs, with noise."""
    table = LatencyTable.create(path, Identity("synthetic", "", "synthetic", ""), {})
    blocks = {block.key: block for px in OFA.resolutions_px for block in OFA.blocks(px)}
    nanoseconds = {key: round(2e4 + block.macs / 30 * rng.uniform(0.8, 1.2)) for key, block in blocks.items()}
    table.add([Measurement(key, key, **figures([value])) for key, value in nanoseconds.items()])
    return table


def counted(evaluated: int, wanted: int) -> None:
    """Times are of as many evaluations as is said."""
    assert evaluated == wanted, f"{evaluated:,} networks were evaluated, not {wanted:,}"


def mlp_alone(mlp: Mlp, inputs: np.ndarray) -> None:
    for start in range(0, len(inputs), BATCH):
        forward(mlp.members[0], inputs[start : start + BATCH])


def against_torch(mlp: Mlp, inputs: np.ndarray) -> None:
    """The same rows by torch, where it is installed, on as many cores."""
    try:
        import torch
    except ImportError:
        return
    layers = []
    for layer in mlp.members[0]:
        linear = torch.nn.Linear(*reversed(layer.weight.shape))
        linear.load_state_dict({"weight": torch.from_numpy(layer.weight), "bias": torch.from_numpy(layer.bias)})
        layers += [linear, torch.nn.ReLU()]
    network, rows = torch.nn.Sequential(*layers[:-1]).eval(), torch.from_numpy(np.ascontiguousarray(inputs))

    def by_torch() -> None:
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH):
                network(rows[start : start + BATCH])

    ours, torchs = take_turns(lambda: mlp_alone(mlp, inputs), by_torch)
    print(
        f"            {ours / torchs:.2f} × the time of torch {torch.__version__} on {torch.get_num_threads()} threads"
    )


def lookup_ms(figures_ms: dict[str, float]) -> dict[tuple, float]:
    """By resolution, block, kernel size and expand ratio; what is the same in all networks by resolution alone."""
    found: dict[tuple, float] = {}
    for px, kernel, expand in itertools.product(RESOLUTIONS_PX, KERNELS, EXPANDS):
        uniform = Architecture({"ks": (kernel,) * 20, "e": (expand,) * 20, "d": (4,) * 5}, px)
        ends = [figures_ms[block.key] for block in OFA.network_blocks(uniform)]
        found[px,] = sum(ends[:2]) + sum(ends[22:])
        found |= {(px, at, kernel, expand): ms for at, ms in enumerate(ends[2:22])}
    return found


def published_search(problem: Problem, looked_up: dict[tuple, float], generations: int) -> int:
    """Evolution as the paper's code does it: a network at a time, a block at a time. How many it evaluated."""
    limit_ms, layers, evaluated = problem.limits[0], problem.accuracy.members[0], 0
    random.seed(0)
    choices = {"ks": KERNELS, "e": EXPANDS, "d": DEPTHS}

    def drawn() -> dict:
        return {
            "ks": random.choices(choices["ks"], k=20),
            "e": random.choices(choices["e"], k=20),
            "d": random.choices(choices["d"], k=5),
            "r": random.choice(RESOLUTIONS_PX),
        }

    def mutant(parent: dict) -> dict:
        child = {name: list(genes) if name != "r" else genes for name, genes in parent.items()}
        if random.random() < 0.5:
            child["r"] = random.choice(RESOLUTIONS_PX)
        for at in range(20):
            if random.random() < 0.1:
                child["ks"][at], child["e"][at] = random.choice(choices["ks"]), random.choice(choices["e"])
        for stage in range(5):
            if random.random() < 0.1:
                child["d"][stage] = random.choice(choices["d"])
        return child

    def crossover(one: dict, two: dict) -> dict:
        child = {name: [random.choice(pair) for pair in zip(one[name], two[name], strict=True)] for name in choices}
        return {**child, "r": random.choice((one["r"], two["r"]))}

    def feasible(make: Callable[[], dict]) -> tuple[dict, float]:
        while True:
            genes = make()
            px, total_ms = genes["r"], looked_up[genes["r"],]
            for stage, depth in enumerate(genes["d"]):
                for at in range(4 * stage, 4 * stage + depth):
                    total_ms += looked_up[px, at, genes["ks"][at], genes["e"][at]]
            if total_ms <= limit_ms:
                return genes, total_ms

    def scored(networks: list[tuple[dict, float]]) -> list[tuple[float, dict, float]]:
        nonlocal evaluated
        evaluated += len(networks)
        scores = forward(layers, np.array([one_hot(genes) for genes, _ in networks], dtype=np.float32))
        return [(float(score), genes, ms) for score, (genes, ms) in zip(scores, networks, strict=True)]

    pool = scored([feasible(drawn) for _ in range(BATCH)])
    for _ in range(generations):
        parents = sorted(pool, key=lambda network: -network[0])[: BATCH // 4]
        genes = [of_parent for _, of_parent, _ in parents]
        mutants = [feasible(lambda of=genes: mutant(random.choice(of))) for _ in range(BATCH // 2)]
        crossed = [
            feasible(lambda of=genes: crossover(random.choice(of), random.choice(of))) for _ in range(BATCH // 2)
        ]
        pool = parents + scored(mutants + crossed)
    return evaluated


def one_hot(genes: dict) -> list[int]:
    """The published predictor's inputs, in plain Python."""
    inputs = [0] * (120 + len(PUBLISHED_PX))
    for stage, depth in enumerate(genes["d"]):
        for at in range(4 * stage, 4 * stage + depth):
            inputs[3 * at + KERNELS.index(genes["ks"][at])] = 1
            inputs[60 + 3 * at + EXPANDS.index(genes["e"][at])] = 1
    inputs[120 + PUBLISHED_PX.index(genes["r"])] = 1
    return inputs


def require_same_inputs(problem: Problem) -> None:
    """The plain encoding is the one that our searches score by."""
    population = problem.space.sample(BATCH, np.random.default_rng(0), RESOLUTIONS_PX)
    plain = [
        one_hot({**architecture.genes, "r": architecture.resolution_px})
        for architecture in problem.space.decode(population)
    ]
    assert (problem.accuracy._encoder(population) == np.array(plain)).all()


def take_turns(*works: Callable[[], object]) -> list[float]:
    """The median duration of each in s, over interleaved runs."""
    seconds = [[timed(work) for work in works] for _ in range(RUNS)]
    return [statistics.median(of_one) for of_one in zip(*seconds, strict=True)]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
