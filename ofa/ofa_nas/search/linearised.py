"""Sequential linearisation: networks that are the best of their own linear model within the limits.

The worths of a network are the gradient of the accuracy model there. The knapsack with these worths is solved at three
prices for every changed slot (a trust region), the three candidates are evaluated, and the best one is the next
network. The price rises where no candidate is better, until nothing changes. Many networks, at all resolutions and
limits, take each step together.
"""

from collections.abc import Sequence
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
TRUST = (0.25, 1.0, 4.0)  # prices of a changed slot, relative to the current one
FIRST_TRUST, LEAST_TRUST, MOST_TRUST = 0.25, 0.02, 16.0  # relative to the mean range of the worths of a slot
LARGER, SMALLER = 4.0, 0.5


@dataclass(frozen=True)
class Places:
    """The resolution indices (N,) and limits (metrics, N) of networks, and the smallest network (genes, N) within."""

    resolutions: IntArray
    limits: FloatArray
    smallest: IntArray

    def __getitem__(self, which: IntArray) -> "Places":
        return Places(self.resolutions[which], self.limits[:, which], self.smallest[:, which])


def is_additive(problem: Problem) -> bool:
    """Return whether the accuracy model has worths, and every limit is on a sum or on a peak."""
    return isinstance(problem.accuracy, Differentiable) and all(
        metric.is_peak or metric.exact for metric in problem.metrics
    )


class Linearised:
    """Proposes networks by the worths of other networks."""

    def __init__(self, run: Run, model: Differentiable, variation: Variation) -> None:
        self._run = run
        self._model = model
        self._variation = variation
        self.knapsacks = Knapsacks(run.problems[-1], model)

    def worths(self, population: Population) -> tuple[FloatArray, FloatArray]:
        """Return (options, N) worths of the options in these networks, and (N,) mean ranges within a slot."""
        options = self.knapsacks.options
        worths = options.summed(self._model.worths(population)[1].astype(np.float32), options.features)
        return worths, np.ptp(worths, axis=0) / 2

    def solve(
        self,
        worths: FloatArray,
        chosen: IntArray,
        trust: FloatArray,
        places: Places,
        near: tuple[FloatArray, FloatArray] | None = None,
    ) -> tuple[Solved, Population]:
        """Solve knapsacks in which every slot that differs from ``chosen`` (slots, N) costs ``trust`` (N,) of worth."""
        priced = worths.copy()
        priced[chosen, np.arange(chosen.shape[1])] += trust
        solved = self.knapsacks.solve(priced, places.resolutions, places.limits, near)
        repaired = self._variation.repaired(solved.population, Population(places.smallest), places.limits)
        return solved, repaired

    def climb(self, here: Evaluated, places: Places) -> Evaluated:
        """Take steps from networks within the limits until no step is better."""
        trust = np.full(len(here), FIRST_TRUST)
        going = np.arange(len(here))
        for _ in range(STEPS):
            if self._run.over or not len(going):
                break
            now, own = here[going], places[going]
            worths, scale = self.worths(now.population)
            chosen = self.knapsacks.options.chosen(now.population)
            times = len(TRUST)
            prices = np.concatenate([trust[going] * scale * each for each in TRUST])
            tiled = np.tile(np.arange(len(going)), times)
            _, proposed = self.solve(worths[:, tiled], chosen[:, tiled], prices, own[tiled])
            there = self._run.look_up(proposed)
            accuracy = there.accuracy.reshape(times, -1)
            at = accuracy.argmax(axis=0)
            better = accuracy[at, np.arange(len(going))] > now.accuracy
            best = there[at * len(going) + np.arange(len(going))]
            moved = now.where(better, best)
            here = _replaced(here, going, moved)
            factor = np.where(better, np.array([SMALLER, 1.0, LARGER])[at], LARGER)
            trust[going] = np.maximum(trust[going] * factor, LEAST_TRUST)
            going = going[trust[going] <= MOST_TRUST]
        return here


def _replaced(whole: Evaluated, which: IntArray, parts: Evaluated) -> Evaluated:
    genes, accuracy, prices = whole.population.genes.copy(), whole.accuracy.copy(), whole.prices.copy()
    genes[:, which], accuracy[which], prices[:, which] = parts.population.genes, parts.accuracy, parts.prices
    return Evaluated(Population(genes), accuracy, prices)


def places_of(problems: Sequence[Problem], count: int) -> Places:
    """Return ``count`` places: the problems alternate, and each one's resolutions take turns."""
    which = np.arange(count) % len(problems)
    indices = problems[0].space.resolution_indices(problems[0].resolutions_px)
    resolutions = indices[(np.arange(count) // len(problems)) % len(indices)]
    limits = np.array([problem.limits for problem in problems]).T[:, which]
    smallest = np.concatenate([problem.smallest().genes for problem in problems], axis=1)[:, which]
    return Places(resolutions, limits, smallest)
