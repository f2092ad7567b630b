"""TFLite, with the interpreter of LiteRT or of the older tflite-runtime.

The CPU runtime uses XNNPACK for the operators that it supports, which is the default. The GPU runtime uses the library
of a delegate. Values are in channels-last order, as in deployed models.
"""

import ctypes
import importlib
import re
from functools import lru_cache
from importlib import util
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from ofa_agent.inputs import ModelInput
from ofa_agent.measuring.parts import Profiled
from ofa_agent.operators import Block, product, seeded
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import (
    Loaded,
    LoadedLayers,
    LoadedProfiled,
    Malformed,
    OutOfMemory,
    RuntimeFailure,
    Unsupported,
    litert_profiler,
)

INPUT_SEED = 1
FILE_ID = b"TFL3"
PRECISIONS = ("fp32", "fp16", "int8")
OPERATOR_NAME = re.compile(r"operator(\d+)")

# Import names to distributions, the newer first.
PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
GPU_DELEGATE = "libtensorflowlite_gpu_delegate.so"


class TfliteRuntime:
    """A TFLite interpreter; ``delegate`` is a shared library that runs the parts of the graph that it supports."""

    def __init__(self, delegate: str = "") -> None:
        self._delegate = delegate
        if not delegate and _has_profiler():
            self.load_profiled = self._load_profiled
            self.load_file_layers = self._load_file_layers

    def version(self) -> str:
        """Return the version. Raises Unsupported if the delegate is missing or package versions are incompatible."""
        package, version = _installed()
        if package == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            raise Unsupported("tflite-runtime %s crashes with NumPy %s; install numpy<2" % (version, np.__version__))
        self._delegates()
        return "%s %s" % (PACKAGES[package], version)

    def load(self, block: Block, job: Any, model_path: str) -> Loaded:
        try:
            return _TfliteLoaded(self._interpreter(job.settings, model_path), block, job.settings)
        except Exception as error:  # ValueError or RuntimeError; only the text distinguishes the causes
            raise typed(error) from None

    def _load_profiled(self, block: Block, job: Any, model_path: str) -> LoadedProfiled:
        try:
            return _TfliteProfiled(self._interpreter(job.settings, model_path), block, job.settings, model_path)
        except Exception as error:
            raise typed(error) from None

    def load_file(self, job: Any, model_path: str) -> Loaded:
        from ofa_agent.runtimes.tflite_file import TfliteFile

        try:
            return TfliteFile(self._interpreter(job.settings, model_path, wire.job_inputs(job)), job)
        except Exception as error:
            raise typed(error) from None

    def _load_file_layers(self, job: Any, model_path: str) -> LoadedLayers:
        from ofa_agent.runtimes.tflite_file import TfliteFileLayers

        try:
            interpreter = self._interpreter(job.settings, model_path, wire.job_inputs(job))
            return TfliteFileLayers(interpreter, job, model_path, package_file())
        except Exception as error:
            raise typed(error) from None

    def _interpreter(self, settings: Any, model_path: str, inputs: Sequence[ModelInput] = ()) -> Any:
        if settings.precision not in PRECISIONS:
            raise Unsupported("runtime %s does not support %s" % (settings.runtime, settings.precision))
        if not model_path:
            raise Malformed("runtime %s requires a model, but the job has no model_id" % settings.runtime)
        _check_file(model_path)
        interpreter = _module().Interpreter(
            model_path=model_path, num_threads=settings.threads or None, experimental_delegates=self._delegates()
        )
        for details, each in zip(interpreter.get_input_details(), inputs):
            if tuple(map(int, details["shape"])) != each.shape:
                interpreter.resize_tensor_input(details["index"], each.shape)
        interpreter.allocate_tensors()
        return interpreter

    def _delegates(self) -> Any:
        if not self._delegate:
            return None
        try:
            ctypes.CDLL(self._delegate)  # its error contains the reason
            return [_module().load_delegate(self._delegate)]
        except (OSError, ValueError, RuntimeError) as error:
            raise Unsupported("the GPU delegate of TFLite does not load on this device: %s" % error) from None


