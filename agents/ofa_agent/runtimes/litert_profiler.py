"""Kernel times of a TFLite model, from the profiler of LiteRT's compiled models.

Through LiteRT's C interface (google-ai-edge/LiteRT, litert/c), whose signatures change: for the releases in KNOWN only.
"""

import ctypes
import os
from functools import lru_cache
from typing import Any, List, Sequence, Tuple

import numpy as np

from ofa_agent.measuring.parts import Profiled
from ofa_agent.runtimes import Unsupported

KNOWN = ("2.3.",)

OK = 0
ON_CPU = 1
WRITE = 1
OPERATOR, OF_DELEGATE = 2, 8  # events that are kernels

# What a node of the file is called by the kernels that do it, beside its own name.
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
NO_KERNEL = ("DEQUANTIZE", "PAD")  # done once, or by the convolution behind it
ENDING = "Clamp"  # of a product: another kernel

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
    """One model, its input written, whose kernels' times are kept run by run. Raises Unsupported."""

    def __init__(self, package_file: str, model_path: str, threads: int, values: Any) -> None:
        self._library = _library(package_file)
        self._payloads: List[Any] = []
        self._environment = _environment(package_file)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, os.fsencode(model_path))
        self._compiled = self._made("LiteRtCreateCompiledModel", self._environment, self._model, self._options(threads))
        self._signature = self._made("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0))
        self._input, self._output = self._buffer("Input"), self._buffer("Output")
        address = self._made("LiteRtLockTensorBuffer", self._input, after=(WRITE,))
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", self._input)
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        self._tags: List[str] = []
        self._runs: List[List[int]] = []

    def run(self) -> None:
        one, first = ctypes.c_size_t(1), ctypes.c_size_t(0)
        taken, given = ctypes.byref(self._input), ctypes.byref(self._output)  # lists of one
        self._call("LiteRtStartProfiler", self._profiler)
        self._call("LiteRtRunCompiledModel", self._compiled, first, one, taken, one, given)
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
        """``nodes``: the file's, by name and Operator."""
        if any(len(run) != len(self._tags) for run in self._runs):
            raise Unsupported("LiteRT reported %d kernels in one run, and not in another" % len(self._tags))
        owners = np.array(owners_of(self._tags, nodes))
        took_ns = (np.array(self._runs) + 0.5) * 1e3  # whole microseconds: half of one was cut off
        operator_ns = np.zeros((len(took_ns), operators))
        np.add.at(operator_ns.T, owners, took_ns.T)
        return Profiled(operator_ns, np.bincount(owners, minlength=operators), pure=True)

    def close(self) -> None:
        for buffer in (self._input, self._output):
            self._library.LiteRtDestroyTensorBuffer(buffer)
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

    def _buffer(self, side: str) -> Any:
        """What holds the ``Input`` or the ``Output``."""
        first = ctypes.c_size_t(0)
        tensor = self._made("LiteRtGetSignature%sTensorByIndex" % side, self._signature, first)
        kind = (ctypes.c_int32 * 64)()  # more than it takes
        self._call("LiteRtGetRankedTensorType", tensor, kind)
        needs = self._made("LiteRtGetCompiledModel%sBufferRequirements" % side, self._compiled, first, first)
        return self._made("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs)

    def _made(self, name: str, *arguments: Any, **rest: Any) -> Any:
        """What the function gives through its last pointer."""
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
    """One a process: it says in the log what accelerators there are not."""
    environment = Handle()
    status = _library(package_file).LiteRtCreateEnvironment(0, None, ctypes.byref(environment))
    _checked("LiteRtCreateEnvironment", status)
    return environment


def _checked(name: str, status: int) -> None:
    if status != OK:
        raise Unsupported("LiteRT's profiler does not work here: %s gives %d" % (name, status))


def owners_of(tags: Sequence[str], nodes: Sequence[Tuple[str, int]]) -> List[int]:
    """Which Operator each kernel of a run belongs to.

    A kernel that belongs to no node (a change of shape) is counted for the next node, which needs it. Raises
    Unsupported where the kernels are not those of the nodes, one after the other.
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
        raise Unsupported("LiteRT reported kernels that are not the model's: %s" % ", ".join(tags))
    return owners


def _keep(payload: Any) -> None:
    """Options' texts are ours."""


_KEEP = ctypes.CFUNCTYPE(None, Handle)(_keep)
