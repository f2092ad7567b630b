"""Annealing that proposes networks by their worths: the default method where every limit is on a sum or a peak.

The chains start at the ends of the sequential linearisation (``linearised.py``). In each step, every chain draws several
networks: each is the solution of a knapsack with noise on the worths (perturb and MAP: Papandreou and Yuille, ICCV
2011) and a price for every changed slot. The best of them is accepted with probability exp(difference / temperature).
Noise and temperature fall together. Part of the proposals combine two chains: only slots that differ from both are
priced. At fixed intervals, copies of the best networks replace the worst chains.
"""

import numpy as np

from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.linearised import Linearised, Places
from ofa_nas.search.run import Run
from ofa_nas.spaces.space import FloatArray

TRIES = 8
NOISE = (0.5, 0.05)  # relative to the mean range of the worths of a slot
HEAT = (0.1, 0.005)
TRUST = (0.05, 4.0)
MATED = 0.25
SELECTION_STEPS = 10
SELECTED = 0.2
POOL = 1 << 20


def anneal(run: Run, linearised: Linearised, here: Evaluated, places: Places, evaluations: int) -> Evaluated:
    """Anneal chains from networks within the limits, with this number of evaluations. Return the final networks."""
    rng, count = run.rng, len(here)
    options = linearised.knapsacks.options
    pool = -np.log(rng.exponential(size=POOL)).astype(np.float32)
    first = run.cache.evaluated
    worths, scale = linearised.worths(here.population)
    chosen = options.chosen(here.population)
    near = None
    tiled = np.repeat(np.arange(count), TRIES)
    fruitless = step = 0
    while not run.over and fruitless < 20:
        progress = (run.cache.evaluated - first) / evaluations
        if progress >= 1:
            break
        noise = NOISE[0] * (NOISE[1] / NOISE[0]) ** progress
        at = int(rng.integers(POOL - len(options) * len(tiled)))
        drawn = pool[at : at + len(options) * len(tiled)].reshape(len(options), -1)
        noisy = worths[:, tiled] + (noise * scale)[tiled].astype(np.float32) * drawn
        trust = scale[tiled] * np.exp(rng.uniform(*np.log(TRUST), size=len(tiled)))
        mates = np.flatnonzero(rng.random(len(tiled)) < MATED)
        other = chosen[:, rng.integers(count, size=len(mates))]
        differs = other != chosen[:, tiled[mates]]
        noisy[other, mates] += np.where(differs, trust[mates], 0)
        now = None if near is None else (near[0][tiled], near[1][:, tiled])
        solved, proposed = linearised.solve(noisy, chosen[:, tiled], trust, places[tiled], now)
        before = run.cache.evaluated
        there = run.look_up(proposed)
        fruitless = 0 if run.cache.evaluated > before else fruitless + 1
        same = (there.population.genes == here.population.genes[:, tiled]).all(axis=0)
        scores = np.where(same, -np.inf, there.accuracy).reshape(count, TRIES)
        best = scores.argmax(axis=1)
        pick = np.arange(count) * TRIES + best
        gain = scores[np.arange(count), best] - here.accuracy
        heat = scale * HEAT[0] * (HEAT[1] / HEAT[0]) ** progress
        accepted = gain >= heat * np.log(rng.random(count))
        here = here.where(accepted, there[pick])
        prices = solved.prices.reshape(count, TRIES).mean(axis=1)
        near = (prices, solved.ratios[:, ::TRIES])
        step += 1
        if step % SELECTION_STEPS == 0:
            here, source = selected(run, here, places)
            accepted |= source != np.arange(count)
        moved = np.flatnonzero(accepted)
        if len(moved):
            worths[:, moved], scale[moved] = linearised.worths(here.population[moved])
            chosen[:, moved] = options.chosen(here.population[moved])
    return here


def selected(run: Run, here: Evaluated, places: Places) -> tuple[Evaluated, FloatArray]:
    source = np.arange(len(here))
    by_limit = {tuple(limits): None for limits in places.limits.T}
    for limits in by_limit:
        own = np.flatnonzero((limits == places.limits.T).all(axis=1))
        order = own[np.argsort(here.accuracy[own], kind="stable")]
        few = round(SELECTED * len(own))
        source[order[:few]] = order[len(order) - few :]
    places.resolutions[:] = places.resolutions[source]
    return here[source], source
