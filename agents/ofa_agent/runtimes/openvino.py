"""OpenVINO 2023.1 and later: CPU, and GPU or NPU of Intel.

OpenVINO takes seconds to import, so it is imported with the first job.
"""

import os
import time
from functools import lru_cache, partial
from importlib import util
from typing import Any, Dict, List, Tuple

import numpy as np

from ofa_agent.commands.layers import Kernel, owners_of
from ofa_agent.operators import Block, product, seeded
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Loaded, LoadedLayers, LoadedProfiled, Malformed, OutOfMemory, RuntimeFailure, Unsupported
from ofa_agent.runtimes.openvino_counters import Counters

INPUT_SEED = 1
OLDEST = (2023, 1)  # older versions cannot be kept from pinning threads
READ_EVERY_S = 0.002  # counters are read at most once in this time, because that takes a tenth of it

# Precision to OpenVINO's name, and the capability that a device must report.
# In int8, the operators that the model does not quantise are computed in f32.
PRECISIONS = {"fp32": ("f32", ""), "fp16": ("f16", "FP16"), "bf16": ("bf16", "BF16"), "int8": ("f32", "INT8")}
# Parts of the messages of OpenVINO.
NO_MEMORY = ("bad_alloc", "ailed to allocate", "OUT_OF_RESOURCES", "OUT_OF_HOST_MEMORY", "exceeds max size of memory")
NOT_SUPPORTED = ("No conversion rule found", "does not support", "is not supported")
# Without one of these files there is no such device. The CPU needs none.
DRIVERS = {"CPU": ("/",), "GPU": ("/dev/dri", "/dev/dxg"), "NPU": ("/dev/accel",)}


class OpenVino:
    """OpenVINO on one kind of device: CPU, GPU or NPU."""

    def __init__(self, device: str = "CPU") -> None:
        self._device = device
        if device == "CPU":
            self.load_profiled = self._load_profiled
            self.load_file_layers = self._load_file_layers

    def version(self) -> str:
        """Return the version. Raises Unsupported if it is too old, or if this machine has no such device."""
        version = _installed()
        if tuple(int(number) for number in version.split(".")[:2]) < OLDEST:
            raise Unsupported("OpenVINO %s is too old; install %d.%d or later" % ((version,) + OLDEST))
        files = DRIVERS[self._device]
        if not any(os.path.exists(file) for file in files):
            raise Unsupported("OpenVINO %s finds no %s: there is no %s" % (version, self._device, " or ".join(files)))
        if self._device != "CPU":
            self._find_device()
        return version

    def load(self, block: Block, job: Any, model_path: str) -> Loaded:
        try:
            compiled = self._compile(self._read(block, job, model_path), job.settings)
            return _OpenVinoLoaded(compiled, block, job.settings.batch)
        except Exception as error:  # mostly RuntimeError; only the text distinguishes the causes
            raise typed(error) from None

    def _load_profiled(self, block: Block, job: Any, model_path: str) -> LoadedProfiled:
        """Load the model twice: with counters until the operator times are read, and without."""
        try:
            model = self._read(block, job, model_path)
            counted = self._compile(model, job.settings, PERF_COUNT=True)
            return _OpenVinoProfiled(self._compile(model, job.settings), counted, block, job.settings.batch)
        except Exception as error:
            raise typed(error) from None

    def load_file(self, job: Any, model_path: str) -> Loaded:
        from ofa_agent.runtimes.openvino_file import OpenVinoFile

        try:
            return OpenVinoFile(self._compile(self._read_file(job, model_path), job.settings), job)
        except Exception as error:
            raise typed(error) from None

    def _load_file_layers(self, job: Any, model_path: str) -> LoadedLayers:
        from ofa_agent.runtimes.openvino_file import OpenVinoFileLayers

        try:
            model = self._read_file(job, model_path)
            return OpenVinoFileLayers(self._compile(model, job.settings, PERF_COUNT=True), job)
        except Exception as error:
            raise typed(error) from None

    def _read_file(self, job: Any, model_path: str) -> Any:
        """Read a model file and fix the shapes of its inputs."""
        model = self._opened(job.settings, model_path)
        model.reshape({each.name: list(each.shape) for each in wire.job_inputs(job)})
        return model

    def _read(self, block: Block, job: Any, model_path: str) -> Any:
        model, settings = self._opened(job.settings, model_path), job.settings
        if (len(model.inputs), len(model.outputs)) != (1, 1):
            raise Malformed(
                "a model has one input and one output, not %d and %d" % (len(model.inputs), len(model.outputs))
            )
        shape = (settings.batch,) + block.input_shape
        takes = model.input().get_element_type().to_string(), tuple(model.input().shape)
        if takes != ("f32", shape):
            raise Malformed("the model takes %s of shape %s, which does not match %s" % (takes + (block.key,)))
        return model

    def _opened(self, settings: Any, model_path: str) -> Any:
        if settings.precision not in PRECISIONS:
            raise Unsupported("runtime %s does not support %s" % (settings.runtime, settings.precision))
        if not model_path:
            raise Malformed("runtime %s requires a model, but the job has no model_id" % settings.runtime)
        if self._device != "CPU":
            self._find_device()
        try:
            return _core().read_model(model_path)
        except Exception as error:
            raise typed(error, otherwise=Malformed) from None

    def _compile(self, model: Any, settings: Any, **others: Any) -> Any:
        """Compile and check that OpenVINO uses the settings, because it replaces some without an error."""
        name, capability = PRECISIONS[settings.precision]
        has = _core().get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        if capability and capability not in has:
            raise Unsupported("this %s does not compute in %s; it has %s" % (self._device, name, ", ".join(has)))
        wanted: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": name}
        if self._device == "CPU":  # the agent chooses the cores, so OpenVINO must not
            wanted.update(NUM_STREAMS=1, INFERENCE_NUM_THREADS=settings.threads, ENABLE_CPU_PINNING=False)
        compiled = _core().compile_model(model, self._device, dict(wanted, PERFORMANCE_HINT="LATENCY", **others))
        for setting, value in wanted.items():
            used = compiled.get_property(setting)
            used = used.to_string() if hasattr(used, "to_string") else used
            if used != value:
                raise Unsupported("OpenVINO uses %s %s on this device, not %s" % (setting, used, value))
        return compiled

    def _find_device(self) -> None:
        found = _core().available_devices
        if not any(device.split(".")[0] == self._device for device in found):  # GPU.0 if there are several
            raise Unsupported("OpenVINO finds no %s; it finds %s" % (self._device, ", ".join(found) or "no device"))


