"""Compare the default search method and Once-for-All's with the best known network.

    python scripts/search_quality.py TABLE --space ofa-mbv3-w1.2 [--seeds 10] [--best-seconds 600]
                                     [--accuracy landscape:0] [--limits-ms 15,20,25,30]

At 10, 30, 50 and 70 % of the range of latency, or at the limits given: the median over seeds of what each method finds
with 50,100 evaluations, and how far the default method with 299,500 lies below the best that is known, in parts of
(best − median of random networks within the limit). The best is the best of all these searches and of long ones,
--best-seconds at each limit; how many of these end within 0.01 % of it, each from a different start, shows how likely a
better one is.

A second line has the gaps of the default method in accuracy, 0…1, with 10,000 and 50,100 evaluations: the largest one,
and how many of the seeds are within 0.0010 and 0.0003. --accuracy is a made-up landscape (landscape:SEED) or the file
of an accuracy model. --quick only makes the second line: the best is then the best of its searches, and the CPU time of
each search is followed by its ratio to that of the accuracy model for as many networks in batches of 100, measured in
turns.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from landscape import landscape, linear_share

from ofa_nas.accuracy import open_accuracy
from ofa_nas.search import Budget, Problem, Question, find_method, search
from ofa_nas.search.neighbours import descend
from ofa_nas.search.variation import Variation
from ofa_nas.spaces import Population, find_space
from ofa_tables.model.latency_model import LatencyModel

T = TypeVar("T")
SHARES = (0.1, 0.3, 0.5, 0.7)
PUBLISHED = Budget(100, 500)
SMALL = Budget(100, 99)
LARGE = Budget(500, 598)  # 299,500 evaluations
PARENTS, MUTATION = 24, (0.05, 0.1)  # of the memetic search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--space", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--best-seconds", type=float, default=600.0)
    parser.add_argument("--accuracy", default="landscape:0")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--limits-ms", type=lambda text: [float(limit) for limit in text.split(",")])
    arguments = parser.parse_args()
    space = find_space(arguments.space)
    latency = LatencyModel.read(arguments.table, space)
    name, _, seed = arguments.accuracy.partition(":")
    accuracy = landscape(space, int(seed)) if name == "landscape" else open_accuracy(name, space)
    print(f"R² of a linear model of the landscape: {linear_share(accuracy, space):.3f}")
    question = Question(space, accuracy, ())
    free = question.to_problem([latency])
    smallest, largest = latency.cheapest(free.resolutions_px)[0], latency.dearest(free.resolutions_px)[0]
    limits = arguments.limits_ms or [smallest + share * (largest - smallest) for share in SHARES]
    for limit in limits:
        if arguments.quick:
            report_quickly(free.within(limit), arguments.seeds)
            continue
        share = (limit - smallest) / (largest - smallest)
        report(free.within(limit), share, arguments.seeds, arguments.best_seconds)


def report(problem: Problem, share: float, seeds: int, best_seconds: float) -> None:
    published = [found(problem, "ofa", PUBLISHED, seed) for seed in range(seeds)]
    default = [found(problem, "annealing", PUBLISHED, seed) for seed in range(seeds)]
    small = [found(problem, "annealing", SMALL, seed) for seed in range(seeds)]
    large = [found(problem, "annealing", LARGE, seed) for seed in range(seeds)]
    long, other = long_searches(problem, best_seconds / 2), memetic(problem, best_seconds / 2)
    best = max(other, *(score for score, _ in (*published, *default, *small, *large, *long)))
    usual = random_median(problem)
    gaps = np.array([(best - score) / (best - usual) for score, _ in large])
    seconds = [taken for _, taken in large]
    print(
        f"{share:.0%}, {problem.limits[0]:.3f} ms: best {best:.6f} (memetic {(best - other) / (best - usual):.2%}, "
        f"long annealings {gap_of_best(long, best, usual):.2%} below, {agreeing(long, best, usual)} of {len(long)} "
        f"there), random {usual:.6f} | 50,100 evaluations: "
        f"ofa {median(published):.6f} ({gap(published, best, usual):.2%} below the best), "
        f"default {median(default):.6f} ({gap(default, best, usual):.2%}) | 299,500: median {np.median(gaps):.2%}, "
        f"within 1 % in {(gaps <= 0.01).sum()} of {seeds}, {np.median(seconds):.1f} s (longest {max(seconds):.1f})",
        flush=True,
    )
    print(
        f"    gaps in accuracy: 10,000 evaluations: at most {max(below(small, best)):.5f}, within .0010 in "
        f"{sum(each <= 0.0010 for each in below(small, best))} of {seeds}, {seconds_of(small)} | 50,100: at most "
        f"{max(below(default, best)):.5f}, within .0003 in {sum(each <= 0.0003 for each in below(default, best))} of "
        f"{seeds}, {seconds_of(default)} (ofa {seconds_of(published)})",
        flush=True,
    )


def report_quickly(problem: Problem, seeds: int) -> None:
    drawn = problem.space.sample(PUBLISHED.evaluations, np.random.default_rng(0), problem.resolutions_px)
    rows = []
    for budget, close in ((SMALL, 0.0010), (PUBLISHED, 0.0003)):
        results, ratios = [], []
        for seed in range(seeds):
            results.append(timed(lambda seed=seed, budget=budget: found(problem, "annealing", budget, seed)[0]))
            batches = [drawn[np.arange(at, at + 100)] for at in range(0, budget.evaluations, 100)]
            ratios.append(results[-1][1] / timed(lambda batches=batches: [problem.accuracy(one) for one in batches])[1])
        rows.append((budget, close, results, ratios))
    best = max(score for *_, results, _ in rows for score, _ in results)
    print(f"{problem.limits[0]:g} ms: best {best:.6f}", end="")
    for budget, close, results, ratios in rows:
        gaps = below(results, best)
        print(
            f" | {budget.evaluations:,} evaluations: within {close:.4f} in {sum(gap <= close for gap in gaps)} of "
            f"{seeds}, at most {max(gaps):.5f}, {seconds_of(results)}, {np.median(ratios):.2f} × the model alone",
            end="",
        )
    print(flush=True)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return the result, and the CPU seconds."""
    started = time.process_time()
    return call(), time.process_time() - started


