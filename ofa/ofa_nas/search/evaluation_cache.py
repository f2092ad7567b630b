"""The evaluation cache of a search: every network is evaluated once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import FloatArray, IntArray, Population

_FIRST_ROOM = 1 << 12


@dataclass(frozen=True)
class Candidates:
    """Networks that are new to the cache, and their prices (metrics, N).

    ``digests`` identify networks. ``tried`` is the number of networks that were checked to find these.
    """

    population: Population
    prices: FloatArray
    digests: list[int]
    tried: int

    def __len__(self) -> int:
        return len(self.population)

    @staticmethod
    def concatenate(parts: "list[Candidates]") -> "Candidates":
        return Candidates(
            Population.concatenate([part.population for part in parts]),
            np.concatenate([part.prices for part in parts], axis=1),
            [digest for part in parts for digest in part.digests],
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

    def each(self) -> Iterator["Evaluated"]:
        """Yield the networks one by one, without duplicates."""
        met: set[tuple[float, ...]] = set()
        for at in range(len(self)):
            figures = (self.accuracy[at], *self.prices[:, at])
            if figures not in met:
                met.add(figures)
                yield self[slice(at, at + 1)]

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
        self._where: dict[int, int] = {}  # digest of a network -> column; -1: not evaluated
        self._genes: IntArray = np.empty((len(problem.space.radices), _FIRST_ROOM), dtype=np.uint8)
        self._accuracy: FloatArray = np.empty(_FIRST_ROOM)
        self._prices: FloatArray = np.empty((len(problem.metrics), _FIRST_ROOM))

    def admit(self, population: Population, problem: Problem, most: int | None = None) -> Candidates:
        """Return the first ``most`` networks that are within the limits of the problem and new."""
        prices = self._problem.prices(population)
        fits = np.flatnonzero(problem.fits(prices))
        within = population if len(fits) == len(population) else population[fits]
        digests = self._digests(within)
        fresh = self._fresh(digests, most)
        tried = int(fits[fresh[-1]]) + 1 if fresh and len(fresh) == most else len(population)
        return Candidates(within[fresh], prices[:, fits[fresh]], [digests[at] for at in fresh], tried)

    def evaluate(self, candidates: Candidates) -> Evaluated:
        """Evaluate candidates with the accuracy model, and store the results."""
        accuracy = np.empty(0)
        if len(candidates):
            accuracy = np.asarray(self._problem.accuracy(candidates.population), dtype=np.float64)
            self._keep(candidates, accuracy)
        return Evaluated(candidates.population, accuracy, candidates.prices)

    def enter(self, population: Population) -> Evaluated:
        """Evaluate networks without a check for known ones. They must not have been evaluated before."""
        prices, digests = self._problem.prices(population), self._digests(population)
        return self.evaluate(Candidates(population, prices, digests, len(population)))

    def look_up(self, population: Population, most: int) -> Evaluated:
        """Look up networks, feasible or not; evaluate at most ``most`` new ones. The accuracy of the others is −∞."""
        prices, digests = self._problem.prices(population), self._digests(population)
        fresh = self._fresh(digests, most)
        self.evaluate(Candidates(population[fresh], prices[:, fresh], [digests[at] for at in fresh], len(population)))
        columns = np.array([self._where.get(digest, -1) for digest in digests], dtype=int)
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

    def _fresh(self, digests: list[int], most: int | None) -> list[int]:
        """Return the indices of the first ``most`` new digests, and register these digests."""
        met = self._where
        fresh: list[int] = []
        for at, digest in enumerate(digests):
            if len(fresh) == most:
                break
            if digest not in met:
                met[digest] = -1
                fresh.append(at)
        return fresh

    def _digests(self, population: Population) -> list[int]:
        digests: list[int] = self._problem.space.digests(population).tolist()
        return digests

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
        self._where.update(zip(candidates.digests, range(start, stop), strict=True))
        self.evaluated = stop
