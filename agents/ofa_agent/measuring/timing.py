"""Time bursts and decide when warm-up and timing end. Tests replace the clock.

The rules follow pyperf (warm up until two windows agree) and nvbench (stop when the interval is narrow enough, and
report if it is not). The first run is never counted, because it allocates memory, compiles, and faults pages in.
"""

import math
import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

WINDOW_RUNS = 3
AGREEMENT = 0.05

REFERENCE_RUNS = 3
REFERENCE_S = 0.012


class Budget(NamedTuple):
    """Time limits of a burst, and the half width of the interval at which the burst ends early."""

    warmup_s: float = 0.5
    window_s: float = 0.008
    burst_min_s: float = 0.03
    burst_max_s: float = 0.12
    min_runs: int = 5
    half_width: float = 0.005


class Statistics(NamedTuple):
    """The statistics of a burst in ns, if the runtime reports no samples; 0: unknown."""

    count: int  # type: ignore[assignment]  # hides a method of tuples
    median_ns: int = 0
    mean_ns: int = 0


class Burst(NamedTuple):
    """The result of a burst: samples in ns or ``statistics``, and how they were taken."""

    samples_ns: List[int]
    warmup_runs: int
    first_ns: int
    timed_ns: int
    warm: bool
    narrow: bool
    statistics: Optional[Statistics] = None

    @property
    def typical_ns(self) -> float:
        """The median in ns; the mean if nothing else is known."""
        if self.statistics is None:
            return median(self.samples_ns)
        return self.statistics.median_ns or self.statistics.mean_ns


def time_burst(
    run: Callable[[], object],
    budget: Budget,
    clock_ns: Callable[[], int],
    prepare: Optional[Callable[[], object]] = None,
) -> Burst:
    """Warm up, then time ``run`` until the interval of the median is narrow enough or the time limit is reached.

    ``prepare`` is called before each timed run. Its time counts neither in the samples nor in ``timed_ns``.
    """
    start = clock_ns()
    warmup_runs, first_ns, warm = _warm_up(run, budget, clock_ns)
    warm_up_ns = clock_ns() - start
    samples, narrow = _sample(run, budget, clock_ns, prepare)
    return Burst(samples, warmup_runs, first_ns, warm_up_ns + sum(samples), warm, narrow)


def time_reference(run: Callable[[], object], clock_ns: Callable[[], int]) -> List[int]:
    """Time a few runs of the reference job, in ns; the first run, with cold weights, is not counted.

    The median measures the device speed. The mean also includes preemption by other processes: a short job mostly runs
    within one time slice of the scheduler, a long job does not.
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
    """Return half the width of the 95 % interval of the median, relative to the median.

    The interval comes from order statistics and assumes no distribution.
    """
    ordered = sorted(samples)
    count = len(ordered)
    if count < 2:
        return math.inf  # one sample has no spread
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of a binomial(count, 1/2), in ranks
    low = max(0, math.floor((count - 1) / 2.0 - reach))
    high = min(count - 1, math.ceil((count - 1) / 2.0 + reach))
    return (ordered[high] - ordered[low]) / 2.0 / max(1, ordered[count // 2])


def median(values: Sequence[float]) -> float:
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
        # Checked at growing distances, because sorting delays the next run.
        if len(samples) >= next_check and after >= earliest:
            if median_half_width(samples) <= budget.half_width:
                return samples, True
            next_check = len(samples) + len(samples) // 2


try:
    clock_ns = time.perf_counter_ns  # novm
except AttributeError:  # Python 3.6

    def clock_ns() -> int:
        return int(time.perf_counter() * 1e9)
