"""Local search over networks that differ in one or two genes.

Each step evaluates every change of one gene, including infeasible ones. The effect of two changes is about the sum of
their effects. The feasible pairs with the largest sums are evaluated.
"""

import numpy as np

from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.neighbours import changed, changes, pairs
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.spaces.space import FloatArray, IntArray

PAIRS = 400


def polish(run: Run, problem: Problem, here: Evaluated) -> Evaluated:
    """Climb from ``here``, one feasible network, until no step improves the accuracy."""
    while not run.over:
        rows, values = changes(problem.space, problem.resolutions_px, here.population.genes[:, 0])
        single = run.look_up(changed(here.population, rows[:, None], values[:, None]))
        both = _promising_pairs(problem, here, single, rows)
        double = run.look_up(changed(here.population, rows[both], values[both]))
        around = Evaluated.concatenate([here, single, double])
        there = around[np.flatnonzero(problem.fits(around.prices))].best(1)
        if there.accuracy[0] <= here.accuracy[0]:
            break
        here = there
    return here


def _promising_pairs(problem: Problem, here: Evaluated, single: Evaluated, rows: IntArray) -> IntArray:
    """Return (pairs, 2) changes of two genes with the largest sum of gains that are within the limits."""
    first, second = pairs(len(rows))
    gains: FloatArray = single.accuracy - here.accuracy
    costs = single.prices - here.prices
    slack = np.array(problem.limits)[:, None] - here.prices
    gain = gains[first] + gains[second]
    fits = (costs[:, first] + costs[:, second] <= slack).all(axis=0) & (rows[first] != rows[second])
    fitting = np.flatnonzero(fits)
    best = fitting[np.argpartition(-gain[fitting], PAIRS)[:PAIRS]] if len(fitting) > PAIRS else fitting
    return np.stack([first[best], second[best]], axis=1)
