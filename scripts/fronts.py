"""The front that our search finds, against NSGA-II's (pymoo, to be installed for this), at equal evaluations.

    python scripts/fronts.py TABLE --space ofa-mbv3-w1.2 [--evaluations 50100] [--seeds 5]

Both begin with the smallest network and others from the smallest to the largest, and to both networks that differ in
genes that nothing reads are one.

Prints each one's hypervolume (below the largest latency, above the smallest network's accuracy; in parts of the larger
of the two medians) and time.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from landscape import landscape
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.pm import PolynomialMutation
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.optimize import minimize

from ofa_nas.search import Budget, Problem, Question, find_method, search_front
from ofa_nas.spaces import Population, find_space
from ofa_tables.model.latency_model import LatencyModel

POPULATION = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--space", required=True)
    parser.add_argument("--evaluations", type=int, default=50_100)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    space = find_space(arguments.space)
    latency = LatencyModel.read(arguments.table, space)
    problem = Question(space, landscape(space), ()).to_problem([latency])
    volumes: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        for name, run in (("ours", ours), ("NSGA-II", nsga2)):
            started = time.perf_counter()
            points = run(problem, arguments.evaluations, seed)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
            volumes.setdefault(name, []).append(hypervolume(problem, points))
    largest = max(float(np.median(of_one)) for of_one in volumes.values())
    for name, of_one in volumes.items():
        low, middle, high = (np.quantile(of_one, share) / largest for share in (0, 0.5, 1))
        print(f"{name:<8} hypervolume {middle:.4f} ({low:.4f} to {high:.4f}), {np.median(seconds[name]):.1f} s")


def ours(problem: Problem, evaluations: int, seed: int) -> np.ndarray:
    found = search_front(problem, find_method("annealing"), Budget(POPULATION, evaluations // POPULATION - 1), seed)
    return np.array([(best.prices[0, 0], best.accuracy[0]) for best in found.best])


def nsga2(problem: Problem, evaluations: int, seed: int) -> np.ndarray:
    space = problem.space
    resolutions = space.resolution_indices(problem.resolutions_px)
    highest = np.array([*(space.radices[:-1] - 1), len(resolutions) - 1])

    def as_population(x: np.ndarray) -> Population:
        genes = x.T.astype(np.uint8)
        genes[-1] = resolutions[genes[-1]]
        return Population(genes)

    def as_variables(population: Population) -> np.ndarray:
        x = space.canonical(population).genes.T.astype(int)
        x[:, -1] = np.argmax(x[:, -1:] == resolutions, axis=1)
        return x

    class Canonical(RoundingRepair):
        def _do(self, problem: PymooProblem, X: np.ndarray, **kwargs: object) -> np.ndarray:
            return as_variables(as_population(super()._do(problem, X, **kwargs)))

    rng = np.random.default_rng(seed)
    others = space.sample_spread(POPULATION - 1, rng, problem.resolutions_px)
    start = as_variables(Population.concatenate([problem.smallest(), others]))

    class OfSpace(PymooProblem):
        def __init__(self) -> None:
            super().__init__(n_var=len(highest), n_obj=2, xl=0, xu=highest, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict, *args: object, **kwargs: object) -> None:
            population = as_population(x)
            out["F"] = np.stack([problem.prices(population)[0], -problem.accuracy(population)], axis=1)

    method = NSGA2(
        pop_size=POPULATION,
        sampling=start,
        crossover=UniformCrossover(prob=0.9),
        mutation=PolynomialMutation(prob=0.9, prob_var=1 / len(highest), eta=3.0, vtype=float, repair=RoundingRepair()),
        repair=Canonical(),
        eliminate_duplicates=True,
    )
    result = minimize(OfSpace(), method, ("n_eval", evaluations), seed=seed)
    return np.stack([result.F[:, 0], -result.F[:, 1]], axis=1)


def hypervolume(problem: Problem, points: np.ndarray) -> float:
    floor = float(problem.accuracy(problem.smallest())[0])
    points = points[np.argsort(points[:, 0])]
    best = np.maximum.accumulate(points[:, 1]) - floor
    widths = np.diff([*points[:, 0], problem.limits[0]])
    return float((np.maximum(best, 0) * widths).sum())


if __name__ == "__main__":
    main()
