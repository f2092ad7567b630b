"""Conditions, on recorded devices (tests/devices) and on this machine."""

import json
from pathlib import Path

import pytest

from ofa_agent import conditions
from ofa_agent.conditions.affinity import clusters
from ofa_agent.conditions.cooling import wait_until_cool
from ofa_agent.conditions.cpufreq import policies
from ofa_agent.device.shell import LocalShell, RecordedShell
from ofa_agent.protocol import messages as wire

DEVICES = Path(__file__).parents[1] / "devices"
POLICY0 = "/sys/devices/system/cpu/cpufreq/policy0"


@pytest.fixture
def device(monkeypatch, tmp_path):
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path))
    return lambda name, refuse=(): RecordedShell(str(DEVICES / name), refuse)


@pytest.fixture
def setter_of(tmp_path):
    """Create a Setter for a Shell; each acts as a new agent that finds the state of the previous one."""
    log = []
    return lambda shell: conditions.Setter(
        shell, str(tmp_path / "conditions.json"), lambda *what, **facts: log.append((what, facts))
    )


def read(shell):
    return wire.to_dict(conditions.read(shell))


def test_a_tx2(device):
    condition = read(device("jetson-tx2"))
    assert (condition["governor"], condition["clock_mhz"], condition["gpu_clock_mhz"]) == ("schedutil", 345, 114)
    assert (condition["power_mode"], condition["power_w"]) == ("MAXP_CORE_ARM (3)", pytest.approx(2.748))
    assert condition["temperatures_c"] == {"BCPU-therm": 41.5, "MCPU-therm": 41.5, "GPU-therm": 39.5, "PMIC-Die": 100.0}
    assert (condition["headroom_c"], condition["hot"], condition["throttled"]) == (54.0, False, False)
    assert clusters(device("jetson-tx2"))[0] == ([0, 1, 2, 3, 4, 5], 2035)


def test_a_hot_orin_is_hot_and_throttled_regardless_of_its_fan(device):
    condition = read(device("jetson-agx-orin"))
    assert (condition["headroom_c"], condition["hot"], condition["throttled"]) == (1.5, True, True)
    assert condition["power_w"] == pytest.approx(14.736, abs=1e-3)
    assert condition["power_of"] == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"


def test_a_phone(device):
    condition = read(device("pixel-6"))
    assert condition["temperatures_c"]["VIRTUAL-SKIN"] == 33.5  # from the hardware, not from the cache
    assert (condition["throttled"], condition["battery"], condition["screen"]) == (False, 0.84, "on")
    assert condition["temperatures_c"]["battery"] == 29.8
    assert clusters(device("pixel-6")) == [([6, 7], 2802), ([4, 5], 2253), ([0, 1, 2, 3], 1803)]


@pytest.mark.parametrize(("tenths", "hot"), [(380, False), (425, True), (451, True)])
def test_a_phone_with_a_warm_battery_is_hot(device, monkeypatch, tenths, hot):
    shell = device("pixel-6")
    shell.answer("dumpsys battery", f"  level: 84\n  temperature: {tenths}")
    condition = read(shell)
    assert condition["hot"] == hot
    assert condition["headroom_c"] == pytest.approx(45 - tenths / 10)


def test_fixed_performance_is_refused_on_an_old_android(device, setter_of):
    shell = device("pixel-6")
    shell.answer("getprop ro.build.version.sdk", "29")
    refused = setter_of(shell).set({"fixed-performance": "on"})
    assert "requires Android 11 (SDK 30); the SDK is 29" in refused["fixed-performance"]


def test_a_server_in_a_guest(device):
    condition = read(device("xeon"))
    assert (condition["governor"], condition["throttle_count"], condition["stolen_s"]) == ("powersave", 28, 2.5)
    assert (condition["load"], condition["involuntary_switches"]) == (1.5, 7)


def test_a_gpu_at_its_power_cap_is_throttled(device):
    condition = read(device("h100-host"))
    assert (condition["gpu_clock_mhz"], condition["temperatures_c"], condition["power_w"]) == (
        1620,
        {"gpu": 61},
        688.42,
    )
    assert condition["throttled"]


def test_cheap_reads_run_no_commands(device):
    shell = device("jetson-tx2")
    conditions.read(shell, of_all=False)
    assert shell.ran == []


