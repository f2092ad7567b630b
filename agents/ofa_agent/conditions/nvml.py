"""The NVIDIA Management Library through ``nvidia-ml-py``, which is much faster than starting ``nvidia-smi``.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import os
from functools import lru_cache
from typing import Any, Callable, List, Optional


def gpu_id() -> str:
    """Return the index, UUID or bus address of the GPU that CUDA calls its first one, as ``nvidia-smi --id`` takes it.

    CUDA numbers GPUs as ``nvidia-smi`` does only with CUDA_DEVICE_ORDER=PCI_BUS_ID, which the worker sets.
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


class Nvml:
    """The first GPU of CUDA. Every reading is None if the GPU does not have it."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nvmlInit()
        of = gpu_id()
        by_index, by_uuid = library.nvmlDeviceGetHandleByIndex, library.nvmlDeviceGetHandleByUUID
        self._gpu = by_index(int(of)) if of.isdigit() else by_uuid(of)

    def clock_mhz(self) -> Optional[float]:
        return self._read(lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM))

    def most_mhz(self) -> Optional[float]:
        return self._read(lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM))

    def temperature_c(self) -> Optional[float]:
        return self._read(lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))

    def power_w(self) -> Optional[float]:
        return _scaled(self._read(lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu)), 1e-3)

    def energy_j(self) -> Optional[float]:
        """Return the energy since the driver was loaded (GPUs since Volta), in J. It grows every 20 to 100 ms."""
        return _scaled(self._read(lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)), 1e-3)

    def slowed_by(self) -> Optional[int]:
        """Return the reasons why the clock is low, as the bits that ``nvidia-smi`` prints."""
        found = self._read(lambda nvml, gpu: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))
        return None if found is None else int(found)

    def fields(self) -> List[str]:
        """Return what the query of ``nvidia-smi`` returns, in the same order."""
        readings = self.clock_mhz(), self.most_mhz(), self.temperature_c(), self.power_w()
        reasons = self.slowed_by()
        return ["[N/A]" if reading is None else "%g" % reading for reading in readings] + [
            "[N/A]" if reasons is None else "0x%016x" % reasons
        ]

    def _read(self, reading: Callable[[Any, Any], Any]) -> Optional[float]:
        try:
            return float(reading(self._library, self._gpu))
        except (self._library.NVMLError, AttributeError):  # not supported by the GPU, or unknown to the library
            return None


@lru_cache(maxsize=None)
def nvml() -> Optional[Nvml]:
    """Return the first GPU of this machine; None without nvidia-ml-py, driver or GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml)
    except (pynvml.NVMLError, OSError):
        return None


def _scaled(value: Optional[float], scale: float) -> Optional[float]:
    return None if value is None else value * scale
