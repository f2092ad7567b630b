"""Evolutionary search as in Once-for-All (Cai et al., ICLR 2020), for comparison.

It departs from the published code in two things. Children that are beyond the limits, or were met before, are drawn
again a bounded number of times, so that no limit makes it hang; random newcomers take the places that are then left.
And the first generation holds the smallest network there is, so that a limit just above its latency has somewhere to
start.
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
# After so many generations in a row that bring nothing new, what the limits allow is used up.
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
        return both[run.rng.permutation(count)]  # the first ones are taken

    births = _Births(run, problem, children)
    pool, fruitless = _first_generation(run, problem, variation, _Births(run, problem, mutants)), 0
    while not run.over and fruitless < FRUITLESS:
        parents = pool.best(max(1, round(PARENTS * run.population)))
        born = births(parents.population, run.population)
        if len(born) < run.population:
            newcomers = variation.newcomers(run.population)
            born = Evaluated.concatenate([born, run.offer(newcomers, problem, run.population - len(born))])
        fruitless = 0 if len(born) else fruitless + 1
        pool = Evaluated.concatenate([parents, born])


def _first_generation(run: Run, problem: Problem, variation: Variation, mutants: "_Births") -> Evaluated:
    """What is known already, the smallest network, others from all over the Space, and mutants of these where the
    limits admit few."""
    newcomers = _Births(run, problem, lambda _, count: variation.newcomers(count))
    pool = Evaluated.concatenate([run.cache.best(problem, run.population), run.offer(problem.smallest(), problem)])
    for births in (newcomers, mutants):
        pool = Evaluated.concatenate([pool, births(pool.population, max(0, run.population - len(pool)))])
    return pool


class _Births:
    """Networks made from others in one way that are within the limits and new.

    It makes so many at once that about as many as are wanted are within the limits, by what was of the last ones.
    """

    def __init__(self, run: Run, problem: Problem, make: Callable[[Population, int], Population]) -> None:
        self._run = run
        self._problem = problem
        self._make = make
        self._share = 1.0

    def __call__(self, parents: Population, count: int) -> Evaluated:
        """Up to ``count``, found in a bounded number of attempts and evaluated all at once."""
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
