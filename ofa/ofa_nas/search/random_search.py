"""As many random networks as the budget allows: the baseline."""

import numpy as np

from ofa_nas.search.problem import Budget, Ledger, Problem, Progress

# A tight limit, or a small Space, yields little for each draw.
DRAWS_PER_EVALUATION = 20
CHUNK = 1 << 12


def random_search(
    problem: Problem, ledger: Ledger, budget: Budget, rng: np.random.Generator, progress: Progress
) -> None:
    """Draws from the smallest to the largest networks, so that any limit is met by some."""
    ledger.evaluate(ledger.admit(problem.fastest()))
    for _ in range(0, DRAWS_PER_EVALUATION * budget.evaluations, CHUNK):
        missing = budget.evaluations - ledger.evaluated
        if not missing:
            return
        drawn = problem.space.sample_spread(CHUNK, rng, problem.resolutions_px)
        ledger.evaluate(ledger.admit(drawn, missing))
        progress(ledger.evaluated, budget.evaluations)
