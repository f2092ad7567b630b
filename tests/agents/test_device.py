import json
from pathlib import Path

import pytest

from ofa_agent.device import description as device
from ofa_agent.device.shell import RecordedShell
from ofa_agent.protocol import messages as wire

CPU = "sys/devices/system/cpu"


@pytest.fixture
def describe(tmp_path):
    """Describe a device that consists of these files, with the given runtimes."""
    numbers = iter(range(100))

    def describe(files, runtimes=None, missing=None):
        root = tmp_path / f"device-{next(numbers)}"
        for path, content in files.items():
            (root / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "files" / path).write_text(content)
        return device.describe(
            RecordedShell(str(root)), wire.WorkerReady(runtimes=runtimes or {}, missing_runtimes=missing or {})
        )

    return describe


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson TX2 Developer Kit\0\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 3 (v8l)\n",
    "proc/meminfo": "MemTotal:        8048332 kB\nMemFree:  100 kB\n",
    "proc/loadavg": "0.52 0.40 0.30 1/300 1234\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 18.04.6 LTS"\n',
    f"{CPU}/online": "0-5\n",
    **{f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq": "2035200\n" for cpu in (0, 3, 4, 5)},
    **{f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq": "1881600\n" for cpu in (1, 2)},
    f"{CPU}/cpu0/cpufreq/scaling_governor": "schedutil\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "345600\n",
    "sys/class/thermal/thermal_zone0/type": "BCPU-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/thermal/thermal_zone1/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone1/temp": "100000\n",
}


def test_a_board_is_described_from_its_files(describe):
    description = describe(JETSON, {"onnxruntime": "1.10.0"}, {"tflite": "not installed"})
    assert description.chip == "NVIDIA Jetson TX2 Developer Kit"
    assert description.os == "Ubuntu 18.04.6 LTS"
    assert description.memory_bytes == 8048332 * 1024
    assert description.condition.governor == "schedutil"
    assert description.condition.clock_mhz == 345
    assert description.condition.load == 0.52
    assert dict(description.condition.temperatures_c) == {"BCPU-therm": 41.5, "PMIC-Die": 100.0}
    assert dict(description.runtimes) == {"onnxruntime": "1.10.0"}
    assert dict(description.missing_runtimes) == {"tflite": "not installed"}
    assert description.protocol == wire.PROTOCOL


def test_cores_are_grouped_by_maximum_clock_fastest_first(describe):
    clusters = describe(JETSON).clusters
    assert [(list(cluster.cpus), cluster.max_mhz) for cluster in clusters] == [([0, 3, 4, 5], 2035), ([1, 2], 1881)]


def test_cores_that_do_not_report_their_clock_are_one_cluster(describe):
    clusters = describe({f"{CPU}/online": "0,2-3\n"}).clusters
    assert [(list(cluster.cpus), cluster.max_mhz) for cluster in clusters] == [([0, 2, 3], 0)]


CPUINFO = {
    "a PC": ("processor : 0\nmodel name\t: Intel(R) Xeon(R) CPU\ncpu MHz\t\t: 2599.998\n", "Intel(R) Xeon(R) CPU"),
    "a phone": ("Processor\t: AArch64\nprocessor\t: 0\n\nHardware\t: Qualcomm MSM8996\n", "Qualcomm MSM8996"),
    "a Raspberry Pi": ("processor\t: 0\nModel\t\t: Raspberry Pi 4 Model B\n", "Raspberry Pi 4 Model B"),
}


@pytest.mark.parametrize(("cpuinfo", "chip"), CPUINFO.values(), ids=CPUINFO)
def test_without_a_device_tree_the_processor_names_the_chip(describe, cpuinfo, chip):
    assert describe({"proc/cpuinfo": cpuinfo}).chip == chip


def test_without_cpufreq_the_processor_reports_its_clock(describe):
    assert describe({"proc/cpuinfo": CPUINFO["a PC"][0]}).condition.clock_mhz == 2600


NONSENSE = ["", "nan\n", "inf\n", "-inf\n", "<unsupported>\n", "\n\n", "12 34\n", "0x10\n"]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_an_invalid_thermal_zone_is_ignored(describe, nonsense):
    zones = {
        "sys/class/thermal/thermal_zone0/temp": nonsense,
        "sys/class/thermal/thermal_zone1/temp": "38000\n",
        "sys/class/thermal/thermal_zone2/type": "no temperature at all\n",
    }
    assert dict(describe(zones).condition.temperatures_c) == {"thermal_zone1": 38.0}


@pytest.mark.parametrize("nonsense", [*NONSENSE, "-1\n", "1e30\n"])
def test_invalid_values_are_left_empty(describe, nonsense):
    description = describe(dict.fromkeys(JETSON, nonsense))
    facts = wire.to_dict(description)
    assert facts["memory_bytes"] == 0
    assert [cluster["max_mhz"] for cluster in facts["clusters"]] == [0]
    assert facts["condition"]["clock_mhz"] == 0
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize("online", ["?", "5-", "-3", "3-1", "0-99999999999", "1-2-3", ",", "a,b"])
def test_an_unreadable_list_of_cores_is_one_core(describe, online):
    assert [list(cluster.cpus) for cluster in describe({f"{CPU}/online": online}).clusters] == [[0]]


def test_a_device_that_reports_nothing_is_still_described(describe):
    description = describe({})
    assert description.chip
    assert description.os
    assert description.memory_bytes == 0
    assert [(list(cluster.cpus), cluster.max_mhz) for cluster in description.clusters] == [([0], 0)]
    assert wire.to_dict(description.condition) == wire.to_dict(wire.Condition())
    assert len(description.fingerprint) == 12


def test_devices_that_can_share_a_table_have_the_same_fingerprint(describe):
    at_another_time = {
        "proc/loadavg": "5.00 4.00 3.00 1/300 99\n",
        "proc/meminfo": "MemTotal:        8048100 kB\n",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 20.04"\n',
        f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
        f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "2035200\n",
        "sys/class/thermal/thermal_zone0/temp": "70000\n",
    }
    one = describe(JETSON, {"onnxruntime": "1.10.0"})
    two = describe({**JETSON, **at_another_time}, {"onnxruntime": "1.9.0"})
    assert one.fingerprint == two.fingerprint


OTHERS = {
    "chip": {"proc/device-tree/model": "NVIDIA Jetson Nano"},
    "cores": {f"{CPU}/online": "0-3\n"},
    "clock": {f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "1900000\n"},
    "memory": {"proc/meminfo": "MemTotal:        4048332 kB\n"},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_devices_that_differ_have_different_fingerprints(describe, change):
    assert describe(JETSON).fingerprint != describe({**JETSON, **change}).fingerprint


def test_a_jetson_reports_its_software():
    devices = Path(__file__).parents[1] / "devices"
    reported = device.describe(RecordedShell(str(devices / "jetson-tx2")), wire.WorkerReady()).software
    assert dict(reported) == {
        "L4T": "32.7.1",
        "JetPack": "4.6.1",
        "CUDA": "10.2.300",
        "cuDNN": "8.2.1.32",
        "TensorRT": "8.2.1",
        "jetson_clocks": "off",
    }
    orin = device.describe(RecordedShell(str(devices / "jetson-agx-orin")), wire.WorkerReady()).software
    assert orin["L4T"] == "35.4.1"
    assert "JetPack" not in orin  # packages that are not installed are not reported
    assert not device.describe(RecordedShell(str(devices / "xeon")), wire.WorkerReady()).software
