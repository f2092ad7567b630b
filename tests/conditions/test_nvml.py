"""NVML: conditions and energy of a GPU. The library is a stand-in with the functions and units of nvidia-ml-py."""

import sys
from types import SimpleNamespace

import pytest

from ofa_agent import conditions
from ofa_agent.conditions.nvml import Nvml, gpu_id, nvml
from ofa_agent.device.shell import LocalShell
from ofa_agent.measuring.power import GPU_S, gpu_power_w


class NVMLError(Exception):
    pass


def unsupported(*_):
    raise NVMLError("Not Supported")


def library_of(**functions):
    known = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: f"index {index}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: f"uuid {uuid}",
        "nvmlDeviceGetClockInfo": lambda gpu, domain: {"sm": 1620}[domain],
        "nvmlDeviceGetMaxClockInfo": lambda gpu, domain: {"sm": 1980}[domain],
        "nvmlDeviceGetTemperature": lambda gpu, sensor: {"gpu": 61}[sensor],
        "nvmlDeviceGetPowerUsage": lambda gpu: 188420,  # mW
        "nvmlDeviceGetTotalEnergyConsumption": unsupported,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: 0x40,
    }
    return SimpleNamespace(
        NVMLError=NVMLError, NVML_CLOCK_SM="sm", NVML_TEMPERATURE_GPU="gpu", **{**known, **functions}
    )


@pytest.fixture
def installed(monkeypatch):
    def install(**functions):
        monkeypatch.setitem(sys.modules, "pynvml", library_of(**functions))

    nvml.cache_clear()
    yield install
    nvml.cache_clear()


def test_the_condition_of_a_gpu_is_read_around_its_trials(installed):
    installed()
    condition = conditions.read(LocalShell(), of_all=False, of_gpu=True)
    assert (condition.gpu_clock_mhz, condition.power_of) == (1620, "GPU")
    assert condition.power_w == pytest.approx(188.42)
    assert condition.temperatures_c["gpu"] == 61
    assert condition.throttled  # 0x40: thermal slowdown by the driver


def test_the_gpu_is_not_read_around_other_trials(installed):
    installed()
    assert conditions.read(LocalShell(), of_all=False).gpu_clock_mhz == 0


def test_what_a_gpu_does_not_report_is_unknown(installed):
    installed(nvmlDeviceGetPowerUsage=unsupported, nvmlDeviceGetCurrentClocksThrottleReasons=unsupported)
    condition = conditions.read(LocalShell(), of_all=False, of_gpu=True)
    assert (condition.gpu_clock_mhz, condition.power_w, condition.throttled) == (1620, 0, False)


def test_without_a_driver_there_is_no_gpu(installed):
    installed(nvmlInit=unsupported)
    assert nvml() is None


@pytest.mark.parametrize(
    ("visible", "gpu", "handle"),
    [(None, "0", "index 0"), ("2,0", "2", "index 2"), ("GPU-8f2a", "GPU-8f2a", "uuid GPU-8f2a")],
)
def test_the_gpu_is_the_one_that_cuda_uses(monkeypatch, visible, gpu, handle):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_id() == gpu
    assert Nvml(library_of())._gpu == handle


class Meter:
    """A GPU with constant power whose energy counter grows in steps; ``now_s`` is its clock."""

    def __init__(self, watts, step_s=0.1, counts=True):
        self.now_s = 0.03
        self._watts, self._step_s, self._counts = watts, step_s, counts

    def run(self):
        self.now_s += 0.004

    def power_w(self):
        return self._watts

    def energy_j(self):
        return 1e6 + self._watts * self._step_s * (self.now_s // self._step_s) if self._counts else None


@pytest.mark.parametrize("meter", [Meter(250.0), Meter(250.0, counts=False)], ids=["energy counter", "readings"])
def test_power_is_the_mean_while_the_job_runs(meter):
    assert gpu_power_w(meter.run, meter, lambda: meter.now_s) == pytest.approx(250, rel=0.04)
    assert meter.now_s >= GPU_S


def test_a_counter_that_stands_still_gives_no_power():
    meter = Meter(0.0)
    assert gpu_power_w(meter.run, meter, lambda: meter.now_s) == 0
    assert meter.now_s < 2


def test_without_a_gpu_nothing_runs():
    assert gpu_power_w(pytest.fail, None) == 0
