"""Run a search and collect its answer."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np

from ofa_nas.errors import LimitUnreachable, NoneFound
from ofa_nas.search.evaluation_cache import Evaluated, EvaluationCache
from ofa_nas.search.pareto import front, levels
from ofa_nas.search.problem import Budget, Problem
from ofa_nas.search.run import Method, Progress, Run, silent
from ofa_tables.errors import OfaError

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """``best`` of each limit, one network each. ``evaluated`` networks were given to the accuracy model in all;
    ``interrupted``: the best until then; ``proven``: no better one exists. ``limits`` are each one's on the first
    metric, none of a front. ``unmet`` are those of several that no network is known to meet, and why."""

    best: tuple[Evaluated, ...]
    limits: tuple[float, ...]
    evaluated: int
    seconds: float
    interrupted: bool = False
    proven: bool = False
    unmet: Mapping[float, str] = field(default_factory=dict)

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

    With ``limits`` on the first metric, the best one within each: each has the budget, and what is found for one counts
    for all. Ctrl-C ends the search with the best so far, which is the smallest network where nothing else was tried.
    Raises LimitUnreachable where no network meets the limits, NoneFound where none was found; of several limits, where
    that is so of all.
    """
    started = time.perf_counter()
    problems = [problem.within(limit) for limit in limits] or [problem]
    unmet: dict[float, OfaError] = {}
    reachable = _met(problems, _reachable, unmet)  # says at once, whatever the method, that limits cannot be met
    searched = _begun(reachable)
    cache = EvaluationCache(problem)
    budget = budget or Budget()
    ended = _carry_out(searched, cache, method, budget, budget.of(len(searched)), seed, progress)
    widest = max(each.limits[0] for each in searched)

    def answer(each: Problem) -> tuple[float, Evaluated]:
        return each.limits[0], _best(cache, each, ended.proven and each.limits[0] <= widest)

    met, best = zip(*_met(reachable, answer, unmet), strict=True)
    seconds = time.perf_counter() - started
    reasons = {limit: str(why) for limit, why in unmet.items()}
    return Found(best, met, cache.evaluated, seconds, *ended, unmet=reasons)


def search_front(
    problem: Problem, method: Method, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> Found:
    """The front of the first metric's figure and accuracy, up to its limit; the budget is for all of it."""
    started = time.perf_counter()
    problem.require_reachable()
    budget = budget or Budget()
    cache = EvaluationCache(problem)
    ended = _carry_out(_levels(problem), cache, method, budget, budget.evaluations, seed, progress)
    _best(cache, problem, ended.proven)
    found = front(cache.best(problem, cache.evaluated))
    found = replace(found, population=problem.space.canonical(found.population))
    best = tuple(found[np.array([at])] for at in range(len(found)))
    return Found(best, (), cache.evaluated, time.perf_counter() - started, *ended)


def _met(problems: Sequence[Problem], answer: Callable[[Problem], T], unmet: dict[float, OfaError]) -> list[T]:
    """The answers. ``unmet`` gets the errors of the others. Raises the first error if there is no answer."""
    answers = []
    for problem in problems:
        try:
            answers.append(answer(problem))
        except (LimitUnreachable, NoneFound) as error:
            unmet[problem.limits[0]] = error
    if not answers:
        raise next(iter(unmet.values()))
    return answers


def _reachable(problem: Problem) -> Problem:
    problem.require_reachable()
    return problem


def _begun(problems: list[Problem]) -> list[Problem]:
    """Of several, those that are known to be met by some network, where methods can begin."""
    if len(problems) == 1:
        return problems
    begun = []
    for problem in problems:
        with contextlib.suppress(NoneFound):
            problem.smallest()
            begun.append(problem)
    return begun or problems


class Ended(NamedTuple):
    """How a method did."""

    interrupted: bool
    proven: bool


def _carry_out(
    problems: Sequence[Problem],
    cache: EvaluationCache,
    method: Method,
    budget: Budget,
    evaluations: int,
    seed: int,
    progress: Progress,
) -> Ended:
    ordered = sorted(problems, key=lambda problem: problem.limits)
    rng = np.random.default_rng(seed)
    run = Run(ordered, cache, budget.population, evaluations, rng, progress, budget.seconds)
    try:
        method(run)
    except KeyboardInterrupt:
        return Ended(interrupted=True, proven=False)
    return Ended(interrupted=False, proven=run.proven)


def _levels(problem: Problem) -> list[Problem]:
    """The Problem within each of several limits."""
    try:
        smallest = float(problem.metrics[0](problem.smallest())[0])
    except NoneFound:  # a method that tries all may find some
        return [problem]
    return [problem.within(limit) for limit in levels(smallest, problem.limits[0])]


def _best(cache: EvaluationCache, problem: Problem, proven: bool) -> Evaluated:
    """The best that was evaluated, or the smallest network where no time was left for any."""
    best = cache.best(problem)
    if len(best):
        return _alone(problem, best)
    if proven:
        raise LimitUnreachable(
            f"no network of {problem.where} is within {problem.limits_said}: all were tried; raise a limit, or allow "
            "smaller --resolutions"
        )
    return _alone(problem, cache.enter(problem.smallest()))


def _alone(problem: Problem, best: Evaluated) -> Evaluated:
    """Make the answer independent of the method: unused genes get their first choice, and the accuracy is the
    one that the network has on its own, for the last digit depends on how many are evaluated at once."""
    network = problem.space.canonical(best.population)
    return replace(best, population=network, accuracy=np.asarray(problem.accuracy(network), dtype=float))
