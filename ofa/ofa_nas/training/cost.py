"""The cost of a run, and of training as many networks separately: the papers' argument."""

import contextlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

# https://docs.kernel.org/power/powercap/powercap.html
RAPL = Path("/sys/class/powercap")
PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
PLATFORM = "psys"
GPU = "gpu"
# Grams of CO2 per kWh: world mean of 2023 (Ember, Global Electricity Review 2024).
GRAMS_PER_KWH = 480.0
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Cost:
    """``energy_kwh`` and ``co2_grams`` are None if no meter can be read. ``energy_of`` names the meters that they are
    the sum of. ``one_by_one_hours`` is the time to train ``networks`` networks separately, each as long as the largest
    one; None if only one was trained.
    """

    device_hours: float
    energy_kwh: float | None
    co2_grams: float | None
    networks: int
    one_by_one_hours: float | None
    energy_of: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"grams_per_kwh": GRAMS_PER_KWH}


def cost_of(
    seconds: float,
    joules: float | None,
    devices: int,
    networks: int,
    one_network_s: float | None,
    energy_of: str = "",
) -> Cost:
    kwh = None if joules is None else joules / JOULES_PER_KWH
    return Cost(
        seconds * devices / 3600,
        kwh,
        None if kwh is None else kwh * GRAMS_PER_KWH,
        networks,
        None if one_network_s is None else networks * one_network_s * devices / 3600,
        "" if kwh is None else energy_of,
    )


class EnergyMeter:
    """Energy in J since construction: of the CPU packages (RAPL) unless ``rapl`` is None, and of the NVIDIA GPU if
    training runs on it. Every meter must be readable, or no energy is reported. ``of`` names the meters.
    """

    def __init__(self, device: torch.device, rapl: Path | None = RAPL) -> None:
        self._packages = {} if rapl is None else _packages(rapl)
        self._on_gpu = device.type == "cuda"
        self._gpu = _nvml_handle(device) if self._on_gpu else None
        self.of = " + ".join([*self._packages, *([GPU] if self._on_gpu else [])])
        self._last = self._read()
        self._joules = 0.0

    def __call__(self) -> float | None:
        """None if a meter cannot be read. RAPL's counters wrap every few minutes to hours: read them often."""
        now = self._read()
        if not now or set(self._packages) - set(now) or (self._on_gpu and GPU not in now):
            return None
        for name, (joules, wraps_at) in now.items():
            before = self._last.get(name, (joules, wraps_at))[0]
            self._joules += joules - before if joules >= before else joules + wraps_at - before
        self._last = now
        return self._joules

    def _read(self) -> dict[str, tuple[float, float]]:
        found = {}
        for name, path in self._packages.items():
            try:
                energy, most = (int((path / file).read_text()) / 1e6 for file in ("energy_uj", "max_energy_range_uj"))
            except (OSError, ValueError):
                continue
            found[name] = (energy, most)
        if self._gpu is not None:
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):  # training continues
                found[GPU] = (pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) / 1e3, 0.0)
        return found


def _packages(rapl: Path) -> dict[str, Path]:
    """Return the meters that cover the processors without overlap, by name.

    A meter may contain others: the platform ``psys`` contains the packages, and a package contains ``core`` and
    ``uncore``. One package may also appear twice, through different drivers. Without packages, ``psys`` is used.
    """
    paths = sorted(rapl.glob("*:*"))
    found: dict[str, Path] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found.setdefault((path / "name").read_text().strip(), path)
    if not found:  # without names, the meters at the top are the packages
        return {f"package-{path.name.partition(':')[2]}": path for path in paths if path.name.count(":") == 1}
    packages = {name: path for name, path in found.items() if PACKAGE.fullmatch(name)}
    return packages or {name: path for name, path in found.items() if name == PLATFORM}


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
