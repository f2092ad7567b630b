import sys
from types import SimpleNamespace

import pytest
import torch

from ofa_nas.training import trainer
from ofa_nas.training.cost import EnergyMeter, cost_of
from ofa_nas.training.processes import Processes
from ofa_nas.training.state import Progress


@pytest.fixture
def rapl(tmp_path):
    """Two packages, and a part of one, which counts in it already."""

    def write(**microjoules):
        for name, value in microjoules.items():
            folder = tmp_path / name.replace("_", ":").replace("intel:rapl", "intel-rapl")
            folder.mkdir(exist_ok=True)
            (folder / "energy_uj").write_text(f"{value}\n")
            (folder / "max_energy_range_uj").write_text("10000000\n")
        return tmp_path

    return write


def meter(folder):
    return EnergyMeter(torch.device("cpu"), folder)


def test_packages_are_summed_and_their_parts_are_not(rapl):
    counting = meter(rapl(intel_rapl_0=1_000_000, intel_rapl_1=0, intel_rapl_0_0=0))
    rapl(intel_rapl_0=3_000_000, intel_rapl_1=500_000, intel_rapl_0_0=9_000_000)
    assert counting() == pytest.approx(2.5)
    assert counting() == pytest.approx(2.5)


def test_a_counter_that_wrapped(rapl):
    counting = meter(rapl(intel_rapl_0=9_000_000))
    rapl(intel_rapl_0=1_000_000)
    assert counting() == pytest.approx(2.0)


def test_the_packages_of_a_host_are_one_process_s(rapl):
    rapl(intel_rapl_0=1_000_000)
    assert meter(None)() is None


def test_energy_is_that_of_all_processes(monkeypatch):
    """Two of one host: one asks the packages, too."""
    at = iter([50.0, 50.0])
    monkeypatch.setattr(trainer, "EnergyMeter", lambda device, rapl: lambda: next(at) if rapl else None)
    found = []
    for local_rank in (0, 1):
        one = Processes(local_rank, 2, torch.device("cpu"), local_rank)
        one.gathered = lambda own: [own, 7.0]
        found.append(trainer._Clock(Progress(joules=100.0), one).joules())
    assert found == [157, 107]


@pytest.fixture
def nvml(monkeypatch):
    """A made-up NVML with one GPU, which torch numbers otherwise, and its joules: None where it tells none."""
    joules = {"GPU-26d1": 100.0}

    class NVMLError(Exception):
        pass

    def consumed(handle):
        if joules[handle] is None:
            raise NVMLError
        return joules[handle] * 1e3

    made_up = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name if name in joules else 1 / 0,
        nvmlDeviceGetTotalEnergyConsumption=consumed,
    )
    monkeypatch.setitem(sys.modules, "pynvml", made_up)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="26d1"))
    return joules


def test_a_gpu_is_the_one_that_is_computed_on_and_adds_to_the_packages(nvml, rapl):
    counting = EnergyMeter(torch.device("cuda", 0), rapl(intel_rapl_0=1_000_000))
    nvml["GPU-26d1"] = 140.0
    rapl(intel_rapl_0=3_000_000)
    assert counting() == pytest.approx(42.0)


def test_without_the_gpu_s_energy_the_packages_alone_are_no_figure(nvml, rapl):
    counting = EnergyMeter(torch.device("cuda", 0), rapl(intel_rapl_0=1_000_000))
    nvml["GPU-26d1"] = None
    assert counting() is None
    nvml["GPU-26d1"] = 110.0
    assert counting() == pytest.approx(10.0)
    nvml.clear()
    assert EnergyMeter(torch.device("cuda", 0), rapl(intel_rapl_0=1_000_000))() is None


def test_no_meter(tmp_path):
    assert meter(tmp_path)() is None


def test_what_a_run_cost():
    cost = cost_of(seconds=7200, joules=3.6e6, devices=2, networks=10, one_network_s=3600)
    assert (cost.device_hours, cost.energy_kwh, cost.co2_grams) == (4, 1, 480)
    assert cost.one_by_one_hours == 20
    unknown = cost_of(3600, None, 1, 5, None)
    assert (unknown.energy_kwh, unknown.co2_grams, unknown.one_by_one_hours) == (None, None, None)