class _TfliteLoaded(Loaded):
    def __init__(self, interpreter: Any, block: Block, settings: Any) -> None:
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        shape = (settings.batch,) + block.input_shape
        takes = np.dtype(taken["dtype"]).name, tuple(map(int, taken["shape"]))
        if takes != ("int8" if settings.precision == "int8" else "float32", _channels_last(shape)):
            raise Malformed("the model takes %s of shape %s, which does not match %s" % (*takes, block.key))
        self._interpreter = interpreter
        self._taken, self._given = taken["index"], given
        self._shape = (settings.batch,) + block.output_shape
        self._values = _quantised(_moved(seeded(INPUT_SEED, product(shape), 1.0).reshape(shape), -1), taken)
        self.warm_input()
        # Bypasses Interpreter.invoke, which first checks for references to tensor memory.
        self._invoke = getattr(getattr(interpreter, "_interpreter", None), "Invoke", interpreter.invoke)

    def run(self) -> object:
        try:
            return self._invoke()
        except Exception as error:  # memory may run out only now
            raise typed(error) from None

    def warm_input(self) -> None:
        self._interpreter.set_tensor(self._taken, self._values)

    def output(self) -> Any:
        """Return the output of the last run as a numpy array of floats, channels first."""
        values = self._interpreter.get_tensor(self._given["index"])
        scale, zero_point = self._given["quantization"]
        if values.dtype == np.int8:
            values = (values.astype(np.float32) - zero_point) * np.float32(scale)
        return np.ascontiguousarray(_moved(values, 1)).reshape(self._shape)


class _TfliteProfiled(_TfliteLoaded, LoadedProfiled):
    """Runs a profiled copy of the model until ``operator_times`` is called, and then the interpreter."""

    def __init__(self, interpreter: Any, block: Block, settings: Any, model_path: str) -> None:
        super().__init__(interpreter, block, settings)
        profiled = litert_profiler.ProfiledModel(
            package_file(), model_path, settings.threads, lambda name: self._values
        )
        self._profiled: Optional[litert_profiler.ProfiledModel] = profiled
        self._operators = len(block.operators)

    def run(self) -> object:
        if not self._profiled:
            return super().run()
        self._profiled.run()
        return None

    def operator_times(self) -> Profiled:
        assert self._profiled
        reported = self._profiled.operator_times(_nodes(self._interpreter), self._operators)
        self.close()
        return reported

    def close(self) -> None:
        if self._profiled:
            self._profiled.close()
            self._profiled = None


@lru_cache(maxsize=None)
def _installed() -> Tuple[str, str]:
    """Return the import name of the package and its version."""
    for package, distribution in PACKAGES.items():
        if util.find_spec(package) is not None:
            return package, _version(package, distribution)
    raise Unsupported("neither %s is installed" % " nor ".join(PACKAGES.values()))


def _version(package: str, distribution: str) -> str:
    try:
        from importlib import metadata  # novm

        return metadata.version(distribution)
    except Exception:  # before Python 3.8, or installed without metadata
        return str(getattr(importlib.import_module(package), "__version__", "(unknown version)"))


def package_file() -> str:
    """Return the path of the package, beside which its library is."""
    return importlib.import_module(_installed()[0]).__file__ or ""


def _has_profiler() -> bool:
    try:
        package, version = _installed()
    except Unsupported:
        return False
    return package == "ai_edge_litert" and version.startswith(litert_profiler.KNOWN)


def _nodes(interpreter: Any) -> List[Tuple[str, int]]:
    """Return (name, operator) of each node of the model; the operator comes from the name of its output."""
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    nodes = []
    for node in interpreter._get_ops_details():
        owner = OPERATOR_NAME.match(names.get(node["outputs"][0], ""))
        if owner and node["op_name"] != "DELEGATE":
            nodes.append((node["op_name"], int(owner.group(1))))
    return nodes


def _module() -> Any:
    return importlib.import_module(_installed()[0] + ".interpreter")


def _check_file(path: str) -> None:
    """Check the file identifier, because older interpreters crash on other files."""
    with open(path, "rb") as file:
        head = file.read(8)
    if head[4:] != FILE_ID:
        raise Malformed("the model is not a TFLite file: it starts with %r" % head)


def _quantised(values: Any, details: Any) -> Any:
    if details["dtype"] != np.int8:
        return np.ascontiguousarray(values)
    scale, zero_point = details["quantization"]
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)


def _channels_last(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    return (shape[0],) + shape[2:] + shape[1:2] if len(shape) == 4 else shape


def _moved(values: Any, channels: int) -> Any:
    """Move channels from first to last (-1) or from last to first (1)."""
    return np.moveaxis(values, -channels, channels) if values.ndim == 4 else values


def typed(error: Exception) -> Exception:
    if isinstance(error, RuntimeFailure):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return OutOfMemory(text or "the model does not fit")
    if "Didn't find op" in text or "unresolved" in text or "Op builtin_code out of range" in text:
        return Unsupported(text)
    if any(sign in text for sign in ("valid Flatbuffer", "identifier", "schema version", "Could not open", "Mmap")):
        return Malformed(text)
    return error


cpu, gpu = TfliteRuntime(), TfliteRuntime(GPU_DELEGATE)
