"""Annealing that proposes networks by their worths, where every limit is on a sum or a peak.

The chains start at the ends of the sequential linearisation (``linearised.py``). In each step, every chain draws
several networks. Each is the solution of a knapsack with noise on the worths (perturb and MAP: Papandreou and Yuille,
ICCV 2011) and a random price for every changed slot. The best one is accepted with probability exp(difference /
temperature). Noise and temperature fall together. A part of the proposals combines two chains: slots that are as in
either chain have no price. Another part has another resolution. At fixed intervals, copies of the best networks replace
the worst chains.
"""

import math

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.linearised import Bounds, Linearised, bounds_of
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import FloatArray, IntArray

PER_CHAIN = 5  # networks of the population
TRIES = 8  # proposals of a chain in a step
STARTS = 40  # at least for each problem
STARTED = 0.25  # at most this part of the budget goes to the linearisation
# First and last values; relative to the range of the worths.
NOISE = (0.5, 0.05)
HEAT = (0.1, 0.005)
TRUST = (0.05, 4.0)
MATED, RESIZED = 0.25, 0.03
SELECTION_STEPS = 10
SELECTED = 0.2
MOST_TRIED = 4  # proposals for each new network
POOL = 1 << 20  # of noise


def guided_annealing(run: Run, model: Differentiable, evaluations: int) -> Evaluated:
    """Use about this number of evaluations. Return the final chains; those of the problems alternate."""
    guide = Linearised(run, model, Variation(run.problems[0], run.rng))
    problems = len(run.problems)
    chains = max(problems, run.population // PER_CHAIN)
    chains -= chains % problems
    starts = min(STARTS * problems, int(STARTED * evaluations) // 10)
    starts = max(chains, starts - starts % chains)
    bounds = bounds_of(run, starts)
    ends = guide.climb(guide.starts(starts, bounds), bounds)
    best = [ends[slice(at, None, problems)].best(chains // problems) for at in range(problems)]
    here = Evaluated.concatenate(best)[np.arange(chains).reshape(problems, -1).T.ravel()]
    return _Chains(run, guide, here, bounds[np.arange(chains)]).anneal(run.cache.evaluated + evaluations)


class _Chains:
    """Networks ``here`` with their worths, and prices of their limits."""

    def __init__(self, run: Run, guide: Linearised, here: Evaluated, bounds: Bounds) -> None:
        self._run = run
        self._guide = guide
        self._bounds = bounds
        self.here = here
        self._worths, self._scale = guide.worths(here.population)
        self._chosen = guide.options.chosen(here.population)
        self._near: tuple[FloatArray, FloatArray] | None = None
        self._pool = run.rng.gumbel(size=POOL).astype(np.float32)
        self._resolutions = run.problems[0].space.resolution_indices(run.problems[0].resolutions_px)

    def anneal(self, last: int) -> Evaluated:
        """Anneal up to ``last`` evaluated networks in the cache."""
        run, first, seconds = self._run, self._run.cache.evaluated, self._run.seconds_left
        tried = steps = 0
        while not run.over:
            done = max((run.cache.evaluated - first) / (last - first), tried / (MOST_TRIED * (last - first)))
            if seconds < math.inf:
                done = max(done, 1 - run.seconds_left / seconds)
            if done >= 1:
                break
            self._step(_between(NOISE, done), _between(HEAT, done))
            tried += TRIES * len(self.here)
            steps += 1
            if steps % SELECTION_STEPS == 0:
                self._move(self._survivors())
        return self.here

    def _step(self, noise: float, heat: float) -> None:
        run, count = self._run, len(self.here)
        of = np.repeat(np.arange(count), TRIES)
        worths = self._noisy(of, noise)
        resolutions = self.here.population.genes[-1][of]
        resized = np.flatnonzero(run.rng.random(len(of)) < RESIZED)
        resolutions[resized] = run.rng.choice(self._resolutions, size=len(resized))
        near = None if self._near is None else (self._near[0][of], self._near[1][:, of])
        solved, proposed = self._guide.solve(worths, resolutions, self._bounds[of], near)
        self._near = (solved.prices.reshape(count, TRIES).mean(axis=1), solved.ratios[:, ::TRIES])
        there = run.look_up(proposed)
        same = (proposed.genes == self.here.population.genes[:, of]).all(axis=0)
        accuracy = np.where(same, -np.inf, there.accuracy).reshape(count, TRIES)
        at = accuracy.argmax(axis=1)
        gain = accuracy[np.arange(count), at] - self.here.accuracy
        accepted = gain >= heat * self._scale * np.log(run.rng.random(count))
        self.here = self.here.where(accepted, there[at + TRIES * np.arange(count)])
        self._renew(np.flatnonzero(accepted))

    def _noisy(self, of: IntArray, noise: float) -> FloatArray:
        """Return (options, tries) worths for the chains ``of`` (tries,), with noise and prices of changed slots."""
        rng, tries, columns = self._run.rng, len(of), np.arange(len(of))
        size = len(self._worths) * tries
        offset = int(rng.integers(max(1, POOL - size)))
        drawn = np.resize(self._pool[offset : offset + size], (len(self._worths), tries))
        scale = self._scale[of]
        worths: FloatArray = drawn * (noise * scale) + self._worths[:, of]
        trust = scale * np.exp(rng.uniform(math.log(TRUST[0]), math.log(TRUST[1]), tries)).astype(np.float32)
        worths[self._chosen[:, of], columns] += trust
        mated = np.flatnonzero(rng.random(tries) < MATED)
        mates = self._chosen[:, rng.integers(len(self.here), size=len(mated))]
        worths[mates, mated] += np.where(mates != self._chosen[:, of[mated]], trust[mated], 0)
        return worths

    def _survivors(self) -> IntArray:
        """Return the chains to continue: copies of the best ones within its limits replace the worst of a problem."""
        source, accuracy = np.arange(len(self.here)), self.here.accuracy
        for at, problem in enumerate(self._run.problems):
            own = np.arange(at, len(self.here), len(self._run.problems))
            worst = own[np.argsort(accuracy[own], kind="stable")[: math.ceil(SELECTED * len(own))]]
            fit = np.flatnonzero(problem.fits(self.here.prices))
            best = fit[np.argsort(-accuracy[fit], kind="stable")[: len(worst)]]
            better = accuracy[best] > accuracy[worst]
            source[worst[better]] = best[better]
        return source

    def _move(self, source: IntArray) -> None:
        self.here = self.here[source]
        self._worths, self._scale = self._worths[:, source], self._scale[source]
        self._chosen = self._chosen[:, source]
        if self._near is not None:
            self._near = self._near[0][source], self._near[1][:, source]

    def _renew(self, moved: IntArray) -> None:
        if len(moved):
            networks = self.here.population[moved]
            self._worths[:, moved], self._scale[moved] = self._guide.worths(networks)
            self._chosen[:, moved] = self._guide.options.chosen(networks)


def _between(ends: tuple[float, float], done: float) -> float:
    return ends[0] * (ends[1] / ends[0]) ** done
