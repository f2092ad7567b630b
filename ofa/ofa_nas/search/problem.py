"""What every search method shares: what is asked, how much may be tried, what was tried, what was found."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ofa_nas.accuracy.model import AccuracyModel, require_resolutions
from ofa_nas.errors import LimitUnreachable
from ofa_nas.spaces.space import FloatArray, Population, Space
from ofa_tables.errors import UsageError
from ofa_tables.model import LatencyModel

# The ledger keeps about 125 bytes for each network.
MOST_EVALUATIONS = 10_000_000

# Called with how much is done, and how much there is to do at most.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """The most accurate network of ``space`` within ``limit_ms``, at one of ``resolutions_px``.

    Raises UsageError for a limit that is no positive number.
    """

    space: Space
    latency: LatencyModel
    accuracy: AccuracyModel
    limit_ms: float
    resolutions_px: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (0 < self.limit_ms < math.inf):
            raise UsageError(f"a latency limit is a positive number of milliseconds, not {self.limit_ms:g}")

    def fastest(self) -> Population:
        """The one network of smallest latency. Raises LimitUnreachable where even that is too slow."""
        network: Population = self.latency.cheapest(self.resolutions_px)[1]
        smallest_ms = float(self.latency.predict(network)[0])
        if smallest_ms > self.limit_ms:
            px = ", ".join(map(str, self.resolutions_px))
            raise LimitUnreachable(self.limit_ms, smallest_ms, f"{self.space.name} at {px} px")
        return network


def usable_resolutions(
    latency: LatencyModel, accuracy: AccuracyModel, wanted_px: Iterable[int] | None = None
) -> tuple[int, ...]:
    """The wanted resolutions, or all that the table has whole and the accuracy model knows.

    Raises EntriesMissing where the table lacks entries, UsageError where the accuracy model does not know one.
    """
    if wanted_px is not None:
        resolutions_px = tuple(latency.require(wanted_px))
        require_resolutions(accuracy, resolutions_px)
        return resolutions_px
    measured = latency.require(None)
    common = tuple(px for px in measured if px in accuracy.resolutions_px)
    if not common:
        require_resolutions(accuracy, measured)
    return common


@dataclass(frozen=True)
class Budget:
    """How much may be tried; a method without generations tries as many networks. Raises UsageError."""

    population: int = 100
    generations: int = 500

    def __post_init__(self) -> None:
        if self.evaluations > MOST_EVALUATIONS:
            raise UsageError(
                f"{self.generations:,} generations of {self.population:,} are more than the {MOST_EVALUATIONS:,} "
                "networks that a search can remember; choose smaller --generations or --population"
            )

    @property
    def evaluations(self) -> int:
        return self.population * (self.generations + 1)


@dataclass(frozen=True)
class Candidates:
    """Networks within the limit that were not met before, and their latencies (N,) in ms."""

    population: Population
    latency_ms: FloatArray

    def __len__(self) -> int:
        return len(self.population)


@dataclass(frozen=True)
class Best:
    """``accuracy`` is what the accuracy model says, accuracy or not."""

    network: Population
    accuracy: float
    latency_ms: float


class Ledger:
    """What a search has met and evaluated: no network twice; and the best so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.evaluated = 0
        self.best: Best | None = None
        self._met: set[bytes] = set()

    def admit(self, population: Population, most: int | None = None) -> Candidates:
        """The first ``most`` of those within the limit that were not admitted before."""
        latency_ms = self.problem.latency.predict(population)
        feasible = np.flatnonzero(latency_ms <= self.problem.limit_ms)
        fresh = feasible[self._unmet(population[feasible], most)]
        return Candidates(population[fresh], latency_ms[fresh])

    def _unmet(self, population: Population, most: int | None) -> list[int]:
        """Which columns are new; they count as met from now on."""
        genes = self.problem.space.canonical(population).genes
        length, text = len(genes), genes.T.tobytes()
        unmet: list[int] = []
        for at in range(len(population)):
            key = text[at * length : (at + 1) * length]
            if len(unmet) == most:
                break
            if key not in self._met:
                self._met.add(key)
                unmet.append(at)
        return unmet

    def evaluate(self, candidates: Candidates) -> FloatArray:
        """(N,) figures of the accuracy model."""
        if not len(candidates):
            return np.empty(0)
        accuracy = self.problem.accuracy(candidates.population)
        self.evaluated += len(candidates)
        at = int(np.lexsort((candidates.latency_ms, -accuracy))[0])
        found = Best(candidates.population[[at]], float(accuracy[at]), float(candidates.latency_ms[at]))
        if self.best is None or (found.accuracy, -found.latency_ms) > (self.best.accuracy, -self.best.latency_ms):
            self.best = found
        return accuracy


# A method tries networks through the ledger until its budget is spent or there is nothing left to try.
Method = Callable[[Problem, Ledger, Budget, np.random.Generator, Progress], None]


def concatenate(parts: list[Candidates]) -> Candidates:
    """As one."""
    return Candidates(
        Population.concatenate([part.population for part in parts]),
        np.concatenate([part.latency_ms for part in parts]),
    )


def silent(done: int, total: int) -> None:
    """The Progress of nobody watching."""
