"""The default method: simulated annealing of many networks in parallel, then local search.

Each chain proposes to redraw one place of its network (a block's kernel size and expand ratio, a depth, the
resolution), or several at once, or, the more often the colder it is, to take some from another chain. What is beyond
the limits takes that back, or keeps it and takes other genes from the smallest network, as few as bring it within: so
chains move along the limits, where the best networks are. A worse network is accepted with the probability
exp(difference / temperature) (Kirkpatrick et al., Science 1983); the temperature falls from what one change usually
makes to a small part of it. Now and then the worst chains are given up for copies of the best. The ends are polished
(``polish.py``) with the rest of the budget. If budget is left after that, it starts again.

Several limits are searched at once, each with its own chains; chains take over what others have found.
"""

import math

import numpy as np

from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.exhaustive import combinations, exhaustive
from ofa_nas.search.polish import polish
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import Population

# Temperatures, in parts of what one change makes in the median.
HOT, COLD = 0.5, 0.05
POLISH, MOST_POLISH = 0.3, 40_000  # of the budget, and evaluations
# So large a share of the proposals changes each place with this chance: under a tight limit the best networks differ in
# several depths at once, and what lies between them is worse.
SEVERAL, CHANCE = 0.5, 0.08
# Fraction of the chains that take places from another chain, at most half of them. Only at the end: earlier, chains
# would converge.
MATED = 0.1
# So large a share of what is beyond a limit keeps its change, and pays for it elsewhere.
COMPENSATED = 0.5
# Every that many steps, this fraction of a limit's chains, the worst ones, restart from the best feasible network.
SELECTION_STEPS = 50
SELECTED = 0.25
# Start again while at least this fraction of the remaining budget would be new networks.
FRUITFUL = 0.1


def annealing(run: Run) -> None:
    fruitful = True
    while fruitful and not run.over:
        tried, enough = run.cache.evaluated, FRUITFUL * run.left
        ends = _anneal(run)
        for problem in run.problems:
            polish(run, problem, run.cache.best(problem))
        for problem, chains in zip(run.problems, _by_problem(run, len(ends)), strict=True):
            for end in ends[chains].best(count=run.population).each():
                polish(run, problem, end)
        fruitful = run.cache.evaluated - tried >= enough
    if combinations(run.problems[-1]) <= run.left:  # the few that are left prove the answer
        exhaustive(run)


def _anneal(run: Run) -> Evaluated:
    """Where the chains end."""
    problem, count = run.problems[0], max(run.population, len(run.problems))
    variation = Variation(problem, run.rng)
    limits = np.empty((len(problem.metrics), count))
    smallest = np.empty((len(problem.space.radices), count), dtype=np.uint8)
    for each, chains in zip(run.problems, _by_problem(run, count), strict=True):
        limits[:, chains] = np.array(each.limits)[:, None]
        smallest[:, chains] = each.smallest().genes
    here = run.look_up(variation.repaired(variation.newcomers(count), Population(smallest), limits))
    steps = int(run.left - min(POLISH * run.left, MOST_POLISH)) // count
    seconds = run.seconds_left
    scale = 0.0
    for step in range(steps):
        # As far as either of evaluations and time, both of which leave a part to polish.
        progress = max(step / steps, _share_of_time(run, seconds))
        if run.over or progress >= 1:
            break
        compensated = run.rng.random(count) < COMPENSATED
        anchors = Population(np.where(compensated, smallest, here.population.genes))
        proposed = _proposed(run, variation, here.population, MATED * progress)
        changed = proposed.genes != here.population.genes
        there = run.look_up(variation.repaired(proposed, anchors, limits, changed))
        gain = there.accuracy - here.accuracy
        if not scale:
            changes = np.abs(gain[np.isfinite(gain) & (gain != 0)])
            scale = float(np.median(changes)) if len(changes) else 0.0
        temperature = scale * HOT * (COLD / HOT) ** progress
        accepted = gain >= temperature * np.log(run.rng.random(count))
        here = here.where(accepted, there)
        if step % SELECTION_STEPS == SELECTION_STEPS - 1:
            here = _selected(run, here)
    return here


def _share_of_time(run: Run, seconds: float) -> float:
    """Of the time that is there to anneal in; ``seconds`` were left when it began."""
    return (1 - run.seconds_left / seconds) / (1 - POLISH) if 0 < seconds < math.inf else 0.0


def _proposed(run: Run, variation: Variation, here: Population, mated: float) -> Population:
    """Of each chain's network another; a share ``mated`` of them from two chains' networks."""
    genes, kind = variation.neighbours(here).genes, run.rng.random(len(here))
    several = np.flatnonzero(kind < SEVERAL)
    genes[:, several] = variation.mutants(here[several], CHANCE, CHANCE).genes
    pairs = np.flatnonzero(kind >= 1 - mated)
    mates = here[run.rng.integers(len(here), size=len(pairs))]
    genes[:, pairs] = variation.mixed(here[pairs], mates, run.rng.uniform(0, 0.5, len(pairs))).genes
    return Population(genes)


def _selected(run: Run, here: Evaluated) -> Evaluated:
    source = np.arange(len(here))
    for problem, chains in zip(run.problems, _by_problem(run, len(here)), strict=True):
        own = source[chains]
        worst = own[np.argsort(here.accuracy[own], kind="stable")[: round(SELECTED * len(own))]]
        fit = np.flatnonzero(problem.fits(here.prices))
        best = fit[np.argsort(-here.accuracy[fit], kind="stable")[: len(worst)]]
        source[worst] = best
    return here[source]


def _by_problem(run: Run, count: int) -> list[slice]:
    """Which chains each problem has: every so many."""
    return [slice(at, count, len(run.problems)) for at in range(len(run.problems))]
