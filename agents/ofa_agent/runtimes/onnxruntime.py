"""ONNX Runtime 1.10 and later: CPU, CUDA, TensorRT."""

import json
import os
import shutil
import tempfile
from typing import Any, Dict, List, Tuple

import numpy as np
import onnxruntime as ort

from ofa_agent.commands.layers import Kernel, owners_of
from ofa_agent.measuring.parts import Profiled
from ofa_agent.operators import Block, product, seeded
from ofa_agent.runtimes import Loaded, LoadedProfiled, Malformed, OutOfMemory, RuntimeFailure, Unsupported

INPUT_SEED = 1


class OnnxRuntime:
    """ONNX Runtime with execution providers in order of preference.

    The first provider must be available. ``device`` stores input and output.
    """

    def __init__(self, device: str = "cpu", providers: Tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        self._device = device
        self._providers = providers
        if device == "cpu":  # on GPUs the profiler reports launch times, not kernel times
            self.load_profiled = self._load_profiled

    def version(self) -> str:
        """Return the version. Raises Unsupported if this build lacks the provider."""
        if self._providers[0] not in ort.get_available_providers():
            raise Unsupported("onnxruntime %s was built without %s" % (ort.__version__, self._providers[0]))
        return str(ort.__version__)

    def load(self, block: Block, job: Any, model_path: str) -> Loaded:
        try:
            return _OnnxLoaded(self._session(job, model_path), block, job.settings.batch, self._device)
        except Exception as error:  # the exceptions of onnxruntime have no common base except Exception
            raise _typed(error) from None

    def _load_profiled(self, block: Block, job: Any, model_path: str) -> LoadedProfiled:
        """Load with the profiler of onnxruntime. Its events contain node names, which contain the operator index."""
        folder = tempfile.mkdtemp()
        try:
            session = self._session(job, model_path, os.path.join(folder, "profile"))
            return _OnnxProfiled(session, block, job.settings.batch, folder)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _typed(error) from None

    def _session(self, job: Any, model_path: str, profile_prefix: str = "") -> Any:
        settings = job.settings
        by_tensorrt = self._providers[0] == "TensorrtExecutionProvider"
        if settings.precision != "fp32" and not (by_tensorrt and settings.precision == "fp16"):
            raise Unsupported("runtime %s does not support %s" % (settings.runtime, settings.precision))
        if not model_path:
            raise Malformed("runtime %s requires a model, but the job has no model_id" % settings.runtime)
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        if profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        providers: List[Any] = list(self._providers)
        if by_tensorrt:
            providers[0] = (providers[0], {"trt_fp16_enable": settings.precision == "fp16"})
        session = ort.InferenceSession(model_path, options, providers=providers)
        if session.get_providers()[0] != self._providers[0]:  # it falls back to the CPU and only logs that
            raise Unsupported("%s does not start on this device; its libraries may be missing" % self._providers[0])
        return session


def _read_profile(events: List[Dict[str, Any]], operators: int, runs: int) -> Profiled:
    """Return the operator times of ``runs`` runs; ``events`` are in order of execution.

    Kernels between two operators (changes of layout) belong to the later operator, which requires them.
    """
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    a_run, rest = divmod(len(kernels), runs)
    if rest or not a_run:
        raise Unsupported("onnxruntime %s reported %d kernels in %d runs" % (ort.__version__, len(kernels), runs))
    owners = np.array(_owners([event["name"] for event in kernels[:a_run]], operators))
    took_us = np.array([event["dur"] for event in kernels], dtype=np.float64).reshape(runs, a_run)
    operator_ns = np.zeros((runs, operators))
    np.add.at(operator_ns.T, owners, took_us.T * 1e3)
    return Profiled(operator_ns, np.bincount(owners, minlength=operators))


def _owners(names: List[str], operators: int) -> List[int]:
    """Return the operator that each kernel of a run belongs to."""
    owners = owners_of([Kernel("", name) for name in names], operators)
    if owners != sorted(owners) or owners[-1] >= operators:
        raise Unsupported("onnxruntime %s runs the operators in a different order" % ort.__version__)
    return owners


class _OnnxLoaded(Loaded):
    def __init__(self, session: Any, block: Block, batch: int, device: str = "cpu") -> None:
        shape = (batch,) + block.input_shape
        values = seeded(INPUT_SEED, product(shape), 1.0).reshape(shape)
        self._values = values
        self._input = values.copy()
        empty = np.empty((batch,) + block.output_shape, np.float32)
        self._output = ort.OrtValue.ortvalue_from_numpy(empty, device, 0)
        self._session = session
        self._binding = session.io_binding()
        name = session.get_inputs()[0].name
        if device == "cpu":
            self._binding.bind_input(name, "cpu", 0, np.float32, shape, self._input.ctypes.data)
        else:
            self._there = ort.OrtValue.ortvalue_from_numpy(self._input, device, 0)
            self._binding.bind_ortvalue_input(name, self._there)
        self._binding.bind_ortvalue_output(session.get_outputs()[0].name, self._output)

    def run(self) -> object:
        try:
            return self._session.run_with_iobinding(self._binding)
        except Exception as error:  # memory may run out only now
            raise _typed(error) from None

    def warm_input(self) -> None:
        np.copyto(self._input, self._values)

    def output(self) -> Any:
        """Return the output of the last run as a numpy array."""
        return self._output.numpy()


class _OnnxProfiled(_OnnxLoaded, LoadedProfiled):
    def __init__(self, session: Any, block: Block, batch: int, folder: str) -> None:
        super().__init__(session, block, batch)
        self._operators = len(block.operators)
        self._folder = folder
        self._runs = 0

    def run(self) -> object:
        self._runs += 1
        return super().run()

    def operator_times(self) -> Profiled:
        runs = self._runs
        with open(self._session.end_profiling()) as file:
            events = json.load(file)
        return _read_profile(events, self._operators, runs)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


cpu = OnnxRuntime()
cuda = OnnxRuntime("cuda", ("CUDAExecutionProvider", "CPUExecutionProvider"))
tensorrt = OnnxRuntime("cuda", ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"))


def _typed(error: Exception) -> Exception:
    if isinstance(error, RuntimeFailure):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return OutOfMemory(text)
    if "NOT_IMPLEMENTED" in text or "opset" in text or "IR version" in text or "INVALID_GRAPH" in text:
        return Unsupported(text)
    if "INVALID_PROTOBUF" in text or "INVALID_ARGUMENT" in text or "invalid dimensions" in text:
        return Malformed(text)
    return error
