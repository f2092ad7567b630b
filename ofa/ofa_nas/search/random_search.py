"""Random search, the baseline."""

from ofa_nas.search.run import Run

# A tight limit, or a small Space, yields little for each draw.
DRAWS_PER_EVALUATION = 20
CHUNK = 1 << 12


def random_search(run: Run) -> None:
    """Draws from the smallest to the largest networks, so that any limit is met by some."""
    for problem, part in run.parts():
        part.offer(problem.smallest(), problem)
        for _ in range(0, DRAWS_PER_EVALUATION * part.evaluations, CHUNK):
            if part.over:
                break
            part.offer(problem.space.sample_spread(CHUNK, run.rng, problem.resolutions_px), problem)
