"""Sequential linearisation: networks that are the best of the linear model around them, within the limits.

The worths of a network are the gradient of the accuracy model there. The knapsack with these worths is solved at two
prices for every changed slot (a trust region), both solutions are evaluated, and the better one is the next network.
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

TRUST = np.array([0.5, 2.0])  # prices of a changed slot, relative to the current one
NEXT_TRUST = np.array([0.5, 2.0])  # the next current one, if the solution at this price is the best
LARGER = 4.0  # the next one, if none is better
FIRST_TRUST, LEAST_TRUST, MOST_TRUST = 0.25, 0.02, 16.0  # relative to half the range of the worths


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
        return Bounds(self.limits.take(which, axis=1), self.smallest.take(which, axis=1))


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
        self._resolutions = run.problems[0].space.resolution_indices(run.problems[0].resolutions_px)
        self._drawn = 0

    def worths(self, population: Population) -> tuple[FloatArray, FloatArray]:
        """Return (options, N) worths of the options in these networks, and half their ranges (N,)."""
        worths = self.options.summed(self._model.worths(population)[1].astype(np.float32), self.options.features)
        return worths, np.ptp(worths, axis=0) / 2

    def random(self, count: int) -> Population:
        """Return random networks. The resolutions take turns."""
        resolutions = self._resolutions[(self._drawn + np.arange(count)) % len(self._resolutions)]
        self._drawn += count
        genes = self._variation.newcomers(count).genes
        genes[-1] = resolutions
        return Population(genes)

    def repaired(self, population: Population, bounds: Bounds) -> Population:
        return self._variation.repaired(population, Population(bounds.smallest), bounds.limits)

    def solve(
        self,
        worths: FloatArray,
        resolutions: IntArray,
        bounds: Bounds,
        near: tuple[FloatArray, FloatArray] | None = None,
    ) -> tuple[Solved, Population]:
        """Solve knapsacks with ``worths`` (options, N); the networks are repaired if rounding or ``near`` needs it."""
        solved = self._knapsacks.solve(worths, resolutions, bounds.limits, near)
        return solved, self.repaired(solved.population, bounds)

    def look_up(self, population: Population) -> tuple[Evaluated, IntArray]:
        return self._run.look_up_new(population)


class Climb:
    """Networks that climb together. Those that are ``ended`` have no better solution; they can be restarted."""

    def __init__(self, guide: Linearised, population: Population, bounds: Bounds) -> None:
        self._guide = guide
        self._bounds = bounds
        count = len(population)
        self.here = Evaluated(population, np.full(count, -np.inf), np.full(bounds.limits.shape, np.nan))
        self._trust = np.full(count, FIRST_TRUST)
        self._worths, self._scale = guide.worths(population)
        self._chosen = guide.options.chosen(population)
        self._stale = np.zeros(count, dtype=bool)  # networks that have moved since their worths were computed
        self._failed = np.empty(0, dtype=int)  # networks that refused the solutions ``_refused`` in the last step
        self._refused = population[self._failed]
        self._near: tuple[FloatArray, FloatArray] | None = None

    @property
    def ended(self) -> FloatArray:
        """(N,)"""
        ended: FloatArray = self._trust > MOST_TRUST
        return ended

    def step(self) -> int:
        """Move each network to the best of its solutions, if that is better. Return the number of solutions."""
        self._renew()
        count, times = len(self.here), len(TRUST)
        tiled = np.tile(np.arange(count), times)
        priced = self._worths.take(tiled, axis=1)
        trust = (TRUST[:, None] * self._trust * self._scale).ravel().astype(np.float32)
        priced[self._chosen.take(tiled, axis=1), np.arange(len(tiled))] += trust
        near = None if self._near is None else (self._near[0][tiled], self._near[1][:, tiled])
        resolutions = self.here.population.genes[-1][tiled]
        solved, proposed = self._guide.solve(priced, resolutions, self._bounds[tiled], near)
        there, new = self._guide.look_up(proposed)
        at = there.accuracy.reshape(times, count).argmax(axis=0)
        which = at * count + np.arange(count)
        better = there.accuracy[which] > self.here.accuracy
        unchanged = (proposed.genes[:, -count:] == self.here.population.genes).all(axis=0)
        self.here = self.here.where(better, there[which])
        if self._near is None:
            self._near = solved.prices[:count], solved.ratios[:, :count]
        else:  # a network that does not move does not use up its limits, so that its price is too low
            prices, ratios = self._near
            self._near = (
                np.where(better, solved.prices[which], prices),
                np.where(better, solved.ratios[:, which], ratios),
            )
        factor = np.where(better, NEXT_TRUST[at], np.where(unchanged, np.inf, LARGER))
        factor = np.where(better & ~new[which], np.inf, factor)
        self._trust = np.clip(self._trust * factor, LEAST_TRUST, 2 * MOST_TRUST)
        self._stale |= better
        self._failed = np.flatnonzero(~better & ~self.ended)
        self._refused = proposed[which[self._failed]]
        return len(tiled)

    def restart(self, which: IntArray, population: Population) -> None:
        """Replace these networks by others, which are not evaluated: their first solution is taken as better."""
        genes, accuracy = self.here.population.genes.copy(), self.here.accuracy.copy()
        prices = self.here.prices.copy()
        genes[:, which], accuracy[which], prices[:, which] = population.genes, -np.inf, np.nan
        self.here = Evaluated(Population(genes), accuracy, prices)
        self._trust[which] = FIRST_TRUST
        self._stale[which] = True

    def _renew(self) -> None:
        """Compute the worths of networks that have moved.

        Those of networks that have not are averaged with the worths of the solutions that they refused: between two
        networks, the mean of their gradients is closer to the difference of their accuracies than either is.
        """
        moved, failed = np.flatnonzero(self._stale), self._failed
        self._stale[:] = False
        networks = self.here.population[moved]
        worths, scale = self._guide.worths(Population.concatenate([networks, self._refused]))
        self._worths[:, moved], self._scale[moved] = worths[:, : len(moved)], scale[: len(moved)]
        self._worths[:, failed] = (self._worths[:, failed] + worths[:, len(moved) :]) / 2
        self._chosen[:, moved] = self._guide.options.chosen(networks)
