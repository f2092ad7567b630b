"""Settings are read back after they were set, and one that had no effect is reported."""

import pytest

from ofa_agent import conditions
from ofa_agent.conditions.knob import Knob

POLICY0 = "/sys/devices/system/cpu/cpufreq/policy0"
# Device, setting, value, what has no effect (a command or a file), words of the reason.
SETTINGS = [
    ("jetson-tx2", "power-mode", "MAXN", "nvpmodel", "the power mode is MAXP_CORE_ARM (3)"),
    ("jetson-tx2", "jetson-clocks", "on", "jetson_clocks", "policy0 (345 to 2035 MHz)"),
    ("jetson-tx2", "governor", "performance", f"{POLICY0}/scaling_governor", "uses schedutil"),
    ("xeon", "governor", "performance", "/sys/devices/system/cpu/cpufreq/policy3", "uses powersave"),
    ("pixel-6", "clock", "1500", f"{POLICY0}/scaling_min_freq", "policy0 uses 300 to 1500 MHz"),
    ("pixel-6", "clock", "1500", f"{POLICY0}/scaling_max_freq", "policy0 uses 1500 to 1803 MHz"),
    ("h100-host", "gpu-clock", "1410", "nvidia-smi", "the GPU runs at 1620 MHz"),
    ("pixel-6", "screen", "off", "input", "the screen is on"),
    ("jetson-tx2", "affinity", "1-2", "taskset", "still uses the cores 0-5"),
    ("jetson-tx2", "affinity", "1,2", "taskset", "still uses the cores 0-5"),
]
IDS = [f"{setting} on {name}, {ignored}" for name, setting, _, ignored, _ in SETTINGS]


@pytest.fixture
def with_taskset():
    def with_taskset(shell):
        shell.answer("taskset *", "")
        return shell

    return with_taskset


@pytest.mark.parametrize(("name", "setting", "value", "ignored", "reason"), SETTINGS, ids=IDS)
def test_a_setting_without_effect_is_reported(device, setter_of, with_taskset, name, setting, value, ignored, reason):
    refused = setter_of(with_taskset(device(name, ignored=(ignored,)))).set({setting: value})
    assert list(refused) == [setting]
    assert reason in refused[setting]


@pytest.mark.parametrize(("name", "setting", "value", "ignored", "reason"), SETTINGS, ids=IDS)
def test_a_setting_with_an_effect_is_not_reported(
    device, setter_of, with_taskset, name, setting, value, ignored, reason
):
    assert setter_of(with_taskset(device(name))).set({setting: value}) == {}


@pytest.mark.parametrize(
    ("name", "setting", "value", "ran", "undone"),
    [
        ("jetson-tx2", "power-mode", "MAXN", "nvpmodel -m 0", "nvpmodel -m 3"),
        ("jetson-tx2", "jetson-clocks", "on", "jetson_clocks", "jetson_clocks --restore"),
        ("h100-host", "gpu-clock", "1410", "nvidia-smi --id=0 -lgc 1410,1410", "nvidia-smi --id=0 -rgc"),
        ("pixel-6", "screen", "off", "input keyevent 223", "input keyevent 224"),
        (
            "pixel-6",
            "fixed-performance",
            "on",
            "cmd power set-fixed-performance-mode-enabled true",
            "cmd power set-fixed-performance-mode-enabled false",
        ),
    ],
)
def test_a_setting_by_command_is_restored_by_command(device, setter_of, name, setting, value, ran, undone):
    shell = device(name)
    setter = setter_of(shell)
    assert setter.set({setting: value}) == {}
    assert ran in {" ".join(command) for command in shell.ran}
    shell.ran.clear()
    setter.put_back()
    assert any(" ".join(command).startswith(undone) for command in shell.ran)


def test_a_setting_that_a_later_one_undoes_is_reported(device, setter_of):
    refused = setter_of(device("jetson-tx2")).set({"clock": "1200", "jetson-clocks": "on"})
    assert refused == {}  # the simulated jetson_clocks raises only the lower limit
    shell = device("jetson-tx2")
    shell.written[f"{POLICY0}/scaling_max_freq"] = "2035200"
    original = shell.run

    def unlocks(*command, **options):
        if command == ("jetson_clocks",):
            for policy in ("0", "1"):
                shell.written[f"{POLICY0[:-1]}{policy}/scaling_max_freq"] = "2035200"
        return original(*command, **options)

    shell.run = unlocks
    refused = setter_of(shell).set({"clock": "1200", "jetson-clocks": "on"})
    assert list(refused) == ["clock"]
    assert "uses 2035 to 2035 MHz" in refused["clock"]


UNSET = ["NVPM WARN: power mode is not set!", [0, "NV Fan Mode:quiet", "NVPM WARN: power mode is not set!"]]


@pytest.mark.parametrize("answer", UNSET)
def test_a_power_mode_that_is_not_set_can_be_set(jetson, setter_of, answer):
    shell = jetson("orin-nano-jetpack6", commands={"nvpmodel -q": answer})
    assert conditions.read(shell).power_mode == "not set"
    setter = setter_of(shell)
    assert setter.set({"power-mode": "2"}) == {}
    assert conditions.read(shell).power_mode == "MAXN_SUPER (2)"
    shell.ran.clear()
    setter.put_back()  # nvpmodel cannot return to no mode
    assert not [command for command in shell.ran if "-m" in command]