class _OpenVinoLoaded(Loaded):
    def __init__(self, compiled: Any, block: Block, batch: int) -> None:
        shape = (batch,) + block.input_shape
        self._values = seeded(INPUT_SEED, product(shape), 1.0).reshape(shape)
        self._input = self._values.copy()
        self._use(compiled)

    def _use(self, compiled: Any) -> None:
        from openvino import Tensor

        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(Tensor(self._input, shared_memory=True))
        self._infer = partial(self._request.infer, share_outputs=True)  # otherwise each run copies the output

    def run(self) -> object:
        try:
            return self._infer()
        except Exception as error:  # memory may run out only now
            raise typed(error) from None

    def warm_input(self) -> None:
        np.copyto(self._input, self._values)

    def output(self) -> Any:
        """Return the output of the last run as a numpy array."""
        return self._request.get_output_tensor().data


class _OpenVinoProfiled(_OpenVinoLoaded, LoadedProfiled):
    """Runs a model with counters until ``operator_times`` is called, and then the same model without them."""

    def __init__(self, compiled: Any, counted: Any, block: Block, batch: int) -> None:
        super().__init__(counted, block, batch)
        operators = len(block.operators)
        self._plain = compiled
        kernels = _kernels(counted)
        owners = dict(zip([kernel.name for kernel in kernels], owners_of(kernels, operators)))
        self._counters = Counters(owners, operators)
        self._counting = True
        self._runs = 0
        self._read_at = 0.0

    def run(self) -> object:
        result = super().run()
        if self._counting:
            self._runs += 1
            if time.perf_counter() - self._read_at >= READ_EVERY_S:
                self._read()
        return result

    def operator_times(self) -> Any:
        self._read()
        self._counting = False
        self._use(self._plain)
        return self._counters.profiled()

    def _read(self) -> None:
        self._counters.add(self._runs, executed_us(self._request))
        self._read_at = time.perf_counter()


def _kernels(compiled: Any) -> List[Kernel]:
    """Return the nodes of a compiled model in order of execution."""
    nodes: List[Tuple[int, Kernel]] = []
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        originals = str(facts["originalLayersNames"].value) if "originalLayersNames" in facts else ""
        order = int(facts["execOrder"].value) if "execOrder" in facts else 0
        nodes.append((order, Kernel(node.get_friendly_name(), originals)))
    return [kernel for _, kernel in sorted(nodes)]


def executed_us(request: Any) -> Dict[str, float]:
    """Return the counters of the kernels that ran. OpenVINO reports kernels below 1 µs as not run."""
    return {
        info.node_name: info.real_time.total_seconds() * 1e6
        for info in request.get_profiling_info()
        if info.status == info.Status.EXECUTED
    }


@lru_cache(maxsize=None)
def _installed() -> str:
    if util.find_spec("openvino") is None:
        raise Unsupported("OpenVINO is not installed")
    from importlib import metadata  # novm

    return metadata.version("openvino")


@lru_cache(maxsize=None)
def _core() -> Any:
    from openvino import Core

    return Core()


def typed(error: Exception, otherwise: Any = None) -> Exception:
    """Return ``error`` as a typed failure; as ``otherwise`` if its text says nothing else."""
    if isinstance(error, RuntimeFailure):
        return error
    text = str(error).strip()
    if isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY):
        return OutOfMemory(text or "the model does not fit")
    if any(sign in text for sign in NOT_SUPPORTED):
        return Unsupported(text)
    return otherwise(text) if otherwise else error


cpu, gpu, npu = OpenVino("CPU"), OpenVino("GPU"), OpenVino("NPU")
