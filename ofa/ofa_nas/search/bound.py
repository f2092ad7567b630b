"""An upper bound of the accuracy of every network within the limits, refined by branch and bound.

A branch is a resolution and the options that are left in each slot. Within a branch, the accuracy model is at most a
linear function of its features (``relaxation.py``), and the largest value of a linear function within the limits is at
most that of the knapsack at any price of the limits. The branch with the largest bound is split at the slot that
matters most, until the bound is close enough or the time is over.
"""

import heapq
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

import numpy as np

from ofa_nas.accuracy.macs import MacsStandIn
from ofa_nas.accuracy.mlp import Mlp
from ofa_nas.search.exact import solve_exactly
from ofa_nas.search.knapsack import OCTAVES, Knapsacks
from ofa_nas.search.options import IMPOSSIBLE
from ofa_nas.search.problem import Problem
from ofa_nas.spaces.space import FloatArray, IntArray

PRICES = 8  # steps of the search for the price with the lowest bound
ROUNDING = 5e-6  # of the bound, relative; float32 in the knapsack and in the accuracy model


@dataclass(order=True)
class _Branch:
    """Sorted by ``order``, the negative bound. ``left`` (options,) are the options that are left."""

    order: float
    resolution: int = field(compare=False)
    left: IntArray = field(compare=False)
    worths: FloatArray = field(compare=False)  # (options,) of the linear bound


def upper_bound(problem: Problem, known: float, seconds: float, enough: float = 0.0) -> float | None:
    """Return a value that no network within the limits exceeds; None if the problem has no such bound.

    ``known`` is the accuracy of a network within the limits. The bound is refined until it is at most ``known`` +
    ``enough``, or until the time is over.
    """
    model = problem.accuracy
    if not isinstance(model, Mlp | MacsStandIn) or not problem.is_additive:
        return None
    deadline = monotonic() + seconds
    relaxed = _Relaxed(problem, model)
    resolutions = problem.space.resolution_indices(problem.resolutions_px)
    everything = np.ones(len(relaxed.options), dtype=bool)
    heap = [branch for px in resolutions for branch in relaxed.branches(int(px), everything, known)]
    heapq.heapify(heap)
    done = known
    while heap and -heap[0].order > known + enough and monotonic() < deadline:
        branch = heapq.heappop(heap)
        parts = relaxed.split(branch)
        if not parts:
            done = max(done, -branch.order)
        for left in parts:
            for child in relaxed.branches(branch.resolution, left, known, -branch.order):
                heapq.heappush(heap, child)
    return max(done, *(-branch.order for branch in heap), known)


class _Relaxed:
    """Bounds of branches."""

    def __init__(self, problem: Problem, model: Mlp | MacsStandIn) -> None:
        self._model = model
        self._limits = np.array([problem.limits]).T
        self._knapsacks = Knapsacks(problem, model)
        self.options = self._knapsacks.options
        self._is_linear = isinstance(model, MacsStandIn) and len(self._knapsacks.costs) == 1
        self._slots = [np.flatnonzero(self.options.slot_of == slot) for slot in range(self.options.slots)]

    def branches(self, resolution: int, left: IntArray, known: float, before: float = np.inf) -> list[_Branch]:
        """Return the branch in a list, or an empty list if its bound is at most ``known``."""
        if not self._knapsacks.has_room(resolution, self._limits):
            return []

        def most(functions: FloatArray) -> FloatArray:
            return self._most(self._worths(functions), resolution, left)[0]

        slopes, constant = self._model.upper_worths(resolution, most)
        worths = self._worths(slopes[None])
        (largest,), (price,) = self._most(worths, resolution, left)
        if self._is_linear:  # the solution of the knapsack is then the optimum
            costs, allowed = self._knapsacks.joint(resolution, self._limits), self._allowed(resolution, left)
            least = known - constant
            solved = solve_exactly(
                self.options, worths[:, 0] + allowed, costs, 1 + ROUNDING, resolution, float(price), least
            )
            largest = largest if solved is None else min(largest, max(solved[0], least))
        bound = float(largest) + constant
        bound = min(bound + ROUNDING * max(1.0, abs(bound)), before)
        return [_Branch(-bound, resolution, left, worths[:, 0])] if bound > known else []

    def _allowed(self, resolution: int, left: IntArray) -> FloatArray:
        """Return (options,): 0, or IMPOSSIBLE for an option that is not left or exceeds the limit of a peak."""
        return np.where(left & self._knapsacks.allowed[resolution], 0.0, IMPOSSIBLE)

    def split(self, branch: _Branch) -> list[IntArray]:
        """Return two parts of the options that are left; none if every slot has one option left."""
        open_slots = [own[branch.left[own]] for own in self._slots]
        open_slots = [own for own in open_slots if len(own) > 1]
        if not open_slots:
            return []
        widths = [self._width(own) for own in open_slots]
        own = open_slots[int(np.argmax(widths))]
        order = own[np.argsort(branch.worths[own], kind="stable")]
        parts = []
        for dropped in (order[: len(order) // 2], order[len(order) // 2 :]):
            left = branch.left.copy()
            left[dropped] = False
            parts.append(left)
        return parts

    def _width(self, own: IntArray) -> float:
        """Return how much the options of a slot differ in their effect on the model."""
        return float(np.ptp(self._effects[own], axis=0).sum())

    @cached_property
    def _effects(self) -> FloatArray:
        """(options, effects)"""
        return self._worths(self._model.effects)

    def _worths(self, functions: FloatArray) -> FloatArray:
        """Return (options, functions) sums of linear functions (functions, features) over the options."""
        padded = np.concatenate([functions, np.zeros((len(functions), 1))], axis=1)
        return self.options.summed(padded, self.options.features)

    def _most(self, worths: FloatArray, resolution: int, left: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return (N,) upper bounds of the largest sums of ``worths`` (options, N) within the limits, and their prices.

        At any price, the best network without limits, plus the price, is a bound. The lowest one is searched.
        """
        costs = self._knapsacks.joint(resolution, self._limits)[:, None]
        worths = worths + self._allowed(resolution, left)[:, None]
        middle = np.ptp(np.where(worths > IMPOSSIBLE / 2, worths, 0.0), axis=0) / np.ptp(costs)
        lowest, prices = self.options.best(worths)[0], np.zeros(len(middle))
        below, above = np.full(len(middle), OCTAVES[0]), np.full(len(middle), OCTAVES[1])
        for _ in range(PRICES):
            half = (below + above) / 2
            price = middle * 2**half
            total, chosen, _ = self.options.best(worths - price * costs)
            lowest, prices = np.minimum(lowest, total + price), np.where(total + price < lowest, price, prices)
            within = costs[chosen, 0].sum(axis=0) <= 1
            below, above = np.where(within, below, half), np.where(within, half, above)
        return lowest, prices
