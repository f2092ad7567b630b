"""Sequential linearisation: networks that are the best of their own linear model within the limits.

The worths of a network are the gradient of the accuracy model there. The knapsack with these worths is solved at three
prices for every changed slot (a trust region), the three solutions are evaluated, and the best one is the next network.
The price rises while no solution is better, up to a price at which nothing changes. Many networks, at all resolutions
and limits, take each step together.
"""

from dataclasses import dataclass

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.knapsack import Knapsacks, Solved
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import FloatArray, IntArray, Population

STEPS = 12
TRUST = np.array([0.25, 1.0, 4.0])  # prices of a changed slot, relative to the current one
NEXT_TRUST = np.array([0.5, 1.0, 4.0])  # the next current one, if the solution at this price is the best
FIRST_TRUST, LEAST_TRUST, MOST_TRUST = 0.25, 0.02, 16.0  # relative to the range of the worths


def is_additive(problem: Problem) -> bool:
    """Return whether the accuracy model has worths, and every limit is on a sum or on a peak."""
    return isinstance(problem.accuracy, Differentiable) and all(
        metric.is_peak or metric.exact for metric in problem.metrics
    )


@dataclass(frozen=True)
class Bounds:
    """The limits (metrics, N) of networks, and the smallest network (genes, N) within them."""

    limits: FloatArray
    smallest: IntArray

    def __getitem__(self, which: IntArray) -> "Bounds":
        return Bounds(self.limits[:, which], self.smallest[:, which])


def bounds_of(run: Run, count: int) -> Bounds:
    """Return the bounds of ``count`` networks. The problems take turns."""
    which = np.arange(count) % len(run.problems)
    limits = np.array([problem.limits for problem in run.problems]).T
    smallest = np.concatenate([problem.smallest().genes for problem in run.problems], axis=1)
    return Bounds(limits[:, which], smallest[:, which])


class Linearised:
    """Proposes networks by the worths of other networks."""

    def __init__(self, run: Run, model: Differentiable, variation: Variation) -> None:
        self._run = run
        self._model = model
        self._variation = variation
        self._knapsacks = Knapsacks(run.problems[-1], model)
        self.options = self._knapsacks.options

    def worths(self, population: Population) -> tuple[FloatArray, FloatArray]:
        """Return (options, N) worths of the options in these networks, and half their ranges (N,)."""
        worths = self.options.summed(self._model.worths(population)[1].astype(np.float32), self.options.features)
        return worths, np.ptp(worths, axis=0) / 2

    def starts(self, count: int, bounds: Bounds) -> Evaluated:
        """Return random networks within the bounds. The resolutions take turns."""
        problems = self._run.problems
        resolutions = problems[0].space.resolution_indices(problems[0].resolutions_px)
        genes = self._variation.newcomers(count).genes
        genes[-1] = resolutions[(np.arange(count) // len(problems)) % len(resolutions)]
        return self._run.look_up(self._repaired(Population(genes), bounds))

    def solve(
        self,
        worths: FloatArray,
        resolutions: IntArray,
        bounds: Bounds,
        near: tuple[FloatArray, FloatArray] | None = None,
    ) -> tuple[Solved, Population]:
        """Solve knapsacks with ``worths`` (options, N); the networks are repaired if rounding or ``near`` needs it."""
        solved = self._knapsacks.solve(worths, resolutions, bounds.limits, near)
        return solved, self._repaired(solved.population, bounds)

    def climb(self, here: Evaluated, bounds: Bounds) -> Evaluated:
        """Take steps from networks within the bounds until no step is better."""
        trust = np.full(len(here), FIRST_TRUST)
        going = np.arange(len(here))
        for _ in range(STEPS):
            if self._run.over or not len(going):
                break
            there, better, at = self._step(here[going], bounds[going], trust[going])
            here = _replaced(here, going[better], there[better])
            trust[going] *= np.where(better, NEXT_TRUST[at], TRUST[-1])
            trust = np.maximum(trust, LEAST_TRUST)
            going = going[trust[going] <= MOST_TRUST]
        return here

    def _step(self, here: Evaluated, bounds: Bounds, trust: FloatArray) -> tuple[Evaluated, FloatArray, IntArray]:
        """Return the best solutions, whether they are better than ``here``, and the indices of their prices."""
        count, chosen = len(here), self.options.chosen(here.population)
        worths, scale = self.worths(here.population)
        tiled = np.tile(np.arange(count), len(TRUST))
        priced = worths[:, tiled]
        priced[chosen[:, tiled], np.arange(len(tiled))] += (TRUST[:, None] * trust * scale).ravel().astype(np.float32)
        _, proposed = self.solve(priced, here.population.genes[-1][tiled], bounds[tiled])
        there = self._run.look_up(proposed)
        at = there.accuracy.reshape(len(TRUST), count).argmax(axis=0)
        best = there[at * count + np.arange(count)]
        return best, best.accuracy > here.accuracy, at

    def _repaired(self, population: Population, bounds: Bounds) -> Population:
        return self._variation.repaired(population, Population(bounds.smallest), bounds.limits)


def _replaced(whole: Evaluated, which: IntArray, parts: Evaluated) -> Evaluated:
    genes, accuracy, prices = whole.population.genes.copy(), whole.accuracy.copy(), whole.prices.copy()
    genes[:, which], accuracy[which], prices[:, which] = parts.population.genes, parts.accuracy, parts.prices
    return Evaluated(Population(genes), accuracy, prices)
