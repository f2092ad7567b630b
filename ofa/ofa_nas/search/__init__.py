"""Search methods by name. Other distributions add theirs through the entry point group ``ofa_nas.search``."""

import time
from dataclasses import dataclass, replace

import numpy as np

from ofa_nas.search.evolution import evolution
from ofa_nas.search.exhaustive import exhaustive
from ofa_nas.search.problem import Best, Budget, Ledger, Method, Problem, Progress, silent, usable_resolutions
from ofa_nas.search.random_search import random_search
from ofa_tables import plugins

__all__ = [
    "METHODS",
    "Best",
    "Budget",
    "Found",
    "Ledger",
    "Method",
    "Problem",
    "Progress",
    "find_method",
    "search",
    "usable_resolutions",
]

METHODS: dict[str, Method] = {"evolution": evolution, "exhaustive": exhaustive, "random": random_search}


@dataclass(frozen=True)
class Found:
    """``evaluated`` networks were given to the accuracy model; ``interrupted``: the best until then."""

    best: Best
    evaluated: int
    seconds: float
    interrupted: bool = False


def find_method(name: str) -> Method:
    """Raises UnknownName, with the nearest names."""
    method: Method = plugins.find("search method", "ofa_nas.search", name, METHODS)
    return method


def search(
    problem: Problem, method: Method, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> Found:
    """The best network that ``method`` finds; the same one for the same seed.

    Ctrl-C ends the search with the best network so far. Raises LimitUnreachable where no network is fast enough.
    """
    started = time.perf_counter()
    ledger = Ledger(problem)
    problem.fastest()  # says at once, whatever the method, that the limit cannot be met
    interrupted = False
    try:
        method(problem, ledger, budget or Budget(), np.random.default_rng(seed), progress)
    except KeyboardInterrupt:
        interrupted = True
    if ledger.best is None:
        raise KeyboardInterrupt
    alone = float(problem.accuracy(ledger.best.network)[0])  # the last digit depends on how many are evaluated at once
    return Found(replace(ledger.best, accuracy=alone), ledger.evaluated, time.perf_counter() - started, interrupted)
