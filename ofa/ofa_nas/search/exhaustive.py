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
    """Of genes: as many as there are networks, or more where some genes are not read."""
    return math.prod(_shape(problem))


def _shape(problem: Problem) -> tuple[int, ...]:
    return *map(int, problem.space.radices[:-1]), len(problem.resolutions_px)


def exhaustive(run: Run) -> None:
    """Raises UsageError where there are too many. As many are evaluated as there are; time alone can end it sooner."""
    problem = run.problems[-1]  # what is within a tighter limit is within the loosest
    resolutions = problem.space.resolution_indices(problem.resolutions_px)
    shape, count = _shape(problem), combinations(problem)
    if count > MOST:
        raise UsageError(
            f"{problem.space.name} has {count:.0e} combinations of genes to try, and --method exhaustive takes up to "
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
