"""The best networks for given worths of their options within additive limits: many multiple-choice knapsacks at once.

A multiplier is the price of a limit. At a given price, every slot is chosen separately, and sets of options by variable
elimination (Lagrangian relaxation: Everett, Operations Research 1963). Bisection finds the lowest price at which the
network is within the limits. With several limits, the ratios of their prices are adapted between bisections. Single
options then fill what is left of the limits.
"""

from dataclasses import dataclass

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.options import Options
from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import FloatArray, IntArray, Population

OCTAVES = (-14.0, 6.0)  # of the price, around the ratio of the ranges of worths and costs
HALVINGS = 11
NEAR_OCTAVES, NEAR_HALVINGS = (-1.0, 1.0), 5  # around a known price
ROUNDS = 4  # of adapting the ratios between the prices of several limits
FILLS = 2
ROUNDING = 1e-6


@dataclass(frozen=True)
class Solved:
    """Networks with their options (slots, N), prices (N,) of the limits together, and ratios (limits, N) of prices."""

    population: Population
    chosen: IntArray
    prices: FloatArray
    ratios: FloatArray


class Knapsacks:
    """Solves knapsacks over the options of a problem, at any of its resolutions and for any limits."""

    def __init__(self, problem: Problem, model: Differentiable) -> None:
        self.options = options = Options(problem.space, model.features)
        self._sums = [at for at, metric in enumerate(problem.metrics) if not metric.is_peak]
        fixed = [int(place.entries[0]) for place in problem.space.positions if not place.genes]
        costs, bases = [], []
        barred: FloatArray = np.zeros((len(problem.space.resolutions_px), len(options)), dtype=bool)
        for metric, limit in zip(problem.metrics, problem.limits, strict=True):
            if metric.is_peak:
                over = np.concatenate([metric.figures, np.zeros((len(metric.figures), 1))], axis=1) > limit
                barred |= over[:, options.entries].any(axis=1) | over[:, fixed].any(axis=1)[:, None]
                continue
            padded = np.concatenate([metric.figures, np.zeros((len(metric.figures), 1))], axis=1)
            costs.append(padded[:, options.entries].sum(axis=1))
            bases.append(metric.constant + padded[:, fixed].sum(axis=1))
        self.costs: FloatArray = np.array(costs, dtype=np.float32)  # (limits, resolutions, options)
        self.bases: FloatArray = np.array(bases)  # (limits, resolutions)
        self._barred = np.where(barred, np.float32(-np.inf), np.float32(0)) if barred.any() else None

    def solve(
        self,
        worths: FloatArray,
        resolutions: IntArray,
        limits: FloatArray,
        near: tuple[FloatArray, FloatArray] | None = None,
    ) -> Solved:
        """Return networks with a large sum of ``worths`` (options, N) within ``limits`` (metrics, N).

        ``resolutions`` (N,) are indices. ``near`` are prices and ratios of a similar knapsack. Networks may exceed the
        limits slightly because of rounding, or if no price within the range is high enough.
        """
        rooms = limits[self._sums] * (1 - ROUNDING) - self.bases[:, resolutions]
        costs = self.costs[:, resolutions].transpose(0, 2, 1) / np.maximum(rooms, 1e-12)[:, None].astype(np.float32)
        if self._barred is not None:
            worths = worths + self._barred[resolutions].T
        count = len(resolutions)
        ratios = np.ones((len(costs), count), dtype=np.float32) / len(costs) if near is None else near[1]
        best, chosen, prices, kept = np.full(count, -np.inf), None, np.zeros(count), ratios
        genes: Population | None = None
        for _ in range(ROUNDS if len(costs) > 1 and near is None else 1):
            joint = costs[0] if len(costs) == 1 else np.einsum("mn,mon->on", ratios, costs)
            middle = _middle(worths, joint) if near is None else near[0]
            price, options, shared, used = self._bisected(worths, costs, joint, middle, near is not None)
            within = (used <= 1).all(axis=0)
            value = np.where(within, np.take_along_axis(worths, options, axis=0).sum(axis=0), -1e30 * used.max(axis=0))
            found = self.options.networks(options, shared, resolutions)
            if chosen is None or genes is None:
                best, chosen, prices, kept, genes = value, options, price, ratios, found
            else:
                better = value > best
                best, prices = np.where(better, value, best), np.where(better, price, prices)
                chosen, kept = np.where(better, options, chosen), np.where(better, ratios, kept)
                genes = Population(np.where(better, found.genes, genes.genes))
            ratios = ratios * used**2
            ratios = (ratios / ratios.sum(axis=0)).astype(np.float32)
        assert chosen is not None
        assert genes is not None
        for _ in range(FILLS):
            chosen = self._filled(worths, costs, chosen)
        return Solved(self.options.with_options(genes, chosen), chosen, prices, kept)

    def _bisected(
        self, worths: FloatArray, costs: FloatArray, joint: FloatArray, middle: FloatArray, is_near: bool
    ) -> tuple[FloatArray, IntArray, dict[int, IntArray], FloatArray]:
        """Return prices, options, shared genes, and the used parts of the limits, at the lowest feasible prices."""
        (low, high), halvings = (NEAR_OCTAVES, NEAR_HALVINGS) if is_near else (OCTAVES, HALVINGS)
        below, above = np.full(len(middle), low), np.full(len(middle), high)
        _, options, shared = self.options.best(worths)
        used = self._used(costs, options)
        free = (used <= 1).all(axis=0)
        for _ in range(halvings):
            half = (below + above) / 2
            _, options, shared = self.options.best(worths - (middle * 2**half).astype(np.float32) * joint)
            within = (self._used(costs, options) <= 1).all(axis=0)
            below, above = np.where(within, below, half), np.where(within, half, above)
        price = np.where(free, 0.0, middle * 2**above)
        _, options, shared = self.options.best(worths - price.astype(np.float32) * joint)
        return np.where(free, middle, price), options, shared, self._used(costs, options)

    def _used(self, costs: FloatArray, options: IntArray) -> FloatArray:
        return np.stack([np.take_along_axis(cost, options, axis=0).sum(axis=0) for cost in costs])

    def _filled(self, worths: FloatArray, costs: FloatArray, chosen: IntArray) -> IntArray:
        """Exchange the one option that adds the most worth and fits into what is left of the limits."""
        options, columns = self.options, np.arange(chosen.shape[1])
        here = chosen[options.slot_of]
        gain = worths - np.take_along_axis(worths, here, axis=0)
        gain[options.set_of_option[here] != options.set_of_option[:, None]] = 0
        for cost in costs:
            left = 1 - np.take_along_axis(cost, chosen, axis=0).sum(axis=0)
            gain[cost - np.take_along_axis(cost, here, axis=0) > left] = 0
        best = gain.argmax(axis=0)
        better = np.flatnonzero(gain[best, columns] > 0)
        filled = chosen.copy()
        filled[options.slot_of[best[better]], better] = best[better]
        return filled


def _middle(worths: FloatArray, joint: FloatArray) -> FloatArray:
    """Return (N,) ratios of the ranges of worths and costs."""
    finite = np.where(np.isfinite(worths), worths, 0)
    return np.ptp(finite, axis=0).astype(float) / np.maximum(np.ptp(joint, axis=0), 1e-12) + 1e-12
