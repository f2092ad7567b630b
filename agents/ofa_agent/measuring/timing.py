"""When to end warm-up and timing: pure functions of a clock, which tests replace.

The rules follow pyperf (warm-up until two windows agree) and nvbench (stop when the answer is narrow enough, and
say so when it is not). The first run is never counted: it allocates, compiles and faults pages in.
"""

import math
import time
from typing import Callable, List, NamedTuple, Optional, Tuple

WINDOW_RUNS = 3
AGREEMENT = 0.05

REFERENCE_RUNS = 3
REFERENCE_S = 0.012


class Budget(NamedTuple):
    """How long one burst may take, and how narrow the interval of its median must be to end it sooner."""

    warmup_s: float = 0.5
    window_s: float = 0.008
    burst_min_s: float = 0.03
    burst_max_s: float = 0.12
    min_runs: int = 5
    half_width: float = 0.005


class Burst(NamedTuple):
    """What a trial brings back: raw samples in ns, and what it took to get them."""

    samples_ns: List[int]
    warmup_runs: int
    first_ns: int
    timed_ns: int
    warm: bool
    narrow: bool


def time_burst(
    run: Callable[[], object],
    budget: Budget,
    clock_ns: Callable[[], int],
    prepare: Optional[Callable[[], object]] = None,
) -> Burst:
    """Warms up, then times ``run`` until the interval of the median is narrow enough or the time is up.

    ``prepare`` is called before each timed run, and counts neither as the run's time nor as timed.
    """
    start = clock_ns()
    warmup_runs, first_ns, warm = _warm_up(run, budget, clock_ns)
    warm_up_ns = clock_ns() - start
    samples, narrow = _sample(run, budget, clock_ns, prepare)
    return Burst(samples, warmup_runs, first_ns, warm_up_ns + sum(samples), warm, narrow)


def time_reference(run: Callable[[], object], clock_ns: Callable[[], int]) -> List[int]:
    """A few runs of the reference Job in ns; the first, which finds its weights cold, is not counted.

    Their median is how fast the device is; their mean, too, how long others keep it: a short Job mostly fits between
    two turns of the scheduler, a long one does not.
    """
    run()
    samples: List[int] = []
    now = clock_ns()
    deadline = now + REFERENCE_S * 1e9
    while len(samples) < REFERENCE_RUNS or now < deadline:
        before = now
        run()
        now = clock_ns()
        samples.append(now - before)
    return samples


def median_half_width(samples: List[int]) -> float:
    """Half the 95 % interval of the median, as a fraction of it, from order statistics (no distribution assumed)."""
    ordered = sorted(samples)
    count = len(ordered)
    if count < 2:
        return math.inf  # one sample knows nothing of its spread
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of a binomial(count, 1/2), in ranks
    low = max(0, math.floor((count - 1) / 2.0 - reach))
    high = min(count - 1, math.ceil((count - 1) / 2.0 + reach))
    return (ordered[high] - ordered[low]) / 2.0 / max(1, ordered[count // 2])


def median(values: List[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


def _warm_up(run: Callable[[], object], budget: Budget, clock_ns: Callable[[], int]) -> Tuple[int, int, bool]:
    start = clock_ns()
    deadline = start + budget.warmup_s * 1e9
    run()
    now = clock_ns()
    first_ns = now - start
    runs, previous = 1, None
    while now < deadline:
        window: List[int] = []
        window_end = now + budget.window_s * 1e9
        while len(window) < WINDOW_RUNS or now < window_end:
            before = now
            run()
            now = clock_ns()
            window.append(now - before)
        runs += len(window)
        current = median(window)
        if previous is not None and abs(current - previous) <= AGREEMENT * previous:
            return runs, first_ns, True
        previous = current
    return runs, first_ns, False


def _sample(
    run: Callable[[], object],
    budget: Budget,
    clock_ns: Callable[[], int],
    prepare: Optional[Callable[[], object]],
) -> Tuple[List[int], bool]:
    samples: List[int] = []
    start = clock_ns()
    earliest = start + budget.burst_min_s * 1e9
    latest = start + budget.burst_max_s * 1e9
    next_check = budget.min_runs
    while True:
        if prepare is not None:
            prepare()
        before = clock_ns()
        run()
        after = clock_ns()
        samples.append(after - before)
        if len(samples) < budget.min_runs:
            continue
        if after >= latest:
            return samples, median_half_width(samples) <= budget.half_width
        # Looked at on a growing schedule, so that sorting stays out of most gaps between runs.
        if len(samples) >= next_check and after >= earliest:
            if median_half_width(samples) <= budget.half_width:
                return samples, True
            next_check = len(samples) + len(samples) // 2


try:
    clock_ns = time.perf_counter_ns  # novm
except AttributeError:  # Python 3.6

    def clock_ns() -> int:
        return int(time.perf_counter() * 1e9)
