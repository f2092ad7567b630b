"""The default method: simulated annealing of many networks in parallel, then local search.

Where the accuracy model has worths and every limit is on a sum or a peak, the worths propose the changes
(``guided.py``). The rest of this text is about other problems.

Each chain proposes to redraw one place of its network (the kernel size and expand ratio of a block, a depth, or the
resolution), or several places at once, or to copy some places from another chain. Copies become more frequent as the
temperature falls.

Proposals that exceed a limit are repaired. Either they revert changed genes, or they keep them and take other genes
from the smallest network, as few as needed. Chains therefore move along the limits, where the best networks are.

A worse network is accepted with probability exp(difference / temperature) (Kirkpatrick et al., Science 1983). The
temperature falls from about the median effect of one change to a small part of it. At fixed intervals, copies of the
best networks replace the worst chains. Local search (``polish.py``) uses the rest of the budget on the final networks.
If budget remains, the method starts again.

Several limits are searched at once. Each has separate chains, which copy networks that other chains found.
"""

import math

import numpy as np

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.search.evaluation_cache import Evaluated
from ofa_nas.search.exhaustive import combinations, exhaustive
from ofa_nas.search.guided import guided
from ofa_nas.search.polish import polish
from ofa_nas.search.run import Run
from ofa_nas.search.variation import Variation
from ofa_nas.spaces.space import Population

# Initial and final temperature, as a fraction of the median effect of one change.
HOT, COLD = 0.5, 0.05
POLISH, MOST_POLISH = 0.3, 40_000  # as a fraction of the budget, and as a maximum number of evaluations
# Guided annealing is followed by less local search, as long as it has had fewer evaluations for each limit than ENOUGH.
# Beyond that it finds little more.
LEAST_POLISH, ENOUGH = 0.1, 40_000
PAIRS_SHARE = 0.3  # of the evaluations left, for the pairs around one network, after guided annealing
# SEVERAL is the fraction of proposals that redraw each place with probability CHANCE. Under a tight limit, good
# networks differ in several depths at once, and the networks between them are worse.
SEVERAL, CHANCE = 0.5, 0.08
# Final fraction of the chains that copy up to half of their places from another chain. The fraction starts at 0,
# because chains would converge early.
MATED = 0.1
# Fraction of the chains that keep a change that exceeds a limit and compensate in other genes.
COMPENSATED = 0.5
# Every SELECTION_STEPS steps, copies of the best feasible networks replace this fraction of the chains of each limit.
SELECTION_STEPS = 50
SELECTED = 0.25
# Start again while at least this fraction of the remaining budget would be new networks.
FRUITFUL = 0.1


def annealing(run: Run) -> None:
    model, fruitful = run.problems[-1].accuracy, True
    while fruitful and not run.over:
        tried, enough = run.cache.evaluated, FRUITFUL * run.left
        share = 0.0
        if isinstance(model, Differentiable) and run.problems[-1].is_additive:
            ends, share = guided(run, model, run.left - _after_guided(run)), PAIRS_SHARE
        else:
            ends = _anneal(run)
        for problem in run.problems:
            polish(run, problem, run.cache.best(problem), share)
        for problem, of_problem in zip(run.problems, ends, strict=True):
            polish(run, problem, of_problem.best(count=run.population).distinct(), share)
        fruitful = run.cache.evaluated - tried >= enough
    if combinations(run.problems[-1]) <= run.left:  # evaluating the rest proves the answer
        exhaustive(run)


def _anneal(run: Run) -> list[Evaluated]:
    """Run all chains and return their final networks, by problem."""
    problem, count = run.problems[0], max(run.population, len(run.problems))
    variation = Variation(problem, run.rng)
    limits = np.empty((len(problem.metrics), count))
    smallest = np.empty((len(problem.space.radices), count), dtype=np.uint8)
    for each, chains in zip(run.problems, _by_problem(run, count), strict=True):
        limits[:, chains] = np.array(each.limits)[:, None]
        smallest[:, chains] = each.smallest().genes
    here = run.look_up(variation.repaired(variation.newcomers(count), Population(smallest), limits))
    steps = (run.left - _for_polish(run)) // count
    seconds = run.seconds_left
    scale = 0.0
    for step in range(steps):
        # The larger of the two fractions used; both leave a part of the budget for local search.
        progress = max(step / steps, _time_used(run, seconds))
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
    return [here[chains] for chains in _by_problem(run, count)]


def _after_guided(run: Run) -> int:
    """Return the evaluations for local search after guided annealing."""
    beyond = run.left - ENOUGH * len(run.problems)
    return math.ceil(min(max(LEAST_POLISH * run.left, beyond), MOST_POLISH))


def _for_polish(run: Run) -> int:
    return math.ceil(min(POLISH * run.left, MOST_POLISH))


def _time_used(run: Run, seconds: float) -> float:
    """Return the fraction of the annealing time that is used. ``seconds`` is the time left at its start."""
    return (1 - run.seconds_left / seconds) / (1 - POLISH) if 0 < seconds < math.inf else 0.0


def _proposed(run: Run, variation: Variation, here: Population, mated: float) -> Population:
    """Return one proposal per chain. The fraction ``mated`` of them combines the networks of two chains."""
    genes, kind = variation.neighbours(here).genes, run.rng.random(len(here))
    several = np.flatnonzero(kind < SEVERAL)
    genes[:, several] = variation.mutants(here[several], CHANCE, CHANCE).genes
    pairs = np.flatnonzero(kind >= 1 - mated)
    mates = here[run.rng.integers(len(here), size=len(pairs))]
    genes[:, pairs] = variation.mixed(here[pairs], mates, run.rng.uniform(0, 0.5, len(pairs))).genes
    return Population(genes)


def _selected(run: Run, here: Evaluated) -> Evaluated:
    """Replace the worst chains of each limit with its best feasible networks."""
    source = np.arange(len(here))
    for problem, chains in zip(run.problems, _by_problem(run, len(here)), strict=True):
        own = source[chains]
        worst = own[np.argsort(here.accuracy[own], kind="stable")[: round(SELECTED * len(own))]]
        fit = np.flatnonzero(problem.fits(here.prices))
        best = fit[np.argsort(-here.accuracy[fit], kind="stable")[: len(worst)]]
        source[worst] = best
    return here[source]


def _by_problem(run: Run, count: int) -> list[slice]:
    """Return the chains of each problem, interleaved."""
    return [slice(at, count, len(run.problems)) for at in range(len(run.problems))]
