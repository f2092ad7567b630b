"""Evolutionary search, as Once-for-All does it (Cai et al., ICLR 2020), to hold others against.

It departs from the published code in two things. Children that are beyond the limits, or were met before, are drawn
again a bounded number of times, so that no limit makes it hang; random newcomers take the places that are then left.
And the first generation holds the smallest network there is, so that a limit just above its latency has somewhere to
start.
"""

from collections.abc import Callable
from functools import partial

from ofa_nas.search.ledger import Known
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import Population

PARENTS = 0.25
MUTANTS = 0.5
MUTATION = 0.1
RESOLUTION_MUTATION = 0.5
ATTEMPTS = 10
# After so many generations in a row that bring nothing new, what the limits allow is used up.
FRUITLESS = 5


def once_for_all(run: Run) -> None:
    for problem, part in run.parts():
        _evolve(part, problem)


def _evolve(run: Run, problem: Problem) -> None:
    variation = Variation(problem, run.rng)
    count, fruitless = run.population, 0
    pool = _first_generation(run, problem, variation)
    while not run.over and fruitless < FRUITLESS:
        parents = pool.best(max(1, round(PARENTS * count)))
        make = partial(_children, run, variation, parents)
        children = _drawn(run, problem, count, make)
        if len(children) < count:
            newcomers = run.offer(variation.newcomers(count), problem, count - len(children))
            children = Known.concatenate([children, newcomers])
        fruitless = 0 if len(children) else fruitless + 1
        pool = Known.concatenate([parents, children])


def _first_generation(run: Run, problem: Problem, variation: Variation) -> Known:
    """What is known already, the smallest network, others from all over the Space, and mutants of these where the
    limits admit few."""
    count = run.population
    pool = Known.concatenate([run.ledger.best(problem, count), run.offer(problem.smallest(), problem)])
    pool = Known.concatenate([pool, _drawn(run, problem, count - len(pool), variation.newcomers)])
    mutants = _drawn(run, problem, count - len(pool), lambda count: _mutants(run, variation, pool, count))
    return Known.concatenate([pool, mutants])


def _children(run: Run, variation: Variation, parents: Known, count: int) -> Population:
    mutants = round(MUTANTS * count)
    others = count - mutants
    born = [
        _mutants(run, variation, parents, mutants),
        variation.crossovers(_pick(run, parents, others), _pick(run, parents, others)),
    ]
    return Population.concatenate(born)[run.rng.permutation(count)]  # the first ones are taken


def _mutants(run: Run, variation: Variation, parents: Known, count: int) -> Population:
    return variation.mutants(_pick(run, parents, count), MUTATION, RESOLUTION_MUTATION)


def _pick(run: Run, parents: Known, count: int) -> Population:
    return parents.population[run.rng.integers(len(parents), size=count)]


def _drawn(run: Run, problem: Problem, count: int, make: Callable[[int], Population]) -> Known:
    """Up to ``count`` networks that are within the limits and new, in a bounded number of attempts."""
    drawn: list[Known] = [run.ledger.nothing]
    for _ in range(ATTEMPTS):
        missing = count - sum(map(len, drawn))
        if missing <= 0 or run.over:
            break
        drawn.append(run.offer(make(count), problem, missing))
    return Known.concatenate(drawn)
