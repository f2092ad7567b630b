"""ONNX Runtime 1.10 and later: CPU, CUDA, TensorRT."""

import json
import os
import re
import shutil
import tempfile
from functools import partial
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import onnxruntime as ort

from ofa_agent.commands.layers import NODE_NAME
from ofa_agent.measuring.parts import Profiled
from ofa_agent.operators import Activation, Block, Conv, MaxPool, Operator, SqueezeExcite, product, seeded
from ofa_agent.runtimes import (
    Loaded,
    LoadedLayers,
    LoadedProfiled,
    Malformed,
    OutOfMemory,
    RuntimeFailure,
    Unsupported,
)

INPUT_SEED = 1

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
# Precisions of each provider. The CUDA provider has no int8 convolutions; it would compute in fp32.
PRECISIONS = {CPU: ("fp32", "int8"), CUDA: ("fp32", "tf32", "fp16"), TENSORRT: ("fp32", "fp16", "int8")}

TYPES = {"tensor(float16)": np.float16}  # of input and output, by the type that the model declares
TF32_OPTION = (1, 18)  # the first version with the option use_tf32

# Kernels of int8 models that some versions rename, and how many of them an operator has.
RENAMED: Dict[str, Dict[type, int]] = {"QLinearConv": {Conv: 1, SqueezeExcite: 2}, "NhwcMaxPool": {MaxPool: 1}}
OF_MODEL = (  # in errors of a wrong model
    *("invalid dimensions", "Unexpected input data type", "External data path"),
    *("ShapeInferenceError", "Load model from"),
)
NOT_SUPPORTED = ("NOT_IMPLEMENTED", "opset", "IR version", "INVALID_GRAPH", "not a registered")
OF_WEIGHTS = re.compile(r"\.(weight|bias)")


class OnnxRuntime:
    """ONNX Runtime with execution providers in order of preference.

    The first provider must be available. ``device`` stores input and output.
    """

    def __init__(self, device: str = "cpu", providers: Tuple[str, ...] = (CPU,)) -> None:
        self._device = device
        self._providers = providers
        if device == "cpu":  # on a GPU the profile has launch times, not kernel times
            self.load_profiled = self._load_profiled
            self.load_file_layers = self._load_file_layers

    def version(self) -> str:
        """Return the version. Raises Unsupported if this build lacks the provider."""
        if self._providers[0] not in ort.get_available_providers():
            raise Unsupported("onnxruntime %s was built without %s" % (ort.__version__, self._providers[0]))
        return str(ort.__version__)

    def load(self, block: Block, job: Any, model_path: str) -> Loaded:
        try:
            session = self._session(job, model_path)
            if self._device == "cpu":
                return OnnxLoaded(session, block, job.settings.batch)
            from ofa_agent.runtimes.onnxruntime_gpu import OnnxGpuLoaded

            as_graph = partial(self._session, job, model_path, as_graph=True)
            return OnnxGpuLoaded(session, block, job.settings.batch, self._device, as_graph)
        except Exception as error:  # the exceptions of onnxruntime have no common base except Exception
            raise typed(error) from None

    def _load_profiled(self, block: Block, job: Any, model_path: str) -> LoadedProfiled:
        """Load with the profiler of onnxruntime. Its events contain node names, which contain the operator index."""
        folder = tempfile.mkdtemp()
        try:
            session = self._session(job, model_path, os.path.join(folder, "profile"))
            return _OnnxProfiled(session, block, job.settings.batch, folder)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise typed(error) from None

    def load_file(self, job: Any, model_path: str) -> Loaded:
        from ofa_agent.runtimes.onnxruntime_file import OnnxFile

        try:
            return OnnxFile(self._session(job, model_path), job, self._device)
        except Exception as error:
            raise typed(error) from None

    def _load_file_layers(self, job: Any, model_path: str) -> LoadedLayers:
        from ofa_agent.runtimes.onnxruntime_file import OnnxFileLayers

        folder = tempfile.mkdtemp()
        try:
            return OnnxFileLayers(self._session(job, model_path, os.path.join(folder, "profile")), job, folder)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise typed(error) from None

    def _session(self, job: Any, model_path: str, profile_prefix: str = "", as_graph: bool = False) -> Any:
        settings = job.settings
        if settings.precision not in PRECISIONS[self._providers[0]]:
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
        providers = [(name, _provider_options(name, settings.precision, as_graph)) for name in self._providers]
        session = ort.InferenceSession(model_path, options, providers=providers)
        if session.get_providers()[0] != self._providers[0]:  # it falls back to the CPU and only logs that
            raise Unsupported("%s does not start on this device; its libraries may be missing" % self._providers[0])
        return session


def _provider_options(provider: str, precision: str, as_graph: bool) -> Dict[str, Any]:
    """Return the options of an execution provider. By default, CUDA would compute fp32 as tf32."""
    if provider == TENSORRT:
        enabled = {"trt_%s_enable" % name: precision == name for name in ("fp16", "int8")}
        return dict(enabled, trt_cuda_graph_enable=as_graph)
    if provider != CUDA:
        return {}
    graph = {"enable_cuda_graph": "1"} if as_graph else {}
    if _release() >= TF32_OPTION:
        return dict(graph, use_tf32=str(int(precision == "tf32")))
    if precision == "tf32":
        raise Unsupported("onnxruntime %s cannot choose tf32; it needs %d.%d" % ((ort.__version__,) + TF32_OPTION))
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # read by the libraries of CUDA when they start
    return graph


