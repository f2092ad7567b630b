"""Local search over networks that differ in one or two genes.

What one change of a gene gains and costs is looked up, for all of them, also those that are beyond the limits alone.
Two changes together are worth about the sum: the pairs that promise most by it and fit are evaluated.
"""

import numpy as np

from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.neighbours import changed, changes, pairs
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.spaces.space import FloatArray, IntArray

PAIRS = 400


def polish(run: Run, problem: Problem, here: Evaluated) -> Evaluated:
    """The network from which no step leads up. ``here`` is one network within the problem's limits."""
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
    """(pairs, 2) changes of two different genes that fit together, by the sum of what each gains alone."""
    first, second = pairs(len(rows))
    gains: FloatArray = single.accuracy - here.accuracy
    costs = single.prices - here.prices
    slack = np.array(problem.limits)[:, None] - here.prices
    gain = gains[first] + gains[second]
    fits = (costs[:, first] + costs[:, second] <= slack).all(axis=0) & (rows[first] != rows[second])
    fitting = np.flatnonzero(fits)
    best = fitting[np.argpartition(-gain[fitting], PAIRS)[:PAIRS]] if len(fitting) > PAIRS else fitting
    return np.stack([first[best], second[best]], axis=1)
