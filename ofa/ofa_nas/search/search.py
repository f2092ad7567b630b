"""A search from its question to its answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ofa_nas.search.front import front, levels
from ofa_nas.search.ledger import Known, Ledger
from ofa_nas.search.problem import Budget, Problem
from ofa_nas.search.run import Method, Progress, Run, silent


@dataclass(frozen=True)
class Found:
    """``best`` of each limit, one network each. ``evaluated`` networks were given to the accuracy model in all;
    ``interrupted``: the best until then. ``limits`` are each one's on the first meter, none of a front."""

    best: tuple[Known, ...]
    limits: tuple[float, ...]
    evaluated: int
    seconds: float
    interrupted: bool = False


def search(
    problem: Problem,
    method: Method,
    budget: Budget | None = None,
    seed: int = 0,
    progress: Progress = silent,
    limits: Sequence[float] = (),
) -> Found:
    """The best network that ``method`` finds; the same one for the same seed.

    With ``limits`` on the first meter, the best one within each: each has the budget, and what is found for one counts
    for all. Ctrl-C ends the search with the best so far. Raises LimitUnreachable where no network meets the limits.
    """
    started = time.perf_counter()
    problems = [problem.within(limit) for limit in limits] or [problem]
    for each in problems:
        each.smallest()  # says at once, whatever the method, that the limits cannot be met
    ledger = Ledger(problem)
    budget = budget or Budget()
    evaluations = len(problems) * budget.evaluations
    interrupted = _carry_out(problems, ledger, method, budget, evaluations, seed, progress)
    best = tuple(_alone(problem, ledger.best(each)) for each in problems)
    if not all(map(len, best)):
        raise KeyboardInterrupt
    return Found(
        best, tuple(each.limits[0] for each in problems), ledger.evaluated, time.perf_counter() - started, interrupted
    )


def search_front(
    problem: Problem, method: Method, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> Found:
    """The front of the first meter's figure and accuracy, up to its limit; the budget is for all of it."""
    started = time.perf_counter()
    smallest = float(problem.meters[0](problem.smallest())[0])
    limits = levels(smallest, problem.limits[0])
    budget = budget or Budget()
    ledger = Ledger(problem)
    problems = [problem.within(limit) for limit in limits]
    interrupted = _carry_out(problems, ledger, method, budget, budget.evaluations, seed, progress)
    found = front(ledger.best(problem, ledger.evaluated))
    if not len(found):
        raise KeyboardInterrupt
    best = tuple(found[np.array([at])] for at in range(len(found)))
    return Found(best, (), ledger.evaluated, time.perf_counter() - started, interrupted)


def _carry_out(
    problems: Sequence[Problem],
    ledger: Ledger,
    method: Method,
    budget: Budget,
    evaluations: int,
    seed: int,
    progress: Progress,
) -> bool:
    """Whether it was interrupted."""
    ordered = sorted(problems, key=lambda problem: problem.limits)
    rng = np.random.default_rng(seed)
    try:
        method(Run(ordered, ledger, budget.population, evaluations, rng, progress, budget.seconds))
    except KeyboardInterrupt:
        return True
    return False


def _alone(problem: Problem, best: Known) -> Known:
    """With the accuracy that the network has on its own: the last digit depends on how many are evaluated at once."""
    return replace(best, accuracy=np.asarray(problem.accuracy(best.population), dtype=float)) if len(best) else best