@pytest.mark.parametrize(
    ("name", "setting", "value", "path", "before", "after"),
    [
        ("jetson-tx2", "governor", "performance", f"{POLICY0}/scaling_governor", "schedutil", "performance"),
        ("xeon", "governor", "performance", f"{POLICY0}/scaling_governor", "powersave", "performance"),
        ("pixel-6", "clock", "1500", f"{POLICY0}/scaling_min_freq", "300000", "1500000"),
        ("pixel-6", "clock", "9999", f"{POLICY0}/scaling_min_freq", "300000", "1803000"),
    ],
)
def test_a_setting_in_a_file_is_restored(device, setter_of, name, setting, value, path, before, after):
    shell = device(name)
    setter = setter_of(shell)
    assert setter.set({setting: value}) == {}
    assert shell.read(path) == after
    assert len(policies(shell)) == sum(path.endswith("max_freq") for path in shell.written) or setting == "governor"
    setter.put_back()
    assert shell.read(path) == before


def test_the_next_agent_restores_the_settings_of_a_killed_agent(device, setter_of, tmp_path):
    shell = device("jetson-tx2")
    setter_of(shell).set({"governor": "performance", "power-mode": "0"})  # no put_back: the agent was killed
    shell.ran.clear()
    setter_of(shell).put_back()
    assert shell.read(f"{POLICY0}/scaling_governor") == "schedutil"
    assert ("nvpmodel", "-m", "3") in shell.ran
    assert not (tmp_path / "conditions.json").exists()


