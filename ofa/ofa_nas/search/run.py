"""One run of a search: problems, evaluations, remaining budget."""

import math
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

import numpy as np

from ofa_nas.search.evaluation_cache import Candidates, Evaluated, EvaluationCache
from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import Population

# Called with the amount done and the maximum total.
Progress = Callable[[int, int], None]


class Run:
    """The interface of a search method. It offers networks until the budget is ``over`` or no network is left.

    ``problems`` differ only in their first limit; the tightest comes first. ``population`` is the number of networks to
    process at a time. ``seconds`` may be infinite. A method sets ``proven`` when it has tried every network.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        cache: EvaluationCache,
        population: int,
        evaluations: int,
        rng: np.random.Generator,
        progress: Progress,
        seconds: float = math.inf,
    ) -> None:
        self.problems = tuple(problems)
        self.cache = cache
        self.population = population
        self.evaluations = evaluations
        self.rng = rng
        self._progress = progress
        self._last = cache.evaluated + evaluations
        self._deadline = monotonic() + seconds
        self.proven = False

    @property
    def left(self) -> int:
        """The remaining evaluations."""
        return max(0, self._last - self.cache.evaluated)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._deadline - monotonic())

    @property
    def late(self) -> bool:
        """Whether the time limit has passed."""
        return monotonic() > self._deadline

    @property
    def over(self) -> bool:
        return not self.left or self.late

    def parts(self) -> Iterator[tuple[Problem, "Run"]]:
        """Yield each problem with a separate Run, which gets an equal share of the remaining budget."""
        for at, problem in enumerate(self.problems):
            others = len(self.problems) - at
            seconds = self.seconds_left / others
            reported: Progress = lambda done, total: self._report()  # noqa: E731
            evaluations = math.ceil(self.left / others)
            yield problem, Run([problem], self.cache, self.population, evaluations, self.rng, reported, seconds)

    def offer(self, population: Population, problem: Problem, most: int | None = None) -> Evaluated:
        """Evaluate the first ``most`` networks that are within the limits and new."""
        return self.evaluate(self.admit(population, problem, most))

    def admit(self, population: Population, problem: Problem, most: int | None = None) -> Candidates:
        """Return the first ``most`` networks that are within the limits and new, without evaluating them."""
        return self.cache.admit(population, problem, self.left if most is None else min(most, self.left))

    def evaluate(self, candidates: Candidates) -> Evaluated:
        found = self.cache.evaluate(candidates)
        self._report()
        return found

    def offer_all(self, population: Population, problem: Problem, done: int, total: int) -> None:
        """Evaluate all networks that are within the limits and new, regardless of the budget.

        ``done`` of ``total`` is the progress after this call.
        """
        self.cache.evaluate(self.cache.admit(population, problem))
        self._progress(done, total)

    def look_up(self, population: Population) -> Evaluated:
        """Look up networks, feasible or not. The accuracy is −∞ for networks that exceed the remaining budget."""
        found = self.cache.look_up(population, self.left)
        self._report()
        return found

    def _report(self) -> None:
        self._progress(self.evaluations - self.left, self.evaluations)


def silent(done: int, total: int) -> None:
    """Ignore progress."""


Method = Callable[[Run], None]
