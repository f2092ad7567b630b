"""The best networks for given worths of their options within additive limits: many multiple-choice knapsacks at once.

A multiplier is the price of a limit. At a given price, every slot is chosen separately, and sets of options by variable
elimination (Lagrangian relaxation: Everett, Operations Research 1963). Bisection finds the lowest price at which the
network is within the limits. With several limits, the ratios of their prices are adapted between bisections. Single
options then fill what is left of the limits.
"""

from dataclasses import dataclass, fields

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.options import IMPOSSIBLE, Options, mark, marks, picked
from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import FloatArray, IntArray, Population

OCTAVES = (-14.0, 6.0)  # of the price, around the ratio of the ranges of worths and costs
HALVINGS = 11
NEAR_OCTAVES, NEAR_HALVINGS = (-2.0, 2.0), 3  # around a known price
ROUNDS = 4  # of adapting the ratios between the prices of several limits
FILLS = 2
ROUNDING = 1e-6
TINY = np.finfo(np.float32).tiny  # a marked 0 is not larger


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
            figures: FloatArray = np.pad(metric.figures, ((0, 0), (0, 1)))  # ABSENT reads the last column: 0
            if metric.is_peak:
                barred |= figures[:, options.entries].max(axis=1) > limit
                barred |= (figures[:, fixed].max(axis=1, initial=0) > limit)[:, None]
                continue
            costs.append(figures[:, options.entries].sum(axis=1))
            bases.append(metric.constant + figures[:, fixed].sum(axis=1))
        self.costs: FloatArray = np.array(costs, dtype=np.float32)  # (limits, resolutions, options)
        self._costs: FloatArray = np.ascontiguousarray(self.costs.transpose(0, 2, 1))
        self.bases: FloatArray = np.array(bases)  # (limits, resolutions)
        self.allowed = ~barred  # (resolutions, options)
        self._barred = np.where(barred, np.float32(IMPOSSIBLE), np.float32(0)).T if barred.any() else None
        self._bits = (len(options) - 1).bit_length()
        self._places = np.arange(len(options), dtype=np.int32)[:, None]

    def has_room(self, resolution: int, limits: FloatArray) -> bool:
        """Return whether the blocks that every network has at this resolution are within the limits (metrics, 1)."""
        return bool((limits[self._sums, 0] > self.bases[:, resolution]).all())

    def joint(self, resolution: int, limits: FloatArray) -> FloatArray:
        """Return (options,) costs at a resolution. Those of a network within ``limits`` (metrics, 1) are at most 1."""
        rooms = limits[self._sums, 0] - self.bases[:, resolution]
        mean: FloatArray = (self.costs[:, resolution].astype(np.float64) / rooms[:, None]).mean(axis=0)
        return mean

    def relative(self, resolutions: IntArray, limits: FloatArray) -> FloatArray:
        """Return (limits, options, N) costs. Those of a network within ``limits`` (metrics, N) are at most 1."""
        rooms = limits[self._sums] * (1 - ROUNDING) - self.bases[:, resolutions]
        costs: FloatArray = self._costs.take(resolutions, axis=2)
        costs /= np.maximum(rooms, 1e-12)[:, None].astype(np.float32)
        return costs

    def barred(self, resolutions: IntArray) -> FloatArray | None:
        """Return (options, N): 0, or IMPOSSIBLE for an option that exceeds the limit of a peak; None if none does."""
        return None if self._barred is None else self._barred.take(resolutions, axis=1)

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
        costs = self.relative(resolutions, limits)
        barred = self.barred(resolutions)
        if barred is not None:
            worths = worths + barred
        count = len(resolutions)
        ratios = np.ones((len(costs), count), dtype=np.float32) / len(costs) if near is None else near[1]
        found = self._at_least_price(worths, costs, ratios, None if near is None else near[0])
        for _ in range(ROUNDS if len(costs) > 1 and near is None else 0):
            ratios = ratios * found.used**2
            ratios = (ratios / ratios.sum(axis=0)).astype(np.float32)
            found = found.better(self._at_least_price(worths, costs, ratios, None))
        chosen = found.chosen
        for _ in range(FILLS):
            chosen = self._filled(worths, costs, chosen)
        networks = self.options.networks(chosen, found.shared, resolutions)
        return Solved(networks, chosen, found.prices, found.ratios)

    def _at_least_price(
        self, worths: FloatArray, costs: FloatArray, ratios: FloatArray, near: FloatArray | None
    ) -> "_Found":
        """Return the best options at the lowest prices at which they are within the limits.

        Without ``near``, the prices are searched in a wide range, which includes 0.
        """
        joint = costs[0] if len(costs) == 1 else joined(costs, ratios)
        middle = _middle(worths, joint) if near is None else near
        (low, high), halvings = (OCTAVES, HALVINGS) if near is None else (NEAR_OCTAVES, NEAR_HALVINGS)
        above = np.full(len(middle), high)
        below = np.full(len(middle), low)
        found = self._at(worths, costs, joint, ratios, middle * 2**above)
        if near is None:
            found = found.if_within(self._at(worths, costs, joint, ratios, np.zeros(len(middle))))
        for _ in range(halvings):
            half = (below + above) / 2
            other = self._at(worths, costs, joint, ratios, middle * 2**half)
            below, above = np.where(other.is_within, below, half), np.where(other.is_within, half, above)
            found = found.if_within(other)
        return found

    def _at(
        self, worths: FloatArray, costs: FloatArray, joint: FloatArray, ratios: FloatArray, prices: FloatArray
    ) -> "_Found":
        score = prices.astype(np.float32) * joint
        np.subtract(worths, score, out=score)
        total, chosen, shared = self.options.best(score)
        used = np.stack([picked(cost, chosen).sum(axis=0) for cost in costs])
        return _Found(chosen, shared, prices, ratios, used, total + prices * (ratios * used).sum(axis=0))

    def _filled(self, worths: FloatArray, costs: FloatArray, chosen: IntArray) -> IntArray:
        """Exchange the one option that adds the most worth and fits into what is left of the limits."""
        options = self.options
        gain = worths - picked(worths, chosen)[options.slot_of]
        sets = options.set_of_option
        fits = (sets[chosen][options.slot_of_set] == np.arange(len(options.slot_of_set))[:, None])[sets]
        for cost in costs:
            own = picked(cost, chosen)
            room = own + (1 - own.sum(axis=0))
            fits &= cost <= room[options.slot_of]
        gain *= fits
        most = mark(gain, self._places, self._bits).max(axis=0)
        best = marks(most, self._bits)
        better = np.flatnonzero(most > TINY)
        filled = chosen.copy()
        filled[options.slot_of[best[better]], better] = best[better]
        return filled