BLANK = (
    "< POWER_MODEL ID=0 NAME=MAXN >\n<  POWER_MODEL  ID=4 NAME=MODE 15 W CORE ALL >\n< POWER_MODEL ID=5 NAME=15W >\n"
)


@pytest.mark.parametrize("wanted", ["4", "MODE 15 W CORE ALL", " MODE 15  W CORE ALL"])
def test_a_power_mode_with_blanks_in_its_name_can_be_set(jetson, setter_of, wanted):
    answer = "NV Power Mode: MODE 15 W CORE ALL\n4"
    shell = jetson("orin-nx-jetpack5", {"etc/nvpmodel.conf": BLANK}, {"nvpmodel -q": answer})
    assert conditions.read(shell).power_mode == "MODE 15 W CORE ALL (4)"
    shell.answer("nvpmodel -q", "NV Power Mode: MAXN\n0")
    shell._commands["nvpmodel -m *"] = ""
    assert setter_of(shell).set({"power-mode": wanted}) == {}
    assert ("nvpmodel", "-m", "4") in shell.ran
    assert "MODE 15 W CORE ALL (4), 15W (5)" in setter_of(shell).set({"power-mode": "warp"})["power-mode"]


def test_a_power_mode_that_cannot_be_queried_says_why(jetson, setter_of):
    shell = jetson("orin-nx-jetpack5", commands={"nvpmodel -q": [255, "", "NVPM ERROR: permission denied"]})
    assert "NVPM ERROR: permission denied" in setter_of(shell).set({"power-mode": "0"})["power-mode"]


def test_a_query_that_fails_after_it_printed_the_mode_is_used(jetson):
    shell = jetson("nano-jetpack4", commands={"nvpmodel -q": [255, "NV Power Mode: 5W\n1", "NVPM ERROR: 13"]})
    assert conditions.read(shell).power_mode == "5W (1)"


def test_a_gpu_clock_that_the_driver_refuses_with_a_warning_is_reported(device, setter_of):
    shell = device("h100-host", ignored=("nvidia-smi",))
    shell._commands["nvidia-smi --id=0 -lgc 1410,1410"] = (
        "Setting locked GPU clocks is not supported for GPU 0.\nTreating as warning and moving on."
    )
    assert "is not supported" in setter_of(shell).set({"gpu-clock": "1410"})["gpu-clock"]


def test_a_gpu_clock_that_the_driver_rounds_is_reported(device, setter_of):
    shell = device("h100-host")
    said = 'GPU clocks set to "(gpuClkMin 1980, gpuClkMax 1980)" for GPU 0'
    shell._commands["nvidia-smi --id=0 -lgc 9999,9999"] = said
    assert "locked 1980 to 1980 MHz instead" in setter_of(shell).set({"gpu-clock": "9999"})["gpu-clock"]


def test_an_idle_gpu_may_run_below_its_locked_clock(device, setter_of):
    shell = device("h100-host", ignored=("nvidia-smi",))
    (query,) = [name for name in shell._commands if "--query-gpu" in name]
    shell._commands[query] = "345, 1980, 61, 68.42, 0x0000000000000001"
    assert setter_of(shell).set({"gpu-clock": "1410"}) == {}


def test_a_clock_is_one_of_the_steps_of_the_cluster(jetson, setter_of):
    folder = "sys/devices/system/cpu/cpufreq/policy0"
    steps = {f"{folder}/scaling_available_frequencies": "115200 729600 1190400 1510400"}
    shell = jetson("orin-nx-jetpack5", steps)
    assert setter_of(shell).set({"clock": "1190"}) == {}
    assert shell.read(f"/{folder}/scaling_max_freq") == "1190400"
    refused = setter_of(jetson("orin-nx-jetpack5", steps)).set({"clock": "1000"})
    assert refused["clock"].endswith("policy0 uses 1190 to 1190 MHz")
    assert setter_of(jetson("orin-nx-jetpack5", steps)).set({"clock": "9999"}) == {}


def test_a_fixed_performance_mode_that_failed_with_exit_code_0_is_reported(device, setter_of):
    shell = device("pixel-6")
    shell._commands["cmd power set-fixed-performance-mode-enabled true"] = "Failed to set FIXED_PERFORMANCE mode"
    assert "Failed to set" in setter_of(shell).set({"fixed-performance": "on"})["fixed-performance"]


class Fan(Knob):
    """A knob of another distribution that does not read back."""

    settings = ("fan",)

    def state(self, shell, setting):
        return "auto"

    def set(self, shell, setting, value):
        pass


def test_a_knob_without_a_check_can_be_set(device, setter_of, monkeypatch):
    monkeypatch.setattr(conditions, "knobs", lambda: [Fan()])
    assert setter_of(device("xeon")).set({"fan": "full"}) == {}
