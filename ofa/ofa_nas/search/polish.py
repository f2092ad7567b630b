"""Local search: from a network to the best of those that differ from it in one or two genes, until none is better.

What one change of a gene gains and costs is looked up, for all of them, also those that are beyond the limits alone.
Two changes together are worth about the sum: the pairs that promise most by it and fit are evaluated.
"""

from functools import lru_cache

import numpy as np

from ofa_nas.search.ledger import Known
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.spaces.space import FloatArray, IntArray, Population

PAIRS = 400


def polish(run: Run, problem: Problem, here: Known) -> Known:
    """The network from which no step leads up. ``here`` is one network within the problem's limits."""
    while not run.over:
        rows, values = _changes(problem, here.population.genes[:, 0])
        single = run.look_up(_changed(here.population, rows[:, None], values[:, None]))
        pairs = _promising_pairs(problem, here, single, rows)
        double = run.look_up(_changed(here.population, rows[pairs], values[pairs]))
        around = Known.concatenate([here, single, double])
        there = around[np.flatnonzero(problem.fits(around.prices))].best(1)
        if there.accuracy[0] <= here.accuracy[0]:
            break
        here = there
    return here


def _changes(problem: Problem, genes: IntArray) -> tuple[IntArray, IntArray]:
    """(changes,) rows of genes and the values that each can take instead."""
    space = problem.space
    rows = np.repeat(np.arange(len(space.radices)), space.radices)
    values = np.concatenate([np.arange(radix) for radix in space.radices])
    allowed = np.isin(values, space.resolution_indices(problem.resolutions_px)) | (rows < len(space.radices) - 1)
    other = allowed & (values != genes[rows])
    return rows[other], values[other]


def _promising_pairs(problem: Problem, here: Known, single: Known, rows: IntArray) -> IntArray:
    """(pairs, 2) changes of two different genes that fit together, by the sum of what each gains alone."""
    first, second = _pairs(len(rows))
    gains: FloatArray = single.accuracy - here.accuracy
    costs = single.prices - here.prices
    slack = np.array(problem.limits)[:, None] - here.prices
    gain = gains[first] + gains[second]
    fits = (costs[:, first] + costs[:, second] <= slack).all(axis=0) & (rows[first] != rows[second])
    fitting = np.flatnonzero(fits)
    best = fitting[np.argpartition(-gain[fitting], PAIRS)[:PAIRS]] if len(fitting) > PAIRS else fitting
    return np.stack([first[best], second[best]], axis=1)


@lru_cache(maxsize=8)
def _pairs(count: int) -> tuple[IntArray, IntArray]:
    first, second = np.triu_indices(count, 1)
    return first, second


def _changed(network: Population, rows: IntArray, values: IntArray) -> Population:
    """The network with each row of changes, (networks, genes changed)."""
    genes = np.repeat(network.genes, len(rows), axis=1)
    genes[rows, np.arange(len(rows))[:, None]] = values
    return Population(genes)
