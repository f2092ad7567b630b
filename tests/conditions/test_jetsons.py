"""Jetson boards: recognition, power rails, and ``nvidia-smi``. The boards of jetsons.json name their sources."""

import itertools
import json
import time
from pathlib import Path

import pytest

from ofa_agent import conditions
from ofa_agent.conditions import jetson as of_jetson
from ofa_agent.conditions.jetson import JetsonClocks
from ofa_agent.conditions.nvidia import NvidiaClocks
from ofa_agent.device import description
from ofa_agent.measuring.power import EVERY_S, PowerMeter
from ofa_agent.protocol import messages as wire

JETSONS = json.loads((Path(__file__).parent / "jetsons.json").read_text())
HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"


def read(shell, *knobs):
    condition = wire.Condition()
    for knob in knobs:
        knob.read(shell, condition)
    return wire.to_dict(condition if knobs else conditions.read(shell))


@pytest.mark.parametrize("name", JETSONS)
def test_every_jetson_reports_power_mode_clocks_temperatures_and_power(jetson, name):
    expected = dict(JETSONS[name]["expected"])
    power_w = expected.pop("power_w")
    condition = read(jetson(name))
    assert {field: condition[field] for field in expected} == expected
    assert condition["power_w"] == pytest.approx(power_w)


@pytest.mark.parametrize("name", JETSONS)
def test_the_power_meter_and_the_description_name_the_rails(jetson, name):
    shell = jetson(name)
    described = description.describe(shell, wire.WorkerReady())
    assert described.condition.power_of
    with PowerMeter(shell) as meter:
        time.sleep(4 * EVERY_S)
    assert (meter.of, meter.mean_w) == (described.condition.power_of, pytest.approx(described.condition.power_w))


CHIPS = ("tegra210", "tegra186", "tegra194", "tegra234", "tegra264")


@pytest.mark.parametrize("separator", ["\0", "\n", " "])
@pytest.mark.parametrize("chip", CHIPS)
def test_the_chip_identifies_a_jetson_with_any_board_name(build, chip, separator):
    compatible = separator.join(["vendor,carrier-7", "nvidia,p3767-0000", f"nvidia,{chip}", "nvidia,tegra23x"])
    shell = build({"proc/device-tree/model": "A carrier\0", "proc/device-tree/compatible": compatible})
    assert of_jetson.is_jetson(shell)


MODELS = {
    "NVIDIA Orin NX Developer Kit": True,
    "NVIDIA Orin Nano Developer Kit": True,
    "NVIDIA Jetson Thor": True,
    "Jetson-AGX": True,
    "quill": True,
    "storm": True,
    "lightning": True,
    "Raspberry Pi 4 Model B": False,
    "Brainstorm Board": False,
    "": False,
}


@pytest.mark.parametrize(("model", "expected"), MODELS.items())
def test_without_a_chip_the_model_identifies_a_jetson(build, model, expected):
    shell = build({"proc/device-tree/model": f"{model}\0"})
    assert of_jetson.is_jetson(shell) == expected


@pytest.mark.parametrize("compatible", ["raspberrypi,4-model-b\0brcm,bcm2711", "nvidia,tegra20", "nvidia,tegra2340"])
def test_other_chips_are_not_jetsons(build, compatible):
    assert not of_jetson.is_jetson(build({"proc/device-tree/compatible": compatible}))


PLACES = (
    "sys/class/hwmon/hwmon9",
    "sys/bus/i2c/devices/2-0041/hwmon/hwmon0",
    "sys/bus/i2c/drivers/ina3221/12-0042/hwmon/hwmon12",
    "sys/devices/c240000.i2c/i2c-1/1-0040/hwmon/hwmon3",
    "sys/devices/platform/c240000.i2c/i2c-1/1-0040/hwmon/hwmon3",
    "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon3",
)
ORIN = {"proc/device-tree/compatible": "nvidia,tegra234\0"}


def monitor(*rails, folder=HWMON, first=1):
    """Return the files of an INA3221: (label, mV, mA) for each channel."""
    files = {}
    for channel, (label, millivolts, milliamperes) in enumerate(rails, first):
        files[f"{folder}/in{channel}_label"] = label
        files[f"{folder}/in{channel}_input"] = str(millivolts)
        files[f"{folder}/curr{channel}_input"] = str(milliamperes)
    return files


PARTS = (("VDD_CPU_GPU_CV", 5000, 300), ("VDD_SOC", 5000, 200))


