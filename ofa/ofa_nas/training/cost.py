"""The cost of a run, and of training as many networks separately: the papers' argument."""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

RAPL = Path("/sys/class/powercap")
GPU = "gpu"
# Grams of CO2 per kWh: world mean of 2023 (Ember, Global Electricity Review 2024).
GRAMS_PER_KWH = 480.0
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Cost:
    """``energy_kwh`` and ``co2_grams`` are None if no meter can be read. ``one_by_one_hours`` is the time to train
    ``networks`` networks separately, each as long as the largest one; None if only one was trained.
    """

    device_hours: float
    energy_kwh: float | None
    co2_grams: float | None
    networks: int
    one_by_one_hours: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"grams_per_kwh": GRAMS_PER_KWH}


def cost_of(seconds: float, joules: float | None, devices: int, networks: int, one_network_s: float | None) -> Cost:
    kwh = None if joules is None else joules / JOULES_PER_KWH
    return Cost(
        seconds * devices / 3600,
        kwh,
        None if kwh is None else kwh * GRAMS_PER_KWH,
        networks,
        None if one_network_s is None else networks * one_network_s * devices / 3600,
    )


class EnergyMeter:
    """Energy in J since construction: of the CPU packages (RAPL) unless ``rapl`` is None, and of the NVIDIA GPU if
    training runs on it. A GPU dominates, so without its meter no energy is reported.
    """

    def __init__(self, device: torch.device, rapl: Path | None = RAPL) -> None:
        found = [] if rapl is None else sorted(rapl.glob("intel-rapl:*"))
        self._packages = [path for path in found if path.name.count(":") == 1]
        self._on_gpu = device.type == "cuda"
        self._gpu = _nvml_handle(device) if self._on_gpu else None
        self._last = self._read()
        self._joules = 0.0

    def __call__(self) -> float | None:
        """None if no meter can be read. RAPL's counters wrap every few minutes to hours: read them often."""
        now = self._read()
        if not now or (self._on_gpu and GPU not in now):
            return None
        for name, (joules, wraps_at) in now.items():
            before = self._last.get(name, (joules, wraps_at))[0]
            self._joules += joules - before if joules >= before else joules + wraps_at - before
        self._last = now
        return self._joules

    def _read(self) -> dict[str, tuple[float, float]]:
        found = {}
        for path in self._packages:
            try:
                energy, most = (int((path / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj"))
            except (OSError, ValueError):
                continue
            found[path.name] = (energy, most)
        if self._gpu is not None:
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):  # training continues
                found[GPU] = (pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) / 1e3, 0.0)
        return found


def _nvml_handle(device: torch.device) -> Any:
    """None if the Python package of NVML is not installed or the GPU has no meter."""
    try:
        import pynvml

        pynvml.nvmlInit()
        # By UUID: NVML numbers all GPUs, torch only those of CUDA_VISIBLE_DEVICES.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # the errors of NVML have no base class outside its package
        return None
    return handle
