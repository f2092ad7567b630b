"""Devices of one kind that share a campaign: whether they are alike."""

import pytest

from ofa_profiler.campaign.device_agreement import APART, Agreement, spread


def reported(**latencies):
    agreement = Agreement()
    for device, by_key in latencies.items():
        for key, values in by_key.items():
            for value in values:
                agreement.add(device, key, value)
    return agreement


def test_devices_with_equal_latencies_agree():
    agreement = reported(a={"x": [1.0, 1.1], "y": [5.0]}, b={"x": [1.05], "y": [5.1]})
    assert agreement.factors() == pytest.approx({"a": 0.995, "b": 1.005}, abs=0.01)
    assert agreement.off() == {}


def test_of_two_the_slower_one_is_off():
    off = reported(a={"x": [1.0], "y": [5.0]}, b={"x": [1.3], "y": [6.5]}).off()
    assert off == pytest.approx({"b": 1.3})


def test_of_three_devices_the_one_that_differs_is_off_even_if_faster():
    off = reported(a={"x": [1.0]}, b={"x": [1.02]}, c={"x": [0.8]}).off()
    assert list(off) == ["c"]
    assert abs(off["c"] - 1) > APART


def test_only_jobs_that_all_have_run_count():
    agreement = reported(a={"x": [1.0], "y": [9.0]}, b={"x": [1.0]})
    assert agreement.factors() == {"a": 1.0, "b": 1.0}


def test_devices_without_a_common_job_are_not_judged():
    assert reported(a={"x": [1.0]}, b={"y": [2.0]}).factors() == {}
    assert Agreement().off() == {}


def test_a_sample_goes_from_the_smallest_to_the_largest():
    assert spread([5, 1, 9, 3, 7, 2], 3, lambda size: size) == [1, 3, 9]
    assert spread([2, 1], 6, lambda size: size) == [1, 2]