@pytest.mark.parametrize("folder", PLACES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_total_is_found_by_its_label_on_any_channel_of_any_monitor(build, folder, order):
    rails = list(PARTS)
    rails.insert(order, ("VDD_IN", 5000, 1000))
    condition = read(build({**ORIN, **monitor(*rails, folder=folder)}))
    assert (condition["power_w"], condition["power_of"]) == (pytest.approx(5.0), "VDD_IN")


def test_a_monitor_that_appears_in_several_places_counts_once(build):
    again = monitor(*THREE, folder="sys/bus/i2c/devices/1-0040/hwmon/hwmon9")
    assert read(build({**ORIN, **monitor(*THREE, folder=PLACES[0]), **again}))["power_w"] == pytest.approx(14.5)


THREE = (("VDD_GPU_SOC", 20000, 300), ("VDD_CPU_CV", 20000, 200), ("VIN_SYS_5V0", 5000, 900))
INCOMPLETE = {
    "one of three inputs is missing": monitor(*THREE[:2]),
    "an unknown rail beside the inputs": {**monitor(*THREE), **monitor(("VDD_NPU", 5000, 900), folder=PLACES[0])},
    "only parts": monitor(*PARTS),
    "only unknown labels": monitor(("VDD_A", 5000, 900), ("VDD_B", 5000, 900)),
    "no labels": {path: text for path, text in monitor(*THREE).items() if "label" not in path},
    "an input cannot be read": {**monitor(*THREE), f"{HWMON}/curr2_input": ""},
    "an input is not a number": {**monitor(*THREE), f"{HWMON}/in3_input": "[N/A]"},
    "an input is disabled": {**monitor(*THREE), f"{HWMON}/in2_enable": "0"},
    "the total cannot be read": {**monitor(("VDD_IN", 5000, 900), *PARTS), f"{HWMON}/curr1_input": "nan"},
    "two totals": {**monitor(("VDD_IN", 5000, 900)), **monitor(("VDD_IN", 5000, 100), folder=PLACES[0])},
    "another chip": {**monitor(("VDD_IN", 5000, 900)), f"{HWMON}/name": "pwmfan"},
}


@pytest.mark.parametrize("files", INCOMPLETE.values(), ids=INCOMPLETE)
def test_power_is_unknown_unless_the_whole_input_is_known(build, files):
    shell = build({**ORIN, **files})
    condition = read(shell)
    assert (condition["power_w"], condition["power_of"]) == (0, "")
    with PowerMeter(shell) as meter:
        time.sleep(2 * EVERY_S)
    assert (meter.mean_w, meter.of) == (0, "")


def test_an_input_without_load_counts_even_if_its_amplifier_reports_less_than_zero(build):
    shell = build({**ORIN, **monitor(THREE[0], ("VDD_CPU_CV", 20000, -8), THREE[2])})
    assert read(shell)["power_w"] == pytest.approx(6.0 - 0.16 + 4.5)


def test_readings_that_a_slow_monitor_began_before_the_burst_do_not_count(build):
    shell = build({**ORIN, **monitor(("VDD_IN", 5000, 900)), f"{HWMON}/update_interval": "10000"})
    with PowerMeter(shell) as meter:
        time.sleep(4 * EVERY_S)
    assert meter.mean_w == 0


N_A = ("[N/A]", "[Not Supported]", "N/A", "[Unknown Error]", "", "nan", "-")


@pytest.mark.parametrize("word", N_A)
@pytest.mark.parametrize("name", ["orin-nano-jetpack6", "agx-orin-jetpack6"])
def test_a_field_that_is_not_a_number_replaces_nothing(jetson, name, word):
    shell = jetson(name, commands={"nvidia-smi *": ", ".join([word] * 5)})
    without = jetson(name, commands={"nvidia-smi *": [127, "", ""]})
    assert read(shell) == read(without)


@pytest.mark.parametrize("answer", [", ".join(["[N/A]"] * 5), "1300, 1300, 45, 2.5, 0x0000000000000000"])
def test_the_order_of_the_readers_does_not_matter(jetson, answer):
    shell = jetson("orin-nano-jetpack6", commands={"nvidia-smi *": answer})
    orders = itertools.permutations([JetsonClocks(), NvidiaClocks(), conditions.Thermal()])
    readings = [read(shell, *order) for order in orders]
    assert all(reading == readings[0] for reading in readings)
    assert (readings[0]["gpu_clock_mhz"], readings[0]["power_of"]) == (306, "VDD_IN")


def test_a_jetson_without_a_clock_in_nvidia_smi_has_no_gpu_clock_setting(jetson, setter_of):
    refused = setter_of(jetson("orin-nano-jetpack6")).set({"gpu-clock": "900"})
    assert refused == {"gpu-clock": "this device does not have this setting"}


def test_the_power_of_a_gpu_is_named_as_such(device):
    condition = read(device("h100-host"))
    assert (condition["power_w"], condition["power_of"]) == (688.42, "GPU")


def test_a_field_that_a_newer_driver_renamed_is_found(device):
    shell = device("h100-host")
    (old,) = [name for name in shell._commands if "throttle_reasons" in name]
    shell._commands[old.replace("clocks_throttle_reasons", "clocks_event_reasons")] = shell._commands[old]
    shell._commands[old] = [2, 'Field "clocks_throttle_reasons.active" is not a valid field to query.']
    assert (read(shell)["gpu_clock_mhz"], read(shell)["throttled"]) == (1620, True)
