"""Exhaustive search of small spaces."""

import math

import numpy as np

from ofa_nas.search.problem import Problem
from ofa_nas.search.run import Run
from ofa_nas.spaces.space import Population
from ofa_tables.errors import UsageError

MOST = 4_000_000
CHUNK = 1 << 14


def combinations(problem: Problem) -> int:
    """Return the number of gene combinations. It exceeds the number of networks if some genes can be unused."""
    return math.prod(_shape(problem))


def _shape(problem: Problem) -> tuple[int, ...]:
    return *map(int, problem.space.radices[:-1]), len(problem.resolutions_px)


def exhaustive(run: Run) -> None:
    """Evaluate every network within the limits; only the time limit stops it. Raises UsageError for a large space."""
    problem = run.problems[-1]  # the loosest limit: it includes the others
    resolutions = problem.space.resolution_indices(problem.resolutions_px)
    shape, count = _shape(problem), combinations(problem)
    if count > MOST:
        raise UsageError(
            f"{problem.space.name} has {count:.0e} combinations of genes; --method exhaustive is limited to "
            f"{MOST:,}; use --method annealing"
        )
    for start in range(0, count, CHUNK):
        if run.late:
            return
        stop = min(start + CHUNK, count)
        genes = np.stack(np.unravel_index(np.arange(start, stop), shape))
        genes[-1] = resolutions[genes[-1]]
        run.offer_all(Population(genes.astype(np.uint8)), problem, stop, count)
    run.proven = True