def below(results: list[tuple[float, float]], best: float) -> list[float]:
    return [best - score for score, _ in results]


def seconds_of(results: list[tuple[float, float]]) -> str:
    return f"{np.median([taken for _, taken in results]):.2f} s"


def found(problem: Problem, method: str, budget: Budget, seed: int) -> tuple[float, float]:
    """(accuracy, seconds)."""
    result = search(problem, find_method(method), budget, seed)
    return float(result.best[0].accuracy[0]), result.seconds


def long_searches(problem: Problem, seconds: float) -> list[tuple[float, float]]:
    """Searches of two million evaluations, one after the other."""
    results, started, seed = [], time.monotonic(), 1000
    while time.monotonic() - started < seconds:
        results.append(found(problem, "annealing", Budget(200, 9999), seed))
        seed += 1
    return results


def memetic(problem: Problem, seconds: float, seed: int = 0) -> float:
    """The best accuracy of a memetic search (Moscato 1989): networks that no change of one or two genes improves, and
    their children, each brought to such an end, which take the place of the worst."""
    rng, deadline = np.random.default_rng(seed), time.monotonic() + seconds
    variation, limits = Variation(problem, rng), np.array(problem.limits)[:, None]

    def cost(population: Population) -> np.ndarray:
        costs = np.full(len(population), np.inf)
        fits = problem.fits(problem.prices(population))
        costs[fits] = -problem.accuracy(population[fits])
        return costs

    def climbed(network: Population) -> tuple[float, Population]:
        within = variation.repaired(network, problem.smallest(), limits)
        end = descend(problem.space, problem.resolutions_px, within, cost)
        return -float(cost(end)[0]), end

    pool = [climbed(variation.newcomers(1)) for _ in range(PARENTS)]
    while time.monotonic() < deadline:
        one, two = (pool[at][1] for at in rng.choice(len(pool), 2, replace=False))
        child = variation.mutants(variation.mixed(one, two, np.array([0.5])), *MUTATION)
        pool.append(climbed(child))
        pool = sorted(dict(pool).items(), key=lambda each: -each[0])[:PARENTS]  # of equals one
        while len(pool) < 2:
            pool.append(climbed(variation.newcomers(1)))
    return pool[0][0]


def random_median(problem: Problem) -> float:
    drawn = problem.space.sample(200_000, np.random.default_rng(2), problem.resolutions_px)
    fits = drawn[problem.fits(problem.prices(drawn))]
    if len(fits) < 100:  # a tight limit
        drawn = problem.space.sample_spread(500_000, np.random.default_rng(2), problem.resolutions_px)
        fits = drawn[problem.fits(problem.prices(drawn))]
    return float(np.median(problem.accuracy(fits)))


def median(results: list[tuple[float, float]]) -> float:
    return float(np.median([score for score, _ in results]))


def gap_of_best(results: list[tuple[float, float]], best: float, usual: float) -> float:
    return (best - max((score for score, _ in results), default=usual)) / (best - usual)


def agreeing(results: list[tuple[float, float]], best: float, usual: float) -> int:
    """How many come to the best, but for 0.01 %."""
    return sum((best - score) / (best - usual) < 1e-4 for score, _ in results)


def gap(results: list[tuple[float, float]], best: float, usual: float) -> float:
    return (best - median(results)) / (best - usual)


if __name__ == "__main__":
    main()
