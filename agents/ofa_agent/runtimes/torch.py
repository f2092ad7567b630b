"""PyTorch 1.8 and later: CPU and CUDA.

Modes: eager (``torch``), TorchScript (``-script``), ``torch.compile`` (``-compile``), and CUDA graphs
(``-cuda-graph``), which help if launching the kernels of a small block takes longer than running them. PyTorch takes
seconds to import, so it is imported with the first job.
"""

import os
import re
from functools import lru_cache
from importlib import util
from typing import Any

from ofa_agent.operators import Block
from ofa_agent.runtimes import Loaded, LoadedLayers, LoadedProfiled, Unsupported

PROFILED = (("cpu", "eager"), ("cuda", "eager"), ("cuda", "graph"), ("cuda", "compile"))
DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu")


class TorchRuntime:
    """PyTorch in one mode on one device; ``mode``: eager, script, compile or graph; ``device``: cpu or cuda."""

    def __init__(self, device: str = "cpu", mode: str = "eager") -> None:
        self._device = device
        self._mode = mode
        if (device, mode) in PROFILED:
            self.load_profiled = self._load_profiled
        if device == "cpu" and mode in ("eager", "compile"):
            self.load_file, self.load_file_layers = self._load_file, self._load_file_layers

    def version(self) -> str:
        """Return the version. Raises Unsupported if this device or this version cannot run the mode."""
        version = _installed()
        release = tuple(int(number) for number in version.split(".")[:2])
        if self._device == "cuda" and not _has_cuda():
            raise Unsupported("PyTorch %s finds no CUDA device" % version)
        if self._mode == "compile" and release < (2, 0):
            raise Unsupported("torch.compile requires PyTorch 2.0; the installed version is %s" % version)
        if self._mode == "graph" and release < (1, 10):
            raise Unsupported("CUDA graphs require PyTorch 1.10; the installed version is %s" % version)
        return version

    def load(self, block: Block, job: Any, model_path: str) -> Loaded:
        from ofa_agent.runtimes import torch_layers

        return torch_layers.load(block, job, self._device, self._mode)

    def _load_profiled(self, block: Block, job: Any, model_path: str) -> LoadedProfiled:
        from ofa_agent.runtimes import torch_layers

        return torch_layers.load(block, job, self._device, self._mode, profiled=True)

    def _load_file(self, job: Any, model_path: str) -> Loaded:
        from ofa_agent.runtimes import torch_file

        return torch_file.TorchFile(job, model_path, self._mode)

    def _load_file_layers(self, job: Any, model_path: str) -> LoadedLayers:
        from ofa_agent.runtimes import torch_file

        return torch_file.TorchFileLayers(job, model_path, self._mode)


@lru_cache(maxsize=None)
def _installed() -> str:
    spec = util.find_spec("torch")
    if spec is None or not spec.origin:
        raise Unsupported("PyTorch is not installed")
    with open(os.path.join(os.path.dirname(spec.origin), "version.py")) as file:
        found = re.search(r"^__version__ = ['\"](\d+\.\d+[^'\"]*)", file.read(), re.MULTILINE)
    if not found:
        raise Unsupported("PyTorch is damaged: it has no version; reinstall it")
    return found.group(1)


@lru_cache(maxsize=None)
def _has_cuda() -> bool:
    if not any(os.path.exists(driver) for driver in DRIVERS):
        return False
    import torch

    return bool(torch.cuda.is_available())


cpu, script, compiled = TorchRuntime(), TorchRuntime(mode="script"), TorchRuntime(mode="compile")
cuda, cuda_script = TorchRuntime("cuda"), TorchRuntime("cuda", "script")
cuda_compiled, cuda_graph = TorchRuntime("cuda", "compile"), TorchRuntime("cuda", "graph")
