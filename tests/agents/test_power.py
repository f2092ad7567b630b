"""Power and energy, on recorded devices."""

import time
from pathlib import Path

import pytest

from ofa_agent.conditions import jetson
from ofa_agent.device.shell import RecordedShell
from ofa_agent.measuring.power import EVERY_S, PowerMeter
from ofa_tables.estimates.entry import derive_entry
from ofa_tables.store.measurement import Measurement

DEVICES = Path(__file__).parents[1] / "devices"


@pytest.mark.parametrize("device", ["jetson-tx2", "jetson-agx-orin"])
def test_a_burst_on_a_jetson_reports_the_power_of_its_rails(device):
    shell = RecordedShell(str(DEVICES / device))
    with PowerMeter(shell) as meter:
        time.sleep(5 * EVERY_S)
    assert meter.mean_w == pytest.approx(jetson.power_w(shell))
    assert meter.mean_w > 0


def test_other_devices_do_not_report():
    with PowerMeter(RecordedShell(str(DEVICES / "xeon"))) as meter:
        time.sleep(2 * EVERY_S)
    assert meter.mean_w == 0


def trial(number, median_ms, power_w):
    condition = f'{{"power_w": {power_w}}}' if power_w else ""
    times = {"median_ms": median_ms, "mean_ms": median_ms, "std_ms": 0.0, "count": 5}
    return Measurement(f"v{number}", "k", condition=condition, **times)


def test_energy_is_power_times_latency():
    entry = derive_entry("k", [trial(0, 2.0, 10.0), trial(1, 2.2, 10.0), trial(2, 2.1, 10.0)])
    assert entry.energy_mj == pytest.approx(21.0)
    assert 0.01 < entry.energy_half_width < 0.5


def test_energy_is_unknown_without_power_readings():
    entry = derive_entry("k", [trial(0, 2.0, 0), trial(1, 2.2, 0)])
    assert (entry.energy_mj, entry.energy_half_width) == (None, None)
