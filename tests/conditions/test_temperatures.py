"""Temperatures, throttling and the software of a Jetson: every sensor counts, in any order of the readers."""

import itertools

import pytest

from ofa_agent import conditions
from ofa_agent.conditions.thermal import hottest_c
from ofa_agent.device import jetpack
from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.decoding import measurement_of

THERMAL = "sys/class/thermal"


def zone(index, kind, millidegrees, passive=None):
    files = {f"{THERMAL}/thermal_zone{index}/type": kind, f"{THERMAL}/thermal_zone{index}/temp": str(millidegrees)}
    if passive is not None:
        files[f"{THERMAL}/thermal_zone{index}/trip_point_0_type"] = "passive"
        files[f"{THERMAL}/thermal_zone{index}/trip_point_0_temp"] = str(passive)
    return files


def test_of_two_sensors_with_one_name_the_hotter_one_counts(build):
    shell = build({**zone(0, "acpitz", 71000), **zone(1, "acpitz", 30000)})
    assert dict(conditions.read(shell).temperatures_c) == {"acpitz": 71.0}


def test_a_zone_without_a_sensor_is_not_the_hottest():
    assert hottest_c({"PMIC-Die": 100.0, "CPU-therm": 41.0}) == 41.0
    assert hottest_c({"PMIC-Die": 100.0}) is None
    condition = wire.Condition(temperatures_c={"PMIC-Die": 100.0, "CPU-therm": 41.0})
    message = wire.Measurement(status="failed", condition_before=condition, condition_after=condition)
    assert '"temperature_c": [41.0, 41.0]' in measurement_of(message, 0).condition


@pytest.mark.parametrize("reading", [41, -3, 1, 200])
def test_a_zone_in_another_unit_is_unknown(build, reading):
    assert not conditions.read(build(zone(0, "battery", reading))).temperatures_c


def test_a_device_exactly_at_its_limit_is_hot(build):
    condition = conditions.read(build(zone(0, "cpu", 95000, 95000)))
    assert condition.hot
    assert condition.headroom_c == pytest.approx(0, abs=0.01)
    assert condition.headroom_c != 0  # 0 is unknown


def test_the_smallest_headroom_counts_in_any_order_of_the_readers(device):
    shell = device("pixel-6")
    shell.answer("dumpsys thermalservice", "Thermal Status: 3")
    for index in (0, 1):
        path = f"/{THERMAL}/thermal_zone{index}"
        shell.written[f"{path}/temp"] = "60000"
    knobs = [conditions.Thermal(), conditions.Heat()]
    found = []
    for order in itertools.permutations(knobs):
        condition = wire.Condition()
        for knob in order:
            knob.read(shell, condition)
        found.append(wire.to_dict(condition))
    assert found[0] == found[1]
    assert (found[0]["hot"], found[0]["throttled"]) == (True, True)


def test_over_current_events_of_a_jetson_count_as_throttling(build):
    hwmon = "sys/class/hwmon/hwmon1"
    shell = build({f"{hwmon}/name": "soctherm_oc", f"{hwmon}/oc1_event_cnt": "0", f"{hwmon}/oc3_event_cnt": "7"})
    assert conditions.read(shell).throttle_count == 7


def test_the_release_of_a_jetson_is_known_without_its_packages(jetson):
    release = "# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref, EABI: aarch64"
    shell = jetson("orin-nano-jetpack5", {"etc/nv_tegra_release": release})
    assert jetpack.software(shell) == {"L4T": "35.3.1", "jetson_clocks": "off"}


def test_clocks_that_cannot_be_read_are_not_reported_as_locked(jetson):
    limits = ("sys/devices/system/cpu/cpufreq/policy0/scaling_%s_freq", "sys/class/devfreq/17000000.ga10b/%s_freq")
    absent = {path % end: "" for path in limits for end in ("min", "max")}
    assert "jetson_clocks" not in jetpack.software(jetson("orin-nano-jetpack5", absent))
    only_cpu = {limits[0] % "min": "1510400"}
    assert jetpack.software(jetson("orin-nano-jetpack5", only_cpu))["jetson_clocks"] == "off"
    locked = {**only_cpu, limits[1] % "min": "918000000"}
    assert jetpack.software(jetson("orin-nano-jetpack5", locked))["jetson_clocks"] == "on"
