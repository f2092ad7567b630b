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
def zones(tmp_path):
    """Write meters of powercap: path to name and µJ; None: the counter cannot be read."""

    def zones(**of_path):
        for path, (name, microjoules) in of_path.items():
            folder = tmp_path / path.replace("_", ":").replace("rapl:mmio", "rapl-mmio").replace("intel:", "intel-")
            folder.mkdir(exist_ok=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text("262143328850\n")
            counter = folder / "energy_uj"
            counter.unlink(missing_ok=True)
            if microjoules is not None:
                counter.write_text(f"{microjoules}\n")
        return tmp_path

    return zones


# The meters of one machine, path to name; the meters that count, each of 1 J. Names as in the kernel's powercap.rst,
# arch/x86/events/rapl.c and drivers/powercap/intel_rapl_common.c.
MACHINES = {
    "a laptop with a platform meter": (
        {"intel_rapl_0": "package-0", "intel_rapl_0_0": "core", "intel_rapl_0_1": "uncore", "intel_rapl_1": "psys"},
        "package-0",
    ),
    "the platform meter comes first": ({"intel_rapl_0": "psys", "intel_rapl_1": "package-0"}, "package-0"),
    "the packages are inside the platform meter": (
        {"intel_rapl_0": "psys", "intel_rapl_0_0": "package-0", "intel_rapl_0_1": "package-1"},
        "package-0 + package-1",
    ),
    "a server with memory meters": (
        {
            "intel_rapl_0": "package-0",
            "intel_rapl_0_0": "dram",
            "intel_rapl_1": "package-1",
            "intel_rapl_1_0": "dram",
        },
        "package-0 + package-1",
    ),
    "two dies": (
        {"intel_rapl_0": "package-0-die-0", "intel_rapl_1": "package-0-die-1"},
        "package-0-die-0 + package-0-die-1",
    ),
    "a package by two drivers": ({"intel_rapl_0": "package-0", "intel_rapl_mmio_0": "package-0"}, "package-0"),
    "only a platform meter": ({"intel_rapl_0": "psys"}, "psys"),
}


@pytest.mark.parametrize(("names", "counted"), MACHINES.values(), ids=MACHINES)
def test_a_meter_that_contains_others_counts_once(zones, names, counted):
    counting = meter(zones(**{path: (name, 0) for path, name in names.items()}))
    zones(**{path: (name, 1_000_000) for path, name in names.items()})
    assert counting.of == counted
    assert counting() == pytest.approx(len(counted.split(" + ")))


@pytest.mark.parametrize("names", [{"intel_rapl_0": "core"}, {"intel_rapl_0": "dram", "intel_rapl_1": "dram"}])
def test_meters_of_parts_are_no_energy(zones, names):
    counting = meter(zones(**{path: (name, 0) for path, name in names.items()}))
    assert (counting(), counting.of) == (None, "")


def test_energy_is_unknown_if_one_of_the_packages_cannot_be_read(zones):
    counting = meter(zones(intel_rapl_0=("package-0", 0), intel_rapl_1=("package-1", None)))
    zones(intel_rapl_0=("package-0", 5_000_000))
    assert counting() is None


class Failing:
    of = "package-0"

    def __call__(self):
        return None


def test_energy_is_unknown_if_the_meter_of_one_process_fails(monkeypatch):
    monkeypatch.setattr(trainer, "EnergyMeter", lambda device, rapl: Failing())
    one = Processes(0, 2, torch.device("cpu"), 0)
    one.gathered = lambda own: [own, 7.0]
    assert trainer._Clock(Progress(), one).joules() is None


def test_energy_is_unknown_after_a_session_without_a_meter(monkeypatch):
    monkeypatch.setattr(trainer, "EnergyMeter", lambda device, rapl: lambda: 5.0)
    one = Processes(0, 1, torch.device("cpu"), 0)
    assert trainer._Clock(Progress(), one).joules() == 5.0
    assert trainer._Clock(Progress(seconds=60.0, joules=2.0), one).joules() == 7.0
    assert trainer._Clock(Progress(seconds=60.0), one).joules() is None


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


def test_the_cost_of_a_run():
    cost = cost_of(seconds=7200, joules=3.6e6, devices=2, networks=10, one_network_s=3600)
    assert (cost.device_hours, cost.energy_kwh, cost.co2_grams) == (4, 1, 480)
    assert cost.one_by_one_hours == 20
    unknown = cost_of(3600, None, 1, 5, None)
    assert (unknown.energy_kwh, unknown.co2_grams, unknown.one_by_one_hours) == (None, None, None)
