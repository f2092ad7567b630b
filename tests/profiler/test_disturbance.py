"""A run in which the device is another one for a while, on a reference Job that the test makes up."""

import numpy as np
import pytest

from ofa_profiler.campaign.disturbance import FEWEST_READINGS, Drift
from ofa_tables.store.measurement import Measurement, statistics


def reading(number, speed, mean_ms=None):
    took_ns = round(2e6 * speed)
    return Measurement(
        f"v{number}",
        "k",
        timed_ns=1_000_000_000,
        reference_before_ns=took_ns,
        reference_after_ns=took_ns,
        condition=f'{{"reference_mean_ms": {mean_ms}}}' if mean_ms else "",
        **statistics([10]),
    )


def watched(*slowdowns):
    drift = Drift()
    for number, speed in enumerate(slowdowns):
        drift.watch(reading(number, speed), number)
    return drift


def test_a_steady_run_is_not_disturbed():
    rng = np.random.default_rng(0)
    assert watched(*rng.normal(1, 0.05, 60)).disturbed() is None


def test_a_disturbed_stretch_is_named():
    disturbed, stretch = watched(*[1.0] * 20, *[2.0] * 10, *[1.0] * 20).disturbed()
    assert disturbed == list(range(20, 30))
    assert (stretch.trials, stretch.seconds) == (10, pytest.approx(10.0))
    assert (stretch.slowdowns, stretch.usual_ms) == (pytest.approx([2.0] * 10), pytest.approx(2.0))
    assert "10 trials (10 s): the reference job took 2.00 × its usual 2 ms" in str(stretch)


def test_a_device_that_is_far_faster_for_a_while_is_another_one_too():
    disturbed, _ = watched(*[1.0] * 20, *[0.5] * 3).disturbed()
    assert disturbed == [20, 21, 22]


def test_where_others_keep_the_processor_the_mean_reports_and_the_median_does_not():
    drift = Drift()
    for number, mean_ms in enumerate([2.2] * 20 + [4.4] * 3 + [2.2] * 5):
        drift.watch(reading(number, 1.0, mean_ms), number)
    disturbed, stretch = drift.disturbed()
    assert disturbed == [20, 21, 22]
    assert str(stretch).endswith(
        "(3 s): others kept the processor from the reference job, which took 2.00 × its usual mean"
    )


def test_a_disturbance_is_reported_once():
    drift = watched(*[1.0] * 20, 3.0)
    assert drift.disturbed() is not None
    drift.watch(reading(30, 1.0), 30)
    assert drift.disturbed() is None


def test_few_readings_give_no_usual_latency():
    assert watched(*[1.0] * (FEWEST_READINGS - 2), 3.0).disturbed() is None


def test_a_trial_without_a_reference_reports_nothing():
    drift = Drift()
    for number in range(50):
        drift.watch(Measurement(f"v{number}", "k", **statistics([10])), number)
    assert drift.disturbed() is None


def test_a_run_that_was_faster_and_slower_says_both():
    _, stretch = watched(*[1.0] * 20, *[0.5] * 3, *[1.6] * 3).disturbed()
    assert "took 0.50 to 1.60 × its usual" in str(stretch)
