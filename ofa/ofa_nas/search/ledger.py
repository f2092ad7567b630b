"""The ledger of a search: what it has met and evaluated, no network twice."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import FloatArray, IntArray, Population

_FIRST_ROOM = 1 << 12


@dataclass(frozen=True)
class Candidates:
    """Networks that were not met before, and their prices (meters, N); ``hashes`` are the ledger's."""

    population: Population
    prices: FloatArray
    hashes: list[int]

    def __len__(self) -> int:
        return len(self.population)


@dataclass(frozen=True)
class Known:
    """Networks with their accuracies (N,) and prices (meters, N)."""

    population: Population
    accuracy: FloatArray
    prices: FloatArray

    def __len__(self) -> int:
        return len(self.population)

    def __getitem__(self, which: IntArray | slice) -> "Known":
        return Known(self.population[which], self.accuracy[which], self.prices[:, which])

    def each(self) -> Iterator["Known"]:
        """One by one, equal ones once."""
        met: set[tuple[float, ...]] = set()
        for at in range(len(self)):
            figures = (self.accuracy[at], *self.prices[:, at])
            if figures not in met:
                met.add(figures)
                yield self[slice(at, at + 1)]

    def where(self, chosen: IntArray, others: "Known") -> "Known":
        """The others' networks where ``chosen`` (N,), these elsewhere."""
        return Known(
            Population(np.where(chosen, others.population.genes, self.population.genes)),
            np.where(chosen, others.accuracy, self.accuracy),
            np.where(chosen, others.prices, self.prices),
        )

    def best(self, count: int) -> "Known":
        """The ``count`` most accurate, the best first; of equals the one with the smaller price."""
        if len(self) > count == 1:  # without sorting all
            equals = np.flatnonzero(self.accuracy == self.accuracy.max())
            return self[equals[[int(np.argmin(self.prices[0, equals]))]]]
        return self[np.lexsort((self.prices[0], -self.accuracy))[:count]]

    @staticmethod
    def concatenate(parts: "list[Known]") -> "Known":
        return Known(
            Population.concatenate([part.population for part in parts]),
            np.concatenate([part.accuracy for part in parts]),
            np.concatenate([part.prices for part in parts], axis=1),
        )


class Ledger:
    """Searches that differ in their limits alone share one: what was evaluated for one is known to all."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.evaluated = 0
        self._where: dict[int, int] = {}  # by a network's hash, its column; -1 where it was met alone
        genes = len(problem.space.radices)
        # Equal sums of random 64-bit weights mean equal genes, but once in 10¹⁹ pairs.
        self._weights = np.random.default_rng(0).integers(1 << 63, size=(genes, 1), dtype=np.uint64) | np.uint64(1)
        self._genes: IntArray = np.empty((genes, _FIRST_ROOM), dtype=np.uint8)
        self._accuracy: FloatArray = np.empty(_FIRST_ROOM)
        self._prices: FloatArray = np.empty((len(problem.meters), _FIRST_ROOM))

    def admit(self, population: Population, problem: Problem, most: int | None = None) -> Candidates:
        """The first ``most`` of those within the problem's limits that were not admitted before."""
        prices = self._problem.prices(population)
        fits = problem.fits(prices)
        if not fits.all():
            population, prices = population[fits], prices[:, fits]
        return self._fresh(population, prices, self._hashes(population), most)

    def evaluate(self, candidates: Candidates) -> Known:
        """With the figures of the accuracy model, kept from now on."""
        accuracy = np.empty(0)
        if len(candidates):
            accuracy = np.asarray(self._problem.accuracy(candidates.population), dtype=np.float64)
            self._keep(candidates, accuracy)
        return Known(candidates.population, accuracy, candidates.prices)

    def enter(self, population: Population) -> Known:
        """Evaluated whatever was before: of networks that are not known, though a search may have met them."""
        return self.evaluate(Candidates(population, self._problem.prices(population), self._hashes(population)))

    def look_up(self, population: Population, most: int) -> Known:
        """Networks of any price; at most so many are evaluated that were not before, the others' accuracy is −∞."""
        prices, hashes = self._problem.prices(population), self._hashes(population)
        self.evaluate(self._fresh(population, prices, hashes, most))
        columns = np.array([self._where.get(number, -1) for number in hashes], dtype=int)
        return Known(population, np.where(columns < 0, -np.inf, self._accuracy[columns]), prices)

    def best(self, problem: Problem, count: int = 1) -> Known:
        """The ``count`` most accurate within the problem's limits, of all that were evaluated."""
        known = self.known
        fits = np.flatnonzero(problem.fits(known.prices))
        return known[fits].best(count)

    @property
    def nothing(self) -> Known:
        return self.known[np.empty(0, dtype=int)]

    @property
    def known(self) -> Known:
        """All that were evaluated."""
        there = slice(self.evaluated)
        return Known(Population(self._genes[:, there]), self._accuracy[there], self._prices[:, there])

    def _fresh(self, population: Population, prices: FloatArray, hashes: list[int], most: int | None) -> Candidates:
        """The first ``most`` that were not met before; they are from now on."""
        met = self._where
        first = {number: at for at, number in reversed(list(enumerate(hashes))) if number not in met}
        fresh = sorted(first.values())[:most]
        self._where.update((hashes[at], -1) for at in fresh)
        if len(fresh) == len(hashes):
            return Candidates(population, prices, hashes)
        return Candidates(population[fresh], prices[:, fresh], [hashes[at] for at in fresh])

    def _hashes(self, population: Population) -> list[int]:
        genes = self._problem.space.canonical(population).genes
        hashes: list[int] = (genes * self._weights).sum(axis=0, dtype=np.uint64).tolist()
        return hashes

    def _keep(self, candidates: Candidates, accuracy: FloatArray) -> None:
        start, stop = self.evaluated, self.evaluated + len(candidates)
        if stop > len(self._accuracy):
            room = max(2 * len(self._accuracy), stop) - len(self._accuracy)
            self._genes = np.pad(self._genes, ((0, 0), (0, room)))
            self._prices = np.pad(self._prices, ((0, 0), (0, room)))
            self._accuracy = np.pad(self._accuracy, (0, room))
        self._genes[:, start:stop] = candidates.population.genes
        self._accuracy[start:stop] = accuracy
        self._prices[:, start:stop] = candidates.prices
        self._where.update(zip(candidates.hashes, range(start, stop), strict=True))
        self.evaluated = stop