def test_an_agent_killed_before_it_sets_a_value_loses_nothing(device, setter_of, monkeypatch):
    shell = device("jetson-tx2")
    monkeypatch.setattr(type(shell), "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        setter_of(shell).set({"governor": "performance"})
    monkeypatch.undo()
    monkeypatch.setenv("OFA_AGENT_HOME", "/nonexistent")
    setter_of(shell).put_back()
    assert shell.read(f"{POLICY0}/scaling_governor") == "schedutil"


def test_a_setting_without_permission_is_reported_and_others_are_set(device, setter_of):
    shell = device("jetson-tx2", refuse=("/sys/devices/system/cpu/cpufreq",))
    refused = setter_of(shell).set({"governor": "performance", "power-mode": "3", "warp": "9"})
    assert set(refused) == {"governor", "warp"}
    assert "Permission denied; run the agent as root" in refused["governor"]


def test_a_missing_setting_is_reported(device, setter_of):
    refused = setter_of(device("h100-host")).set(
        {"governor": "performance", "power-mode": "0", "fixed-performance": "on"}
    )
    assert set(refused.values()) == {"this device does not have this setting"}


@pytest.mark.parametrize(
    ("name", "setting", "value", "reason"),
    [
        ("jetson-tx2", "governor", "warp", "it has interactive"),
        ("jetson-tx2", "power-mode", "MAXI", "the available modes are MAXN (0)"),
        ("jetson-tx2", "affinity", "9", "core 9 does not exist"),
        ("jetson-tx2", "affinity", "some", "use big"),
        ("pixel-6", "clock", "fast", "use a number of MHz"),
        ("h100-host", "gpu-clock", "fast", "use a number of MHz"),
        ("pixel-6", "fixed-performance", "yes", "on or off"),
        ("jetson-tx2", "jetson-clocks", "off", "omit it"),
    ],
)
def test_an_invalid_value_is_refused(device, setter_of, name, setting, value, reason):
    assert reason in setter_of(device(name)).set({setting: value})[setting]


def test_a_setting_that_cannot_be_restored_is_tried_again(device, setter_of, tmp_path):
    shell = device("xeon")
    setter_of(shell).set({"governor": "performance"})
    shell._refuse = ("/sys",)
    setter_of(shell).put_back()
    shell._refuse = ()
    setter_of(shell).put_back()
    assert shell.read(f"{POLICY0}/scaling_governor") == "powersave"


def test_a_damaged_conditions_file_does_not_prevent_the_start(setter_of, device, tmp_path):
    (tmp_path / "conditions.json").write_text("{nonsense")
    setter_of(device("xeon")).put_back()


@pytest.mark.parametrize("state", ["[]", "7", "null", "{", '{"/sys/x/scaling_min_freq": 5}'])
def test_a_damaged_state_does_not_prevent_the_start(setter_of, device, tmp_path, state):
    (tmp_path / "conditions.json").write_text(json.dumps([["clock", state]]))
    setter_of(device("xeon")).put_back()


@pytest.mark.parametrize("nonsense", ["", "nan", "-1e400", "9" * 400, "\x00\xff", "[]", "a b c"])
@pytest.mark.parametrize("name", ["jetson-tx2", "jetson-agx-orin", "pixel-6", "xeon", "h100-host"])
def test_invalid_file_contents_are_unknown_values_not_errors(device, name, nonsense):
    shell = device(name)
    for path in (DEVICES / name / "files").rglob("*"):
        if path.is_file() and "model" not in path.name:
            shell.written["/" + str(path.relative_to(DEVICES / name / "files"))] = nonsense
    shell._commands = dict.fromkeys(shell._commands, nonsense)
    condition = read(shell)
    assert (condition["clock_mhz"], condition["hot"], condition["load"]) == (0, False, 0.0)


def test_an_empty_recording_is_a_device_that_reports_nothing(tmp_path):
    assert not conditions.read(RecordedShell(str(tmp_path))).ByteSize()


@pytest.mark.real
def test_this_machine_reports_its_load_and_its_cores():
    condition = conditions.read(LocalShell())
    assert condition.affinity
    assert condition.involuntary_switches >= 0
    assert not conditions.read(LocalShell(), of_all=False).power_mode


@pytest.mark.real
def test_a_real_file_that_cannot_be_written(tmp_path):
    from ofa_agent.conditions.knob import CannotSet, write

    with pytest.raises(CannotSet, match="/proc/version"):
        write(LocalShell(), "/proc/version", "another")


class Warm:
    """A device that cools by ``cools_c`` degrees per second, and a clock that only advances in ``sleep``."""

    def __init__(self, headroom_c, cools_c, severe_s=0.0, **temperatures_c):
        self.now_s, self._headroom_c, self._cools_c = 0.0, headroom_c, cools_c
        self._severe_s, self._temperatures_c = severe_s, temperatures_c

    def read(self):
        headroom_c = self._headroom_c + self._cools_c * self.now_s
        hot = headroom_c < 3 or self.now_s < self._severe_s
        cooler = {name: at_c - self._cools_c * self.now_s for name, at_c in self._temperatures_c.items()}
        return wire.Condition(headroom_c=headroom_c, hot=hot, temperatures_c=cooler)

    def sleep(self, seconds):
        self.now_s += seconds

    def wait(self, cap_s):
        return wait_until_cool(self.read, cap_s, lambda: self.now_s, self.sleep)


def test_the_agent_waits_until_a_hot_device_is_cool():
    assert Warm(1.0, 0.5).wait(120) == pytest.approx(14)


def test_a_device_that_is_not_hot_is_not_waited_for():
    assert Warm(4.0, 0.5).wait(120) == 0


def test_the_wait_ends_at_the_limit():
    assert Warm(0.0, 0.05).wait(60) == pytest.approx(60, abs=2)


def test_the_wait_ends_if_the_device_does_not_cool():
    assert Warm(1.0, 0.0).wait(120) == pytest.approx(20, abs=2)


def test_a_phone_that_its_thermal_service_reports_as_hot_is_waited_for():
    assert Warm(15.0, 0.0, severe_s=30.0, battery=30.0).wait(120) == pytest.approx(30)


def test_a_device_that_stays_hot_is_waited_for_while_any_sensor_cools():
    assert Warm(15.0, 0.0, severe_s=1e9, battery=30.0).wait(120) == pytest.approx(60, abs=2)
    assert Warm(15.0, 0.02, severe_s=1e9, battery=30.0).wait(120) == pytest.approx(120, abs=2)


def test_a_slowly_cooling_battery_is_waited_for():
    assert Warm(1.0, 0.01, battery=44.0).wait(120) == pytest.approx(120, abs=2)  # 0.6 degrees per minute
    assert Warm(1.0, 0.0, battery=44.0).wait(120) == pytest.approx(60, abs=2)


def test_context_switches_of_this_process_are_not_read_for_a_remote_device(device):
    shell = device("xeon")
    shell.here = False
    assert read(shell)["involuntary_switches"] == 0
    assert read(shell)["load"] == 1.5


def test_recorded_commands_are_valid_json():
    for name in ("jetson-tx2", "jetson-agx-orin", "pixel-6", "h100-host"):
        assert json.loads((DEVICES / name / "commands.json").read_text())
