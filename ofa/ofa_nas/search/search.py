"""Run a search and collect its answer."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from threadpoolctl import threadpool_limits

from ofa_nas.accuracy.model import Differentiable
from ofa_nas.errors import FunctionFailed, LimitUnreachable, NoneFound
from ofa_nas.search.bound import upper_bound
from ofa_nas.search.evaluation_cache import Evaluated, EvaluationCache
from ofa_nas.search.pareto import front, levels
from ofa_nas.search.problem import Budget, Problem
from ofa_nas.search.run import Method, Progress, Run, silent
from ofa_tables.errors import OfaError

T = TypeVar("T")
Search = TypeVar("Search", bound=Callable[..., "Found"])

# In accuracy, 0…1, or relative to MACs: a bound is not refined if it is this close, and unknown if it is this far away.
CLOSE, USELESS = 0.0004, 0.05


@dataclass(frozen=True)
class Found:
    """The result of a search.

    ``best`` has one network for each of ``limits`` on the first metric; a front has no ``limits``. ``evaluated`` is the
    number of networks that the accuracy model evaluated. ``interrupted``: the search stopped early; ``failed`` is the
    error of the user's function, if that was the reason. ``proven``: no better network exists. ``unmet`` maps each
    limit without a known network to the reason. ``bounds`` has, for each of
    ``best``, a value that no network within its limits exceeds, or None if it is not known; it is empty if no time was
    given to it.
    """

    best: tuple[Evaluated, ...]
    limits: tuple[float, ...]
    evaluated: int
    seconds: float
    interrupted: bool = False
    proven: bool = False
    unmet: Mapping[float, str] = field(default_factory=dict)
    bounds: tuple[float | None, ...] = ()
    failed: str = ""

    @property
    def is_front(self) -> bool:
        return not self.limits


def _on_one_core(search: Search) -> Search:
    """Limit numpy's matrix products to one core during the search, unless the accuracy model is a user's function.

    The matrices of our models are small: on several cores, threads wait for each other longer than they compute.
    """

    @wraps(search)
    def limited(problem: Problem, *args: Any, **kwargs: Any) -> Found:
        ours = isinstance(problem.accuracy, Differentiable)
        with threadpool_limits(1, "blas") if ours else contextlib.nullcontext():
            return search(problem, *args, **kwargs)

    return cast(Search, limited)


@_on_one_core
def search(
    problem: Problem,
    method: Method,
    budget: Budget | None = None,
    seed: int = 0,
    progress: Progress = silent,
    limits: Sequence[float] = (),
    bound_seconds: float = 0.0,
) -> Found:
    """Search for the best network with ``method``. The result depends only on the problem and the seed.

    With ``limits`` on the first metric, the result has the best network for each limit. Each limit has the full budget,
    and networks found for one limit count for all. Ctrl-C ends the search with the best network so far, or the smallest
    network if none was evaluated. ``bound_seconds`` is the additional time to bound the best possible networks. Raises
    LimitUnreachable if no network meets the limits, and NoneFound if none was found. Several limits raise only if all
    of them fail.
    """
    started = time.perf_counter()
    problems = [problem.within(limit) for limit in limits] or [problem]
    unmet: dict[float, OfaError] = {}
    reachable = _met(problems, _reachable, unmet)  # fails early, with any method
    searched = _startable(reachable)
    cache = EvaluationCache(problem)
    budget = budget or Budget()
    ended = _carry_out(searched, cache, method, budget, budget.of(len(searched)), seed, progress)
    widest = max(each.limits[0] for each in searched)

    def answer(each: Problem) -> tuple[float, Evaluated]:
        return each.limits[0], _best(cache, each, ended.proven and each.limits[0] <= widest)

    met, best = zip(*_met(reachable, answer, unmet), strict=True)
    seconds = time.perf_counter() - started
    reasons = {limit: str(why) for limit, why in unmet.items()}
    bounds: tuple[float | None, ...] = ()
    if bound_seconds and not ended.interrupted:
        bounds = tuple(
            _bound(problem.within(limit), one, ended.proven and limit <= widest, bound_seconds / len(best))
            for limit, one in zip(met, best, strict=True)
        )
    how = ended._asdict()
    return Found(best, met, cache.evaluated, seconds, **how, unmet=reasons, bounds=bounds)


@_on_one_core
def search_front(
    problem: Problem, method: Method, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> Found:
    """Search for the Pareto front of the first metric and accuracy, up to its limit. The front has one budget."""
    started = time.perf_counter()
    problem.require_reachable()
    budget = budget or Budget()
    cache = EvaluationCache(problem)
    ended = _carry_out(_levels(problem), cache, method, budget, budget.evaluations, seed, progress)
    _best(cache, problem, ended.proven)
    found = front(cache.best(problem, cache.evaluated))
    each = [_normalised(problem, found[np.array([at])]) for at in range(len(found))]
    found = front(Evaluated.concatenate(each))  # of two networks with almost equal accuracies, one may be dominated now
    best = tuple(found[np.array([at])] for at in range(len(found)))
    return Found(best, (), cache.evaluated, time.perf_counter() - started, **ended._asdict())


def _met(problems: Sequence[Problem], answer: Callable[[Problem], T], unmet: dict[float, OfaError]) -> list[T]:
    """Return the answers, and add the errors to ``unmet``. Raises the first error if every problem fails."""
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


def _startable(problems: list[Problem]) -> list[Problem]:
    """Return the problems that have a known feasible network, where methods can start; a single problem as it is."""
    if len(problems) == 1:
        return problems
    startable = []
    for problem in problems:
        with contextlib.suppress(NoneFound):
            problem.smallest()
            startable.append(problem)
    return startable or problems


class Ended(NamedTuple):
    """How a method ended."""

    interrupted: bool
    proven: bool
    failed: str = ""


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
    except FunctionFailed as error:
        return Ended(interrupted=True, proven=False, failed=str(error))
    return Ended(interrupted=False, proven=run.proven)


def _levels(problem: Problem) -> list[Problem]:
    """Return the problem with each of several limits."""
    try:
        smallest = float(problem.metrics[0](problem.smallest())[0])
    except NoneFound:  # exhaustive search may find one
        return [problem]
    return [problem.within(limit) for limit in levels(smallest, problem.limits[0])]


def _best(cache: EvaluationCache, problem: Problem, proven: bool) -> Evaluated:
    """Return the best evaluated network, or the smallest network if no time was left to evaluate any."""
    best = cache.best(problem)
    if len(best):
        return _normalised(problem, best)
    if proven:
        raise LimitUnreachable(
            f"no network of {problem.where} is within {problem.limits_said}; all networks were tried; raise a limit, "
            "or allow smaller --resolutions"
        )
    return _normalised(problem, cache.enter(problem.smallest()))


def _bound(problem: Problem, best: Evaluated, proven: bool, seconds: float) -> float | None:
    """Return a value that no network within the limits exceeds; None if it is unknown or much higher than ``best``."""
    known = float(best.accuracy[0])
    scale = 1.0 if problem.accuracy.is_accuracy else known
    bound = known if proven else upper_bound(problem, known, seconds, CLOSE * scale)
    return None if bound is None or bound > known + USELESS * scale else bound


def _normalised(problem: Problem, best: Evaluated) -> Evaluated:
    """Make the answer independent of the method.

    Unused genes get their first choice. The accuracy is evaluated again for the single network, because its last digit
    depends on the batch size.
    """
    network = problem.space.canonical(best.population)
    return replace(best, population=network, accuracy=np.asarray(problem.accuracy(network), dtype=float))
