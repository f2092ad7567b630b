"""Guided annealing: simulated annealing by exchanges that worths propose, where every limit is on a sum or a peak.

Each network starts as the solution of the knapsack with the worths of a random network. In each step, every network
proposes an exchange, with others that compensate for what exceeds the limits (``exchanges.py``). The proposal is
accepted with probability 1 / (1 + exp(−gain / temperature)). While the temperature falls, networks are resampled:
copies of better ones replace worse ones of the same limit, in proportion to exp(accuracy × the change of 1 /
temperature) (population annealing: Hukushima and Iba, AIP Conference Proceedings 2003). The resolutions start with
equal shares, which the resampling changes. At intervals, networks propose the solution of the knapsack at the next
larger or smaller resolution instead.
"""

import math
from collections.abc import Callable

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.exchanges import Exchanger, Guide
from ofa_nas.search.knapsack import Knapsacks
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import FloatArray, IntArray, Population

# Initial and final temperature, as a fraction of the median score of an exchange.
HOT, COLD = 1.5, 0.3
# The temperature at which proposals are drawn: this fraction of the temperature, but at least this one of the median
# score.
DRAWN, LEAST_DRAWN = 0.4, 0.25
# A network that moves keeps this share of its worths before, because the mean of the gradients at several networks
# predicts larger changes better than one gradient.
KEPT = 0.6
FEWEST, MOST = 16, 200  # networks of each limit
STARTS = 2  # networks of each limit and resolution at the start, of which the first resampling chooses
STEPS = 180  # if this number needs from FEWEST to MOST networks; otherwise fewer or more
FRUITLESS = 0.3  # stop if fewer than this share of the proposals is new
# How often networks are resampled and prices computed, if that is every LEAST_STEPS to MOST_STEPS steps.
RENEWALS, LEAST_STEPS, MOST_STEPS = 12, 5, 10
TRUST = 0.5  # of the median score, for every option that stays if the resolution changes


def guided(run: Run, model: Differentiable, evaluations: int) -> list[Evaluated]:
    """Propose about this number of networks. Return the last networks of each problem."""
    return _Annealing(run, model, max(1, evaluations)).ends()