def _release() -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", ort.__version__)[:2])


def _read_profile(events: List[Dict[str, Any]], operators: Sequence[Operator], runs: int) -> Profiled:
    """Return the operator times of ``runs`` runs; ``events`` are in order of execution.

    Kernels between two operators (changes of layout) belong to the later operator, which requires them.
    """
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    a_run, rest = divmod(len(kernels), runs)
    if rest or not a_run:
        raise Unsupported("onnxruntime %s reported %d kernels in %d runs" % (ort.__version__, len(kernels), runs))
    names = _with_names([event["name"] for event in kernels[:a_run]], operators)
    owners = np.array(_of_convolutions(_owners(names, len(operators)), operators))
    took_us = np.array([event["dur"] for event in kernels], dtype=np.float64).reshape(runs, a_run)
    operator_ns = np.zeros((runs, len(operators)))
    np.add.at(operator_ns.T, owners, took_us.T * 1e3)
    return Profiled(operator_ns, np.bincount(owners, minlength=len(operators)))


def _with_names(names: List[str], operators: Sequence[Operator]) -> List[str]:
    """Name the int8 kernels that lost their names, as in onnxruntime 1.19, in the order of the operators."""
    named = list(names)
    for kind, numbers in RENAMED.items():
        renamed = [at for at, name in enumerate(names) if name.startswith(kind)]
        indices = [index for index, op in enumerate(operators) for _ in range(numbers.get(type(op), 0))]
        if renamed and len(renamed) != len(indices):
            found = ort.__version__, len(renamed), kind, len(indices)
            raise Unsupported("onnxruntime %s reported %d kernels %s; the model has %d of them" % found)
        for at, index in zip(renamed, indices):
            named[at] = "operator%d" % index
    return named


def _owners(names: List[str], operators: int) -> List[int]:
    """Return the operator that each kernel of a run belongs to.

    Branches may run in any order. Kernels that convert weights run first.
    """
    owners = []
    owner = operators - 1
    unnamed = False
    for name in reversed(names):
        named = NODE_NAME.search(name)
        if named:
            if unnamed and int(named.group(1)) > owner and not OF_WEIGHTS.search(name):
                raise Unsupported("onnxruntime %s runs the operators in a different order" % ort.__version__)
            owner = int(named.group(1))
        unnamed = not named
        owners.append(owner)
    return owners[::-1]


def _of_convolutions(owners: List[int], operators: Sequence[Operator]) -> List[int]:
    """Give the kernel of a convolution and its activation to the convolution; onnxruntime names it by the activation.

    The two operators may belong to different blocks.
    """
    named = set(owners)
    return [
        at - 1
        if at - 1 not in named and isinstance(operators[at], Activation) and isinstance(operators[at - 1], Conv)
        else at
        for at in owners
    ]


class OnnxLoaded(Loaded):
    def __init__(self, session: Any, block: Block, batch: int, device: str = "cpu") -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if (len(inputs), len(outputs)) != (1, 1):
            raise Malformed("a model has one input and one output, not %d and %d" % (len(inputs), len(outputs)))
        shape = (batch,) + block.input_shape
        dtype = TYPES.get(session.get_inputs()[0].type, np.float32)
        values = seeded(INPUT_SEED, product(shape), 1.0).reshape(shape).astype(dtype)
        self._values = values
        self._input = values.copy()
        empty = np.empty((batch,) + block.output_shape, dtype)
        self._output = ort.OrtValue.ortvalue_from_numpy(empty, device, 0)
        self._there: Any = None if device == "cpu" else ort.OrtValue.ortvalue_from_numpy(self._input, device, 0)
        self._session = session
        self._binding = self.bound(session)

    def bound(self, session: Any) -> Any:
        """Bind a session to the input and the output."""
        binding = session.io_binding()
        name = session.get_inputs()[0].name
        if self._there is None:
            binding.bind_input(name, "cpu", 0, self._input.dtype, self._input.shape, self._input.ctypes.data)
        else:
            binding.bind_ortvalue_input(name, self._there)
        binding.bind_ortvalue_output(session.get_outputs()[0].name, self._output)
        return binding

    def run(self) -> object:
        try:
            return self._session.run_with_iobinding(self._binding)
        except Exception as error:  # memory may run out only now
            raise typed(error) from None

    def warm_input(self) -> None:
        np.copyto(self._input, self._values)

    def output(self) -> Any:
        """Return the output of the last run as a numpy array."""
        return self._output.numpy()


class _OnnxProfiled(OnnxLoaded, LoadedProfiled):
    def __init__(self, session: Any, block: Block, batch: int, folder: str) -> None:
        super().__init__(session, block, batch)
        self._operators = block.operators
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
cuda = OnnxRuntime("cuda", (CUDA, CPU))
tensorrt = OnnxRuntime("cuda", (TENSORRT, CUDA, CPU))


def typed(error: Exception) -> Exception:
    if isinstance(error, RuntimeFailure):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return OutOfMemory(text)
    if any(sign in text for sign in NOT_SUPPORTED):
        return Unsupported(text)
    if "INVALID_PROTOBUF" in text or "INVALID_ARGUMENT" in text or any(part in text for part in OF_MODEL):
        return Malformed(text)
    return error
