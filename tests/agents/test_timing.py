import itertools
import random

import pytest

from ofa_agent.measuring.timing import Budget, median, median_half_width, time_burst

MS = 1_000_000
US = 1_000
QUICK_WINDOWS = Budget(warmup_s=10.0, window_s=0.0)  # three runs per window


class FakeDevice:
    """Runs with scripted durations, on a clock that only these runs advance."""

    def __init__(self, *durations_ns):
        self.now_ns = 7
        self.ran_ns = []
        self._durations = itertools.chain(*durations_ns)

    def run(self):
        self.ran_ns.append(next(self._durations))
        self.now_ns += self.ran_ns[-1]

    def clock_ns(self):
        return self.now_ns

    def burst(self, budget):
        return time_burst(self.run, budget, self.clock_ns)


def always(duration_ns):
    return itertools.repeat(int(duration_ns))


def noise(seed, low_ns, high_ns):
    rng = random.Random(seed)
    return (rng.randrange(low_ns, high_ns) for _ in itertools.count())


def test_the_first_run_is_never_counted():
    burst = FakeDevice([900 * MS], always(2 * MS)).burst(QUICK_WINDOWS)
    assert burst.first_ns == 900 * MS
    assert set(burst.samples_ns) == {2 * MS}


def test_the_first_run_is_not_counted_even_if_it_takes_the_whole_warm_up():
    burst = FakeDevice([900 * MS], always(2 * MS)).burst(Budget(warmup_s=0.5))
    assert (burst.warmup_runs, burst.warm) == (1, False)
    assert set(burst.samples_ns) == {2 * MS}


def test_warm_up_ends_when_two_windows_agree():
    windows = [[50 * MS], [10 * MS] * 3, [6 * MS] * 3, [5 * MS] * 3, [int(5.2 * MS)] * 3]
    burst = FakeDevice(*windows, always(4 * MS)).burst(QUICK_WINDOWS)
    assert burst.warm
    assert burst.warmup_runs == 13
    assert set(burst.samples_ns) == {4 * MS}


def test_windows_agree_despite_one_outlier():
    burst = FakeDevice([9 * MS], [5 * MS, 80 * MS, 5 * MS], [5 * MS, 5 * MS, 5 * MS], always(MS)).burst(QUICK_WINDOWS)
    assert (burst.warm, burst.warmup_runs) == (True, 7)


def test_a_window_of_fast_runs_lasts_its_full_time():
    burst = FakeDevice(always(100 * US)).burst(Budget(warmup_s=1.0, window_s=0.008))
    assert burst.warmup_runs == 1 + 80 + 80


def test_a_warm_up_that_never_settles_ends_at_the_limit_and_is_marked():
    up_and_down = itertools.cycle([10 * MS] * 3 + [20 * MS] * 3)
    device = FakeDevice([MS], up_and_down)
    burst = device.burst(Budget(warmup_s=0.5, window_s=0.0))
    assert not burst.warm
    assert sum(device.ran_ns[: burst.warmup_runs]) >= 500 * MS
    assert sum(device.ran_ns[: burst.warmup_runs - 3]) < 500 * MS


def test_a_burst_ends_early_when_its_interval_is_narrow():
    burst = FakeDevice(always(MS)).burst(Budget(burst_min_s=0.03, burst_max_s=5.0))
    assert burst.narrow
    assert len(burst.samples_ns) == 30


@pytest.mark.parametrize("seed", range(5))
def test_a_burst_that_is_not_narrow_ends_at_the_limit_and_is_marked(seed):
    burst = FakeDevice(noise(seed, MS, 3 * MS)).burst(Budget(burst_min_s=0.03, burst_max_s=0.12, half_width=1e-6))
    assert not burst.narrow
    assert 120 * MS <= sum(burst.samples_ns) < 123 * MS


@pytest.mark.parametrize("seed", range(5))
def test_noise_requires_more_runs_until_the_interval_is_narrow(seed):
    budget = Budget(burst_min_s=0.0, burst_max_s=60.0, half_width=0.02)
    burst = FakeDevice(noise(seed, MS, 2 * MS)).burst(budget)
    assert burst.narrow
    assert median_half_width(burst.samples_ns) <= 0.02
    assert len(burst.samples_ns) > 50


def test_a_slow_block_still_gets_the_minimum_number_of_runs():
    burst = FakeDevice(always(700 * MS)).burst(Budget(min_runs=5))
    assert burst.samples_ns == [700 * MS] * 5


def test_outliers_are_kept():
    burst = FakeDevice(itertools.cycle([MS] * 9 + [40 * MS])).burst(Budget(burst_max_s=0.2))
    assert 40 * MS in burst.samples_ns


def test_the_timed_duration_includes_the_warm_up():
    device = FakeDevice([30 * MS], noise(0, MS, 2 * MS))
    burst = device.burst(Budget())
    assert burst.timed_ns == sum(device.ran_ns)
    assert len(device.ran_ns) == burst.warmup_runs + len(burst.samples_ns)


def test_equal_samples_have_an_interval_of_zero_width():
    assert median_half_width([5 * MS] * 5) == 0.0


def test_a_single_sample_is_not_narrow():
    assert median_half_width([5 * MS]) > 1.0


def test_the_interval_of_few_samples_covers_all_of_them():
    assert median_half_width([90, 100, 110]) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_depends_on_neither_order_nor_unit(seed):
    rng = random.Random(seed)
    samples = [rng.randrange(1000, 2000) for _ in range(50)]
    shuffled = rng.sample(samples, len(samples))
    assert median_half_width(shuffled) == median_half_width(samples)
    assert median_half_width([1000 * sample for sample in samples]) == pytest.approx(median_half_width(samples))


def test_four_times_the_samples_halve_the_interval():
    def width(count):
        rng = random.Random(count)
        samples = [[int(rng.gauss(1e6, 5e4)) for _ in range(count)] for _ in range(60)]
        return sum(map(median_half_width, samples)) / len(samples)

    assert width(50) / width(200) == pytest.approx(2.0, rel=0.15)


def test_the_interval_covers_the_median_in_about_95_percent_of_bursts():
    """Over many bursts from a known distribution, the true median is outside the interval in 5 % of them."""
    rng = random.Random(0)
    misses = 0
    for _ in range(500):
        samples = [int(rng.gauss(1e6, 5e4)) for _ in range(60)]
        misses += abs(median(samples) / 1e6 - 1.0) > median_half_width(samples)
    assert 0.01 < misses / 500 < 0.10


def test_samples_of_zero_do_not_divide_by_zero():
    assert median_half_width([0, 0, 0, 0, 0]) == 0.0


@pytest.mark.parametrize(("values", "middle"), [([3], 3), ([4, 1], 2.5), ([9, 1, 5], 5), ([1, 2, 3, 10], 2.5)])
def test_the_median_is_the_middle(values, middle):
    assert median(values) == middle


def test_prepare_is_called_before_each_run_and_is_not_timed():
    device = FakeDevice(always(2 * MS))
    prepared = []

    def prepare():
        prepared.append(len(device.ran_ns))
        device.now_ns += 300 * US

    burst = time_burst(device.run, Budget(), device.clock_ns, prepare)
    assert set(burst.samples_ns) == {2 * MS}
    assert len(prepared) == len(burst.samples_ns)
    assert prepared[0] == burst.warmup_runs
    assert burst.timed_ns == 2 * MS * (burst.warmup_runs + len(burst.samples_ns))