@dataclass(frozen=True)
class _Found:
    """Options (slots, N) and shared genes, prices (N,), the used parts (limits, N) of the limits, and worths (N,)."""

    chosen: IntArray
    shared: IntArray
    prices: FloatArray
    ratios: FloatArray
    used: FloatArray
    worths: FloatArray

    @property
    def is_within(self) -> FloatArray:
        """(N,)"""
        within: FloatArray = np.all(self.used <= 1, axis=0)
        return within

    def if_within(self, other: "_Found") -> "_Found":
        """Take the other networks that are within the limits."""
        return self._where(other.is_within, other)

    def better(self, other: "_Found") -> "_Found":
        """Take the other networks that are within the limits and worth more, or closer to the limits."""
        closer = other.used.max(axis=0) < self.used.max(axis=0)
        improves = np.where(other.is_within, ~self.is_within | (other.worths > self.worths), ~self.is_within & closer)
        return self._where(improves, other)

    def _where(self, which: FloatArray, other: "_Found") -> "_Found":
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return _Found(*(np.where(which, there, here) for here, there in pairs))


def joined(costs: FloatArray, ratios: FloatArray) -> FloatArray:
    """Return (options, N) sums of ``costs`` (limits, options, N) by the ratios (limits, N) of their prices."""
    return np.einsum("mn,mon->on", ratios, costs)


def _middle(worths: FloatArray, joint: FloatArray) -> FloatArray:
    """Return (N,) ratios of the ranges of worths and costs."""
    possible = np.where(worths > IMPOSSIBLE / 2, worths, 0)
    return np.ptp(possible, axis=0).astype(float) / np.maximum(np.ptp(joint, axis=0), 1e-12) + 1e-12
