"""Evolutionary search, as Once-for-All does it (Cai et al., ICLR 2020).

It departs from the published code in two things. Children that are too slow, or were met before, are drawn again a
bounded number of times, so that no limit makes it hang; random newcomers take the places that are then left. And the
first generation holds the fastest network there is, so that a limit just above its latency has somewhere to start.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ofa_nas.search.problem import Budget, Candidates, Ledger, Problem, Progress, concatenate
from ofa_nas.spaces.space import FloatArray, IntArray, Population, Space

PARENTS = 0.25
MUTANTS = 0.5
MUTATION = 0.1
RESOLUTION_MUTATION = 0.5
ATTEMPTS = 10
# After so many generations in a row that bring nothing new, what the limit allows is used up.
FRUITLESS = 5


def evolution(problem: Problem, ledger: Ledger, budget: Budget, rng: np.random.Generator, progress: Progress) -> None:
    variation = Variation(problem.space, problem.resolutions_px, rng)
    first = _first_generation(problem, ledger, budget.population, variation)
    pool, accuracy = first.population, ledger.evaluate(first)
    fruitless = 0
    for generation in range(1, budget.generations + 1):
        parents, accuracy = _fittest(pool, accuracy, max(1, round(PARENTS * budget.population)))
        children = _draw(ledger, budget.population, partial(variation.children, parents))
        if len(children) < budget.population:
            newcomers = ledger.admit(variation.newcomers(budget.population), budget.population - len(children))
            children = concatenate([children, newcomers])
        fruitless = 0 if len(children) else fruitless + 1
        if fruitless == FRUITLESS:
            return
        pool = Population.concatenate([parents, children.population])
        accuracy = np.concatenate([accuracy, ledger.evaluate(children)])
        progress(generation, budget.generations)


def _first_generation(problem: Problem, ledger: Ledger, count: int, variation: "Variation") -> Candidates:
    """The fastest network, others from all over the Space, and mutants of these where the limit admits few."""
    fastest = ledger.admit(problem.fastest())
    others = _draw(ledger, count - 1, variation.newcomers)
    known = concatenate([fastest, others])
    mutants = _draw(ledger, count - len(known), partial(variation.mutants, known.population))
    return concatenate([known, mutants])


def _fittest(pool: Population, accuracy: FloatArray, count: int) -> tuple[Population, FloatArray]:
    order = np.argsort(-accuracy, kind="stable")[:count]
    return pool[order], accuracy[order]


def _draw(ledger: Ledger, count: int, make: Callable[[int], Population]) -> Candidates:
    """Up to ``count`` networks that the ledger admits, in a bounded number of attempts."""
    drawn: list[Candidates] = []
    missing = count
    for _ in range(ATTEMPTS):
        drawn.append(ledger.admit(make(count), missing))
        missing -= len(drawn[-1])
        if not missing:
            break
    return concatenate(drawn)


class Variation:
    """Makes networks from networks: all of a generation at once, gene by gene."""

    def __init__(self, space: Space, resolutions_px: tuple[int, ...], rng: np.random.Generator) -> None:
        self._space = space
        self._resolutions_px = resolutions_px
        self._rng = rng
        self._place_of, self._rate = _places(space)

    def newcomers(self, count: int) -> Population:
        """From the smallest to the largest networks."""
        return self._space.sample_spread(count, self._rng, self._resolutions_px)

    def children(self, parents: Population, count: int) -> Population:
        mutants = round(MUTANTS * count)
        born = Population.concatenate([self.mutants(parents, mutants), self.crossovers(parents, count - mutants)])
        return born[self._rng.permutation(count)]  # the ledger takes the first ones

    def mutants(self, parents: Population, count: int) -> Population:
        """A parent each, whose genes are drawn anew at some places."""
        hit = (self._rng.random((len(self._rate), count)) < self._rate[:, None])[self._place_of]
        new = self._space.sample(count, self._rng, self._resolutions_px)
        return Population(np.where(hit, new.genes, self._pick(parents, count)))

    def crossovers(self, parents: Population, count: int) -> Population:
        """Each gene from one of two parents."""
        first, second = self._pick(parents, count), self._pick(parents, count)
        return Population(np.where(self._rng.random(first.shape) < 0.5, first, second))

    def _pick(self, parents: Population, count: int) -> IntArray:
        return parents.genes[:, self._rng.integers(len(parents), size=count)]


def _places(space: Space) -> tuple[IntArray, FloatArray]:
    """(genes,) the place at which each gene stands, and (places,) its chance to mutate.

    Groups of as many genes share their places: a block's kernel size and expand ratio mutate together.
    """
    first_of: dict[int, int] = {}
    place_of: list[int] = []
    rate: list[float] = []
    for group in space.groups[:-1]:
        if group.count not in first_of:
            first_of[group.count] = len(rate)
            rate += [MUTATION] * group.count
        place_of += range(first_of[group.count], first_of[group.count] + group.count)
    return np.array([*place_of, len(rate)]), np.array([*rate, RESOLUTION_MUTATION])
