"""Evolutionary search as in Once-for-All (Cai et al., ICLR 2020), for comparison.

It differs from the published code in two ways. First, offspring that exceed a limit or are already known are drawn
again a bounded number of times, so that no limit makes the search hang. Random networks fill the remaining places.
Second, the first generation contains the smallest network, so that a limit just above its latency has a feasible
parent.
"""

import math
from collections.abc import Callable

from ofa_nas.search.evaluation_cache import Candidates, Evaluated
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import Population

PARENTS = 0.25
MUTANTS = 0.5
MUTATION = 0.1
RESOLUTION_MUTATION = 0.5
ATTEMPTS = 10
# Stop after this number of consecutive generations without a new network.
FRUITLESS = 5


def once_for_all(run: Run) -> None:
    for problem, part in run.parts():
        _evolve(part, problem)


def _evolve(run: Run, problem: Problem) -> None:
    variation = Variation(problem, run.rng)

    def mutants(parents: Population, count: int) -> Population:
        return variation.mutants(_some(run, parents, count), MUTATION, RESOLUTION_MUTATION)

    def children(parents: Population, count: int) -> Population:
        others = count - round(MUTANTS * count)
        crossed = variation.crossovers(_some(run, parents, others), _some(run, parents, others))
        both = Population.concatenate([mutants(parents, count - others), crossed])
        return both[run.rng.permutation(count)]  # because only the first ones are used

    offspring = _Offspring(run, problem, children)
    pool, fruitless = _first_generation(run, problem, variation, _Offspring(run, problem, mutants)), 0
    while not run.over and fruitless < FRUITLESS:
        parents = pool.best(max(1, round(PARENTS * run.population)))
        born = offspring(parents.population, run.population)
        if len(born) < run.population:
            newcomers = variation.newcomers(run.population)
            born = Evaluated.concatenate([born, run.offer(newcomers, problem, run.population - len(born))])
        fruitless = 0 if len(born) else fruitless + 1
        pool = Evaluated.concatenate([parents, born])


def _first_generation(run: Run, problem: Problem, variation: Variation, mutants: "_Offspring") -> Evaluated:
    """Return known networks, the smallest network, and random networks; mutants fill up if few of them are feasible."""
    newcomers = _Offspring(run, problem, lambda _, count: variation.newcomers(count))
    pool = Evaluated.concatenate([run.cache.best(problem, run.population), run.offer(problem.smallest(), problem)])
    for offspring in (newcomers, mutants):
        pool = Evaluated.concatenate([pool, offspring(pool.population, max(0, run.population - len(pool)))])
    return pool


class _Offspring:
    """Makes new networks within the limits, with one operator.

    The batch size follows from the fraction of the previous batch that was usable.
    """

    def __init__(self, run: Run, problem: Problem, make: Callable[[Population, int], Population]) -> None:
        self._run = run
        self._problem = problem
        self._make = make
        self._share = 1.0

    def __call__(self, parents: Population, count: int) -> Evaluated:
        """Make up to ``count`` networks in a bounded number of attempts, and evaluate them in one call."""
        count = min(count, self._run.left)
        born: list[Candidates] = []
        missing, attempts, tried = count, ATTEMPTS * count, 0
        while missing and attempts and not self._run.late:
            made = min(attempts, math.ceil(missing / self._share))
            born.append(self._run.admit(self._make(parents, made), self._problem, missing))
            missing, attempts, tried = missing - len(born[-1]), attempts - made, tried + born[-1].tried
            self._share = max(1, count - missing) / tried
        return self._run.evaluate(Candidates.concatenate(born)) if born else self._run.cache.nothing


def _some(run: Run, parents: Population, count: int) -> Population:
    return parents[run.rng.integers(len(parents), size=count)]
