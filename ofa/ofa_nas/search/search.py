"""A search from its question to its answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ofa_nas.errors import LimitUnreachable, NoneFound
from ofa_nas.search.front import front, levels
from ofa_nas.search.ledger import Known, Ledger
from ofa_nas.search.problem import Budget, Problem
from ofa_nas.search.run import Method, Progress, Run, silent


@dataclass(frozen=True)
class Found:
    """``best`` of each limit, one network each. ``evaluated`` networks were given to the accuracy model in all;
    ``interrupted``: the best until then; ``proven``: there is no better one. ``limits`` are each one's on the first
    meter, none of a front."""

    best: tuple[Known, ...]
    limits: tuple[float, ...]
    evaluated: int
    seconds: float
    interrupted: bool = False
    proven: bool = False

    @property
    def is_front(self) -> bool:
        return not self.limits


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
    for all. Ctrl-C ends the search with the best so far, which is the smallest network where nothing else was tried.
    Raises LimitUnreachable where no network meets the limits, NoneFound where none was found.
    """
    started = time.perf_counter()
    problems = [problem.within(limit) for limit in limits] or [problem]
    for each in problems:
        each.require_reachable()  # says at once, whatever the method, that the limits cannot be met
    ledger = Ledger(problem)
    budget = budget or Budget()
    ended = _carry_out(problems, ledger, method, budget, budget.of(len(problems)), seed, progress)
    best = tuple(_best(ledger, each, ended.proven) for each in problems)
    seconds = time.perf_counter() - started
    return Found(best, tuple(each.limits[0] for each in problems), ledger.evaluated, seconds, *ended)


def search_front(
    problem: Problem, method: Method, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> Found:
    """The front of the first meter's figure and accuracy, up to its limit; the budget is for all of it."""
    started = time.perf_counter()
    problem.require_reachable()
    budget = budget or Budget()
    ledger = Ledger(problem)
    ended = _carry_out(_levels(problem), ledger, method, budget, budget.evaluations, seed, progress)
    _best(ledger, problem, ended.proven)
    found = front(ledger.best(problem, ledger.evaluated))
    best = tuple(found[np.array([at])] for at in range(len(found)))
    return Found(best, (), ledger.evaluated, time.perf_counter() - started, *ended)


class Ended(NamedTuple):
    """How a method did."""

    interrupted: bool
    proven: bool


def _carry_out(
    problems: Sequence[Problem],
    ledger: Ledger,
    method: Method,
    budget: Budget,
    evaluations: int,
    seed: int,
    progress: Progress,
) -> Ended:
    ordered = sorted(problems, key=lambda problem: problem.limits)
    rng = np.random.default_rng(seed)
    run = Run(ordered, ledger, budget.population, evaluations, rng, progress, budget.seconds)
    try:
        method(run)
    except KeyboardInterrupt:
        return Ended(interrupted=True, proven=False)
    return Ended(interrupted=False, proven=run.proven)


def _levels(problem: Problem) -> list[Problem]:
    """The Problem within each of several limits."""
    try:
        smallest = float(problem.meters[0](problem.smallest())[0])
    except NoneFound:  # a method that tries all may find some
        return [problem]
    return [problem.within(limit) for limit in levels(smallest, problem.limits[0])]


def _best(ledger: Ledger, problem: Problem, proven: bool) -> Known:
    """The best that was evaluated, or the smallest network where no time was left for any."""
    best = ledger.best(problem)
    if len(best):
        return _alone(problem, best)
    if proven:
        raise LimitUnreachable(
            f"no network of {problem.where} is within {problem.limits_said}: all were tried; raise a limit, or allow "
            "smaller --resolutions"
        )
    return _alone(problem, ledger.enter(problem.smallest()))


def _alone(problem: Problem, best: Known) -> Known:
    """With the accuracy that the network has on its own: the last digit depends on how many are evaluated at once."""
    return replace(best, accuracy=np.asarray(problem.accuracy(best.population), dtype=float))
