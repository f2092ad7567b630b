"""A campaign in which every trial fails for the same reason ends after a few of them."""

import pytest

from ofa_profiler.campaign.failures import SAME, HopelessCheck
from ofa_tables.errors import DeviceError
from ofa_tables.store.measurement import Measurement


def failed(number, error="the licence has expired"):
    return Measurement(f"trial-{number}", f"network:{number:x}", status="crashed", error=error)


def test_the_same_failure_of_many_jobs_ends_the_campaign():
    check = HopelessCheck()
    for number in range(SAME - 1):
        check.watch(failed(number))
    with pytest.raises(
        DeviceError, match=f"the first {SAME} jobs failed for the same reason: crashed: the licence has"
    ):
        check.watch(failed(SAME))


def test_reasons_that_differ_only_in_the_job_are_the_same():
    check = HopelessCheck()
    for number in range(SAME - 1):
        check.watch(failed(number, f"no kernel (network:{number:x})"))
    with pytest.raises(DeviceError):
        check.watch(failed(SAME, f"no kernel (network:{SAME:x})"))


@pytest.mark.parametrize("number", [0, SAME - 1])
def test_one_success_shows_that_others_may_succeed(number):
    check = HopelessCheck()
    for each in range(3 * SAME):
        check.watch(Measurement("ok", "network:0") if each == number else failed(each))


def test_repeated_trials_of_one_job_count_once():
    check = HopelessCheck()
    for _ in range(3 * SAME):
        check.watch(failed(0))


def test_different_failures_do_not_end_the_campaign():
    check = HopelessCheck()
    for number in range(3 * SAME):
        check.watch(failed(number, f"reason {number}"))
