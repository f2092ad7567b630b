"""Kernel times of a TFLite model, from the profiler of LiteRT compiled models.

Uses the C interface of LiteRT (google-ai-edge/LiteRT, litert/c). Its signatures change between releases, so only the
releases in KNOWN are supported.
"""

import ctypes
import os
from functools import lru_cache
from typing import Any, Callable, List, Sequence, Tuple

import numpy as np

from ofa_agent.measuring.parts import Profiled
from ofa_agent.runtimes import Unsupported

KNOWN = ("2.3.",)

OK = 0
ON_CPU = 1
WRITE = 1
OPERATOR, OF_DELEGATE = 2, 8  # events that are kernels

# Names that kernels use for a node of the model, in addition to the name of the node.
CONVOLUTIONS = ("Convolution", "Fully Connected")
KERNELS = {
    "CONV_2D": CONVOLUTIONS,
    "DEPTHWISE_CONV_2D": CONVOLUTIONS,
    "FULLY_CONNECTED": CONVOLUTIONS[1:],
    "HARD_SWISH": ("HardSwish",),
    "LOGISTIC": ("Sigmoid",),
    "MAX_POOL_2D": ("Max Pooling",),
    "AVERAGE_POOL_2D": ("Average Pooling",),
    "MEAN": ("Mean", "Global Average"),
    "MUL": ("Multiply",),
    "ADD": ("Add",),
    "RELU": ("Clamp",),
    "RELU6": ("Clamp",),
}
NO_KERNEL = ("DEQUANTIZE", "PAD")  # executed once, or by the next convolution
ENDING = "Clamp"  # a second kernel after a multiplication

Handle = ctypes.c_void_p


class Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("took_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    ]


class ProfiledModel:
    """A model with its inputs that records the time of each kernel in each run. Raises Unsupported.

    ``values_of`` returns the values of an input, an array, by its name in the first signature of the model. A model
    without signatures gets one, with the names of the tensors.
    """

    def __init__(self, package_file: str, model_path: str, threads: int, values_of: Callable[[str], Any]) -> None:
        self._library = _library(package_file)
        self._payloads: List[Any] = []
        self._environment = _environment(package_file)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, os.fsencode(model_path))
        self._compiled = self._made("LiteRtCreateCompiledModel", self._environment, self._model, self._options(threads))
        self._signature = self._made("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")
        for index, buffer in enumerate(self._inputs):
            self._fill(Handle(buffer), values_of(self._name_of_input(index)))
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        self._tags: List[str] = []
        self._runs: List[List[int]] = []

    def run(self) -> None:
        taken, given = ctypes.c_size_t(len(self._inputs)), ctypes.c_size_t(len(self._outputs))
        first = ctypes.c_size_t(0)
        self._call("LiteRtStartProfiler", self._profiler)
        self._call("LiteRtRunCompiledModel", self._compiled, first, taken, self._inputs, given, self._outputs)
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        kernels = [event for event in events if event.kind in (OPERATOR, OF_DELEGATE)]
        if not self._runs:
            self._tags = [event.tag.decode() for event in kernels]
        self._runs.append([event.took_us for event in kernels])
        self._call("LiteRtResetProfiler", self._profiler)

    def operator_times(self, nodes: Sequence[Tuple[str, int]], operators: int) -> Profiled:
        """Return the operator times of all runs; ``nodes`` are the (name, operator) pairs of the model."""
        tags, took_ns = self.kernel_times()
        owners = np.array(owners_of(tags, nodes))
        operator_ns = np.zeros((len(took_ns), operators))
        np.add.at(operator_ns.T, owners, took_ns.T)
        return Profiled(operator_ns, np.bincount(owners, minlength=operators), pure=True)

    def kernel_times(self) -> Tuple[List[str], Any]:
        """Return what LiteRT calls the kernels, in order of execution, and their times, (runs, kernels) in ns."""
        if any(len(run) != len(self._tags) for run in self._runs):
            raise Unsupported("LiteRT reported %d kernels in one run but not in another" % len(self._tags))
        return self._tags, (np.array(self._runs) + 0.5) * 1e3  # truncated to whole µs: add the mean loss

    def close(self) -> None:
        for buffer in [*self._inputs, *self._outputs]:
            self._library.LiteRtDestroyTensorBuffer(Handle(buffer))
        self._library.LiteRtDestroyCompiledModel(self._compiled)
        self._library.LiteRtDestroyModel(self._model)

    def _options(self, threads: int) -> Any:
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ON_CPU)
        texts = {b"runtime_options_string": "enable_profiling = true\n", b"xnnpack": "num_threads = %d\n" % threads}
        for name, text in texts.items():
            payload = ctypes.create_string_buffer(text.encode())
            self._payloads.append(payload)
            added = self._made("LiteRtCreateOpaqueOptions", name, ctypes.cast(payload, Handle), _KEEP)
            self._call("LiteRtAddOpaqueOptions", options, added)
        return options

    def _buffers(self, side: str) -> Any:
        """Create the buffers of the inputs or the outputs, an array; ``side`` is ``Input`` or ``Output``."""
        count, first = ctypes.c_size_t(), ctypes.c_size_t(0)
        self._call("LiteRtGetNumSignature%ss" % side, self._signature, ctypes.byref(count))
        buffers = (Handle * count.value)()
        for index in range(count.value):
            at = ctypes.c_size_t(index)
            tensor = self._made("LiteRtGetSignature%sTensorByIndex" % side, self._signature, at)
            kind = (ctypes.c_int32 * 64)()  # larger than the structure
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            needs = self._made("LiteRtGetCompiledModel%sBufferRequirements" % side, self._compiled, first, at)
            made = self._made("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs)
            buffers[index] = made
        return buffers

    def _name_of_input(self, index: int) -> str:
        name = ctypes.c_char_p()
        self._call("LiteRtGetSignatureInputName", self._signature, ctypes.c_size_t(index), ctypes.byref(name))
        return (name.value or b"").decode()

    def _fill(self, buffer: Any, values: Any) -> None:
        """Write values into the buffer of an input. Raises Unsupported if they do not fit."""
        size = ctypes.c_size_t()
        self._call("LiteRtGetTensorBufferSize", buffer, ctypes.byref(size))
        if size.value < values.nbytes:
            raise Unsupported("the LiteRT profiler expects %d bytes for an input of %d" % (size.value, values.nbytes))
        address = self._made("LiteRtLockTensorBuffer", buffer, after=(WRITE,))
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _made(self, name: str, *arguments: Any, **rest: Any) -> Any:
        """Call a function and return the handle that it writes through its output pointer."""
        made = Handle()
        self._call(name, *(arguments + (ctypes.byref(made),) + rest.get("after", ())))
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        _checked(name, getattr(self._library, name)(*arguments))


@lru_cache(maxsize=None)
def _library(package_file: str) -> Any:
    return ctypes.CDLL(os.path.join(os.path.dirname(package_file), "libLiteRt.so"))


@lru_cache(maxsize=None)
def _environment(package_file: str) -> Any:
    """Create one environment per process, because each one logs the missing accelerators."""
    environment = Handle()
    status = _library(package_file).LiteRtCreateEnvironment(0, None, ctypes.byref(environment))
    _checked("LiteRtCreateEnvironment", status)
    return environment


def _checked(name: str, status: int) -> None:
    if status != OK:
        raise Unsupported("the LiteRT profiler does not work on this device: %s returned %d" % (name, status))


def owners_of(tags: Sequence[str], nodes: Sequence[Tuple[str, int]]) -> List[int]:
    """Return the operator that each kernel of a run belongs to.

    A kernel without a node (a change of shape) is counted for the next node, which requires it. Raises Unsupported if
    the kernels do not match the sequence of nodes.
    """
    expected = [(name, owner) for name, owner in nodes if name not in NO_KERNEL]
    owners: List[int] = []
    done = 0
    for tag in tags:
        is_own = done < len(expected) and tag.startswith(KERNELS.get(expected[done][0], ()) + (expected[done][0],))
        ends = not is_own and done > 0 and tag.startswith(ENDING)
        owners.extend(owner for _, owner in expected[done - ends : done - ends + 1])
        done += is_own
    if done != len(expected) or len(owners) != len(tags):
        raise Unsupported("LiteRT reported kernels that do not match the model: %s" % ", ".join(tags))
    return owners


def _keep(payload: Any) -> None:
    """Do nothing: Python owns the text of the options."""


_KEEP = ctypes.CFUNCTYPE(None, Handle)(_keep)
