"""The evaluation cache of a search: every network is evaluated once."""

from dataclasses import dataclass
from itertools import repeat

import numpy as np

from ofa_nas.errors import FunctionFailed, FunctionInterrupted
from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import FloatArray, IntArray, Population

_FIRST_ROOM = 1 << 12
_UNKNOWN, _ADMITTED = -1, -2  # instead of a column; admitted networks are not evaluated yet


@dataclass(frozen=True)
class Candidates:
    """Networks that are new to the cache, and their prices (metrics, N).

    ``digests`` identify networks. ``tried`` is the number of networks that were checked to find these.
    """

    population: Population
    prices: FloatArray
    digests: IntArray
    tried: int

    def __len__(self) -> int:
        return len(self.population)

    def first(self, count: int) -> "Candidates":
        part = slice(count)
        return Candidates(self.population[part], self.prices[:, part], self.digests[part], self.tried)

    @staticmethod
    def concatenate(parts: "list[Candidates]") -> "Candidates":
        return Candidates(
            Population.concatenate([part.population for part in parts]),
            np.concatenate([part.prices for part in parts], axis=1),
            np.concatenate([part.digests for part in parts]),
            sum(part.tried for part in parts),
        )


@dataclass(frozen=True)
class Evaluated:
    """Networks with their accuracies (N,) and prices (metrics, N)."""

    population: Population
    accuracy: FloatArray
    prices: FloatArray

    def __len__(self) -> int:
        return len(self.population)

    def __getitem__(self, which: IntArray | slice) -> "Evaluated":
        return Evaluated(self.population[which], self.accuracy[which], self.prices[:, which])

    def distinct(self) -> "Evaluated":
        """Return the first of each of the networks with equal figures, in the same order."""
        _, first = np.unique(np.vstack([self.accuracy, self.prices]), axis=1, return_index=True)
        return self[np.sort(first)]

    def where(self, chosen: IntArray, others: "Evaluated") -> "Evaluated":
        """Take networks from ``others`` where ``chosen`` (N,), and from self elsewhere."""
        return Evaluated(
            Population(np.where(chosen, others.population.genes, self.population.genes)),
            np.where(chosen, others.accuracy, self.accuracy),
            np.where(chosen, others.prices, self.prices),
        )

    def best(self, count: int) -> "Evaluated":
        """Return the ``count`` most accurate networks, best first. Ties go to the smaller price."""
        if len(self) > count == 1:  # avoids sorting
            equals = np.flatnonzero(self.accuracy == self.accuracy.max())
            return self[equals[[int(np.argmin(self.prices[0, equals]))]]]
        return self[np.lexsort((self.prices[0], -self.accuracy))[:count]]

    @staticmethod
    def concatenate(parts: "list[Evaluated]") -> "Evaluated":
        return Evaluated(
            Population.concatenate([part.population for part in parts]),
            np.concatenate([part.accuracy for part in parts]),
            np.concatenate([part.prices for part in parts], axis=1),
        )


class EvaluationCache:
    """Stores evaluated networks. Searches that differ only in their limits share one cache."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.evaluated = 0
        self._columns: dict[int, int] = {}  # by digest
        self._genes: IntArray = np.empty((len(problem.space.radices), _FIRST_ROOM), dtype=np.uint8)
        self._accuracy: FloatArray = np.empty(_FIRST_ROOM)
        self._prices: FloatArray = np.empty((len(problem.metrics), _FIRST_ROOM))

    def admit(self, population: Population, problem: Problem, most: int | None = None) -> Candidates:
        """Return the first ``most`` networks that are within the limits of the problem and new."""
        prices = self._problem.prices(population)
        fits = np.flatnonzero(problem.fits(prices))
        within = population if len(fits) == len(population) else population[fits]
        digests = self._problem.space.digests(within)
        fresh = self._fresh(digests, self._find(digests), most)
        tried = int(fits[fresh[-1]]) + 1 if len(fresh) and len(fresh) == most else len(population)
        return Candidates(within[fresh], prices[:, fits[fresh]], digests[fresh], tried)

    def evaluate(self, candidates: Candidates) -> Evaluated:
        """Evaluate candidates with the accuracy model, and store the results."""
        accuracy = np.empty(0)
        if len(candidates):
            try:
                accuracy = np.asarray(self._problem.accuracy(candidates.population), dtype=np.float64)
            except (FunctionFailed, FunctionInterrupted) as stopped:
                self._keep(candidates.first(len(stopped.done)), stopped.done)
                raise
            self._keep(candidates, accuracy)
        return Evaluated(candidates.population, accuracy, candidates.prices)

    def enter(self, population: Population) -> Evaluated:
        """Evaluate networks without a check for known ones. They must not have been evaluated before."""
        prices, digests = self._problem.prices(population), self._problem.space.digests(population)
        return self.evaluate(Candidates(population, prices, digests, len(population)))

    def look_up(self, population: Population, most: int) -> Evaluated:
        """Look up networks, feasible or not; evaluate at most ``most`` new ones. The accuracy of the others is −∞."""
        prices, digests = self._problem.prices(population), self._problem.space.digests(population)
        columns = self._find(digests)
        fresh = self._fresh(digests, columns, most)
        if len(fresh):
            self.evaluate(Candidates(population[fresh], prices[:, fresh], digests[fresh], len(population)))
            columns = self._find(digests)
        return Evaluated(population, np.where(columns < 0, -np.inf, self._accuracy[columns]), prices)

    def best(self, problem: Problem, count: int = 1) -> Evaluated:
        """Return the ``count`` most accurate evaluated networks within the limits of the problem."""
        known = self.known
        fits = np.flatnonzero(problem.fits(known.prices))
        return known[fits].best(count)

    @property
    def nothing(self) -> Evaluated:
        return self.known[np.empty(0, dtype=int)]

    @property
    def known(self) -> Evaluated:
        """All evaluated networks."""
        there = slice(self.evaluated)
        return Evaluated(Population(self._genes[:, there]), self._accuracy[there], self._prices[:, there])

    def _find(self, digests: IntArray) -> IntArray:
        """Return (N,) the columns of the digests."""
        return np.fromiter(map(self._columns.get, digests.tolist(), repeat(_UNKNOWN)), np.int64, len(digests))

    def _fresh(self, digests: IntArray, columns: IntArray, most: int | None) -> IntArray:
        """Return the indices of the first ``most`` digests without a column, and register these digests."""
        unknown = np.flatnonzero(columns == _UNKNOWN)
        _, first = np.unique(digests[unknown], return_index=True)
        fresh: IntArray = unknown[np.sort(first)[:most]]
        self._columns.update(dict.fromkeys(digests[fresh].tolist(), _ADMITTED))
        return fresh

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
        self._columns.update(zip(candidates.digests.tolist(), range(start, stop), strict=True))
        self.evaluated = stop
