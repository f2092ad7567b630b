"""Local search over networks that differ in one or two genes, from several networks at a time.

Each step evaluates every change of one gene, including infeasible ones. The effect of two changes is about the sum of
their effects. The feasible pairs with the largest sums are evaluated.
"""

import math

import numpy as np

from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.neighbours import changes, pairs
from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.spaces.space import FloatArray, IntArray, Population

PAIRS = 400
TOGETHER = 4  # networks that climb at a time; one with a time limit, because a step is not interrupted


def polish(run: Run, problem: Problem, starts: Evaluated, share: float = 0.0) -> None:
    """Climb from each of ``starts``, feasible networks, until no step improves its accuracy. The first ones go first.

    The pairs around a network may take this ``share`` of the remaining evaluations, if it is more than PAIRS. Ends when
    the run is over.
    """
    is_timed = run.seconds_left < math.inf
    together, share = (1, 0.0) if is_timed else (TOGETHER, share)
    here, begun = starts[:together], together
    while len(here) and not run.over:
        there = _step(run, problem, here, share)
        better = there.accuracy > here.accuracy
        free = int(len(here) - better.sum())
        here = Evaluated.concatenate([there[np.flatnonzero(better)], starts[begun : begun + free]])
        begun += free


def _step(run: Run, problem: Problem, here: Evaluated, share: float) -> Evaluated:
    """Return the best network around each of ``here``, which may be the network itself."""
    genes = here.population.genes
    rows, values = (
        np.array(each)
        for each in zip(*(changes(problem.space, problem.resolutions_px, one) for one in genes.T), strict=True)
    )
    single = run.look_up(_changed(genes, rows[:, :, None], values[:, :, None]))
    own = [np.arange(at * rows.shape[1], (at + 1) * rows.shape[1]) for at in range(len(here))]
    singles = [single[each] for each in own]
    networks = [here[np.array([at])] for at in range(len(here))]
    most = max(PAIRS, int(share * run.left))
    both = [
        _promising_pairs(problem, network, around, row, most)
        for network, around, row in zip(networks, singles, rows, strict=True)
    ]
    doubles = Population.concatenate(
        [_changed(genes[:, [at]], rows[at][pair][None], values[at][pair][None]) for at, pair in enumerate(both)]
    )
    double = run.look_up(doubles)
    ends = np.cumsum([len(pair) for pair in both])
    best = []
    for network, around, pair, end in zip(networks, singles, both, ends, strict=True):
        every = Evaluated.concatenate([network, around, double[np.arange(end - len(pair), end)]])
        best.append(every[np.flatnonzero(problem.fits(every.prices))].best(1))
    return Evaluated.concatenate(best)


def _changed(genes: IntArray, rows: IntArray, values: IntArray) -> Population:
    """Apply each of the changes (networks, N, changed genes) to its network in ``genes`` (genes, networks)."""
    changed = np.repeat(genes, rows.shape[1], axis=1)
    columns = np.arange(changed.shape[1])[:, None]
    changed[rows.reshape(-1, rows.shape[-1]), columns] = values.reshape(-1, rows.shape[-1])
    return Population(changed)


def _promising_pairs(problem: Problem, here: Evaluated, single: Evaluated, rows: IntArray, most: int) -> IntArray:
    """Return (pairs, 2), at most ``most``: changes of two genes with the largest sum of gains, within the limits."""
    first, second = pairs(len(rows))
    gains: FloatArray = single.accuracy - here.accuracy
    costs = single.prices - here.prices
    slack = np.array(problem.limits)[:, None] - here.prices
    gain = gains[first] + gains[second]
    fits = (costs[:, first] + costs[:, second] <= slack).all(axis=0) & (rows[first] != rows[second])
    fitting = np.flatnonzero(fits)
    best = fitting[np.argpartition(-gain[fitting], most)[:most]] if len(fitting) > most else fitting
    return np.stack([first[best], second[best]], axis=1)
