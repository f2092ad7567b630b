"""Power and energy, on recorded devices."""

import json
import time
from pathlib import Path

import pytest

from ofa_agent.conditions import rails
from ofa_agent.device.shell import RecordedShell
from ofa_agent.measuring.power import EVERY_S, PowerMeter
from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.decoding import measurement_of
from ofa_tables.estimates.entry import derive_entry
from ofa_tables.store.measurement import Measurement

DEVICES = Path(__file__).parents[1] / "devices"


@pytest.mark.parametrize("device", ["jetson-tx2", "jetson-agx-orin"])
def test_a_burst_on_a_jetson_reports_the_power_of_its_rails(device):
    shell = RecordedShell(str(DEVICES / device))
    with PowerMeter(shell) as meter:
        time.sleep(5 * EVERY_S)
    assert meter.mean_w == pytest.approx(rails.find(shell).watts(shell))
    assert meter.mean_w > 0


def test_other_devices_do_not_report():
    with PowerMeter(RecordedShell(str(DEVICES / "xeon"))) as meter:
        time.sleep(2 * EVERY_S)
    assert meter.mean_w == 0


def trial(number, median_ms, power_w, power_of=""):
    condition = json.dumps({"power_w": power_w, "power_of": power_of}) if power_w else ""
    times = {"median_ms": median_ms, "mean_ms": median_ms, "std_ms": 0.0, "count": 5}
    return Measurement(f"v{number}", "k", condition=condition, **times)


def test_energy_is_power_times_latency():
    entry = derive_entry("k", [trial(0, 2.0, 10.0), trial(1, 2.2, 10.0), trial(2, 2.1, 10.0)])
    assert entry.energy_mj == pytest.approx(21.0)
    assert 0.01 < entry.energy_half_width < 0.5


def test_energy_is_unknown_without_power_readings():
    entry = derive_entry("k", [trial(0, 2.0, 0), trial(1, 2.2, 0)])
    assert (entry.energy_mj, entry.energy_half_width) == (None, None)


def test_energies_of_different_rails_are_not_mixed():
    trials = [trial(0, 2.0, 6.0), trial(1, 2.0, 10.0, "VDD_IN"), trial(2, 2.0, 6.1), trial(3, 2.0, 11.0, "VDD_IN")]
    entry = derive_entry("k", trials)
    assert (entry.energy_mj, entry.energy_of) == (pytest.approx(21.0), "VDD_IN")
    assert derive_entry("k", trials[::2]).energy_of == ""


def test_a_trial_keeps_the_rails_of_its_power():
    message = wire.Measurement(status="failed", power_w=14.5, power_of="VDD_IN")
    assert json.loads(measurement_of(message, 0).condition) == {"power_w": 14.5, "power_of": "VDD_IN"}