class _Annealing:
    def __init__(self, run: Run, model: Differentiable, evaluations: int) -> None:
        self._run = run
        self._model = model
        self._evaluations = evaluations
        self._knapsacks = Knapsacks(run.problems[-1], model)
        self._exchanger = Exchanger(self._knapsacks, run.rng)
        self._variation = Variation(run.problems[0], run.rng)
        space, resolutions_px = run.problems[0].space, run.problems[0].resolutions_px
        self._resolutions = np.sort(space.resolution_indices(resolutions_px))
        self._of_each = min(MOST, max(FEWEST, evaluations // (len(run.problems) * STEPS)))

    def ends(self) -> list[Evaluated]:
        """Anneal. Return the last networks of each problem."""
        run = self._run
        of = np.arange(len(run.problems) * max(self._of_each, STARTS * len(self._resolutions))) % len(run.problems)
        guide, here = self._start(of)
        typical = self._exchanger.typical_score(here.population, guide) or 1.0
        steps = self._evaluations // (len(run.problems) * self._of_each * RENEWALS)
        steps = min(MOST_STEPS, max(LEAST_STEPS, steps))
        progress, before, step, fresh = self._progress(), math.inf, 0, 1.0
        while not run.over and fresh > FRUITLESS and (done := progress(step * len(here))) < 1:
            temperature = typical * HOT * (COLD / HOT) ** done
            if step % steps == 0:
                if step:
                    near = guide.prices, guide.ratios
                    guide = self._priced(here.population, guide.worths, guide.limits, near)
                source = self._resampled(here.accuracy * (1 / temperature - 1 / before), of)
                of, here, guide, before = of[source], here[source], guide[source], temperature
                drawn_at = max(DRAWN * temperature, LEAST_DRAWN * typical)
                exchanges = self._exchanger.of(here.population, guide, drawn_at)
            if step % steps == steps // 2 and len(self._resolutions) > 1:
                proposed = self._resized(here.population, guide, TRUST * typical)
            else:
                proposed = self._exchanger.proposed(exchanges, here.population)
            left = run.left
            there = run.look_up(self._variation.repaired(proposed, here.population, guide.limits))
            fresh += 0.1 * ((left - run.left) / len(here) - fresh)
            moved = there.accuracy - here.accuracy > temperature * run.rng.logistic(size=len(here))
            here = here.where(moved, there)
            which = np.flatnonzero(moved)
            if len(which):
                of_moved = here.population[which]
                guide.worths[:, which] = KEPT * guide.worths[:, which] + (1 - KEPT) * self._worths(of_moved)
                exchanges.replace(which, self._exchanger.of(of_moved, guide[which], drawn_at))
            step += 1
        return [here[of == at] for at in range(len(run.problems))]

    def _progress(self) -> Callable[[int], float]:
        """Return a function of the number of proposals: the fraction of the evaluations or of the time that is used.

        Proposals count even if they are known.
        """
        run = self._run
        left, seconds = run.left, run.seconds_left

        def progress(proposed: int) -> float:
            done = max(proposed, left - run.left) / self._evaluations
            return max(done, 1 - run.seconds_left / seconds) if 0 < seconds < math.inf else done

        return progress

    def _start(self, of: IntArray) -> tuple[Guide, Evaluated]:
        """Return the best networks for the worths of random ones, for each of these problems (N,)."""
        problems, count = self._run.problems, len(of)
        limits = np.array([problem.limits for problem in problems]).T[:, of]
        smallest = Population(np.concatenate([problem.smallest().genes for problem in problems], axis=1)[:, of])
        genes = self._variation.newcomers(count).genes
        genes[-1] = self._resolutions[np.arange(count) // len(problems) % len(self._resolutions)]
        random = self._variation.repaired(Population(genes), smallest, limits)
        solved = self._knapsacks.solve(self._worths(random), random.genes[-1], limits)
        here = self._run.look_up(self._variation.repaired(solved.population, smallest, limits))
        return self._priced(here.population, self._worths(here.population), limits), here

    def _resized(self, population: Population, guide: Guide, trust: float) -> Population:
        """Return the solutions of the knapsacks at a resolution that is one step larger or smaller.

        ``trust`` is added to the worths of the options that the networks have.
        """
        count, last = len(population), len(self._resolutions) - 1
        at = np.searchsorted(self._resolutions, population.genes[-1]) + self._run.rng.choice((-1, 1), size=count)
        at = np.where(at < 0, 1, np.where(at > last, last - 1, at))
        worths = guide.worths.copy()
        worths[self._knapsacks.options.chosen(population), np.arange(count)] += np.float32(trust)
        near = guide.prices, guide.ratios
        return self._knapsacks.solve(worths, self._resolutions[at], guide.limits, near).population

    def _worths(self, population: Population) -> FloatArray:
        """Return (options, N) worths of the options in these networks."""
        options = self._knapsacks.options
        return options.summed(self._model.worths(population)[1].astype(np.float32, copy=False), options.features)

    def _priced(
        self,
        population: Population,
        worths: FloatArray,
        limits: FloatArray,
        near: tuple[FloatArray, FloatArray] | None = None,
    ) -> Guide:
        """Return the worths with the prices of the limits; ``near`` are the prices and ratios before."""
        solved = self._knapsacks.solve(worths, population.genes[-1], limits, near)
        return Guide(worths, limits, solved.prices, solved.ratios)

    def _resampled(self, weights: FloatArray, of: IntArray) -> IntArray:
        """Return the networks that come next, the same number of each problem, in proportion to exp(weights)."""
        problems = len(self._run.problems)
        source = np.empty(problems * self._of_each, dtype=int)
        for at in range(problems):
            own = np.flatnonzero(of == at)
            ends = np.cumsum(np.exp(weights[own] - weights[own].max()))
            ticks = (np.arange(self._of_each) + self._run.rng.random()) * (ends[-1] / self._of_each)
            source[at::problems] = own[np.searchsorted(ends[:-1], ticks)]
        return source
