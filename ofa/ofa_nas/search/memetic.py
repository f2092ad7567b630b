"""A memetic search (Moscato 1989) that uses worths, where every limit is on a sum or a peak.

Networks climb by sequential linearisation (``linearised.py``). The first ones start at random networks of all
resolutions. The others are children of two ends, which take some places from one and the rest from the other, and
mutate. Ends enter the pool of their limits, where the best stay. A part of the pool is reserved for the resolutions
that may be the best one. With several limits, ends also enter the pool of the next looser limit, and mate with ends of
neighbouring limits. All climbing networks take each step together; a new child takes the place of each one that has
reached its end.
"""

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.linearised import Bounds, Climb, Linearised, bounds_of
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import IntArray, Population

CLIMBING = 1.5  # networks that climb at a time, relative to the size of the pools together
PER_END = 12  # typical evaluations of a climb
POOL = 0.1  # the pools together, relative to the number of ends that the budget allows
SMALLEST_POOL, LARGEST_POOL = 20, 300  # of one problem
FEWEST_ENDS = 4  # of each of many problems
NEIGHBOURS = 2  # tighter or looser limits at most, from which the second parent comes
MIXED = (0.4, 0.5)  # share of the places that a child takes from its second parent
MUTATION, RESOLUTION_MUTATION = 0.01, 0.05
FRUITLESS = 0.2  # stop if fewer than this share of the proposals is new


def memetic(run: Run, model: Differentiable, evaluations: int) -> list[Evaluated]:
    """Use about this number of evaluations. Return the ends in the pool of each problem."""
    return _Search(run, model, evaluations).search(run.cache.evaluated + max(1, evaluations))


class _Search:
    def __init__(self, run: Run, model: Differentiable, evaluations: int) -> None:
        self._run = run
        self._variation = Variation(run.problems[0], run.rng)
        self._guide = Linearised(run, model, self._variation)
        problems = len(run.problems)
        size = int(POOL * evaluations / PER_END / problems)
        self._size = min(max(SMALLEST_POOL // problems, FEWEST_ENDS, size), LARGEST_POOL)
        self._climbing = problems * max(1, int(CLIMBING * min(self._size, evaluations // PER_END)))
        self._pools = [run.cache.nothing for _ in run.problems]
        self._ended = np.zeros(problems, dtype=int)

    def search(self, last: int) -> list[Evaluated]:
        run, climbing = self._run, self._climbing
        problem_of = np.arange(climbing) % len(run.problems)
        bounds = bounds_of(run, climbing)
        climb = Climb(self._guide, self._guide.repaired(self._guide.random(climbing), bounds), bounds)
        share = 1.0
        while not run.over and run.cache.evaluated < last and share > FRUITLESS:
            before, proposed = run.cache.evaluated, climb.step()
            share += 0.1 * ((run.cache.evaluated - before) / proposed - share)
            ended = np.flatnonzero(climb.ended)
            if len(ended):
                self._enter(climb.here[ended], problem_of[ended])
                climb.restart(ended, self._children(problem_of[ended], bounds[ended]))
        self._enter(climb.here, problem_of)
        return self._pools

    def _enter(self, ends: Evaluated, problem_of: IntArray) -> None:
        """Add ends to the pools. Of equal networks, one stays."""
        for at in np.unique(problem_of):
            tighter = problem_of == at - 1  # their ends are within these limits, too
            own = np.flatnonzero(((problem_of == at) | tighter) & np.isfinite(ends.accuracy))
            if not len(own):  # the search was over before they were evaluated
                continue
            both = Evaluated.concatenate([self._pools[at], ends[own]])
            _, first = np.unique(self._run.problems[0].space.digests(both.population), return_index=True)
            self._pools[at] = self._kept(both[np.sort(first)])
            self._ended[at] += int((problem_of[own] == at).sum())

    def _kept(self, ends: Evaluated) -> Evaluated:
        """Return the best ends. A quarter of them is reserved for the resolutions that may be the best one.

        Those are the ones with an end that is better than the median of the ends of the best resolution.
        """
        ranked = ends.best(len(ends))
        resolutions, bests = np.unique(ranked.population.genes[-1], return_index=True)
        own = np.flatnonzero(ranked.population.genes[-1] == resolutions[bests.argmin()])[: self._size]
        rivals = resolutions[ranked.accuracy[bests] >= np.median(ranked.accuracy[own])]
        part = max(1, self._size // (4 * len(rivals)))
        safe = np.concatenate([np.flatnonzero(ranked.population.genes[-1] == px)[:part] for px in rivals])
        others = np.setdiff1d(np.arange(len(ranked)), safe)[: self._size - len(safe)]
        return ranked[np.sort(np.concatenate([safe, others]))]

    def _children(self, problem_of: IntArray, bounds: Bounds) -> Population:
        """Return a child for each of ``problem_of``, or a random network while its pool has too few ends."""
        rng = self._run.rng
        genes = np.zeros((len(self._run.problems[0].space.radices), len(problem_of)), dtype=np.uint8)
        for at in np.unique(problem_of):
            pool, own = self._pools[at].population, np.flatnonzero(problem_of == at)
            if self._ended[at] < self._size or len(pool) < 2:
                genes[:, own] = self._guide.random(len(own)).genes
                continue
            first = pool[rng.integers(len(pool), size=len(own))]
            others = range(max(0, at - NEIGHBOURS), min(len(self._pools), at + NEIGHBOURS + 1))
            near = Population.concatenate([self._pools[other].population for other in others])
            second = near[rng.integers(len(near), size=len(own))]
            mixed = self._variation.mixed(first, second, rng.uniform(*MIXED, len(own)))
            genes[:, own] = self._variation.mutants(mixed, MUTATION, RESOLUTION_MUTATION).genes
        return self._guide.repaired(Population(genes), bounds)
