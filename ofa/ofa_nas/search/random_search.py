"""Random search, the baseline."""

from ofa_nas.search.run import Run

# With a tight limit or a small Space, few draws are feasible and new.
DRAWS_PER_EVALUATION = 20
CHUNK = 1 << 12


def random_search(run: Run) -> None:
    """Draw networks of all sizes, so that some are within any limit."""
    for problem, part in run.parts():
        part.offer(problem.smallest(), problem)
        for _ in range(0, DRAWS_PER_EVALUATION * part.evaluations, CHUNK):
            if part.over:
                break
            part.offer(problem.space.sample_spread(CHUNK, run.rng, problem.resolutions_px), problem)
