"""Runtimes, which execute jobs on this device. One file per runtime, registered here.

Other distributions register runtimes in the entry point group ``ofa_agent.runtimes``.

    RuntimeFailure          a typed failure of one trial
    ├── Unsupported         this runtime cannot run the job; a retry does not help
    ├── OutOfMemory         the job does not fit into memory
    └── Malformed           the model is damaged or belongs to another block
"""

import importlib
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from ofa_agent import plugins
from ofa_agent.commands.template import PREFIX
from ofa_agent.measuring.parts import Profiled
from ofa_agent.measuring.timing import Burst
from ofa_agent.protocol import messages as wire

GROUP = "ofa_agent.runtimes"
# Runtime name to module of this package and variable in it.
BUILT_IN = {
    "onnxruntime": "onnxruntime:cpu",
    "onnxruntime-cuda": "onnxruntime:cuda",
    "onnxruntime-tensorrt": "onnxruntime:tensorrt",
    "torch": "torch:cpu",
    "torch-script": "torch:script",
    "torch-compile": "torch:compiled",
    "torch-cuda": "torch:cuda",
    "torch-cuda-script": "torch:cuda_script",
    "torch-cuda-compile": "torch:cuda_compiled",
    "torch-cuda-graph": "torch:cuda_graph",
    "openvino": "openvino:cpu",
    "openvino-gpu": "openvino:gpu",
    "openvino-npu": "openvino:npu",
    "tflite": "tflite:cpu",
    "tflite-gpu": "tflite:gpu",
}


class RuntimeFailure(Exception):
    status = "crashed"


class Unsupported(RuntimeFailure):
    status = "unsupported"


class OutOfMemory(RuntimeFailure):
    status = "out-of-memory"


class Malformed(RuntimeFailure):
    status = "malformed"


class DeviceTimes(NamedTuple):
    """Of one run on a GPU, in ns: how long the GPU is busy, and how long the host takes to launch the kernels."""

    device_ns: float
    launch_ns: float


class Loaded:
    """A job that is ready to run, with input and output in device memory.

    ``run`` executes one inference and returns when the device has finished. A job on a GPU may also have
    ``device_times``, which returns DeviceTimes.
    """

    def run(self) -> object:
        raise NotImplementedError

    def warm_input(self) -> None:
        """Write the input again, as the preceding block does in a network."""

    def chill(self, others_bytes: int) -> None:
        """Put the caches into the state of a block in a network: weights cold, input warm.

        ``others_bytes`` of other data are read before the input is written.
        """
        if self._others is None:
            self._others = np.ones(others_bytes // 8)
        self._others.sum()
        self.warm_input()

    _others: Any = None

    def close(self) -> None:
        pass


class SelfTimed(Loaded):
    """A job that a tool runs and times itself: ``burst`` replaces ``run``.

    If ``in_one_run`` is true, the burst that reports operator times is also that of the whole job.
    """

    in_one_run = False

    def burst(self) -> Burst:
        raise NotImplementedError


class LoadedProfiled(Loaded):
    """A job whose runs are profiled operator by operator until ``operator_times`` is called."""

    def operator_times(self) -> Profiled:
        """Return the operator times of all runs so far and stop profiling."""
        raise NotImplementedError


class Layer(NamedTuple):
    """A layer of a model file as the runtime executes it; ``moved_bytes`` that it reads and writes, 0 if unknown."""

    name: str
    operator: str
    moved_bytes: int = 0


class LoadedLayers(Loaded):
    """A model file whose runs are timed layer by layer until ``layer_times`` is called."""

    def layer_times(self) -> Tuple[List[Layer], Profiled]:
        """Return the layers in order of execution, and their times in all runs so far."""
        raise NotImplementedError


def find(name: str, command: str = "") -> Any:
    """Return the runtime with this name. Raises Unsupported.

    The runtimes ``command:NAME`` run ``command``, the JSON text of a command template.

    A runtime has ``version()`` and ``load(block, job, model_path)``. If it can report operator times, it also has
    ``load_profiled`` with the same arguments. If it reads model files of users, it has ``load_file(job, model_path)``,
    and if it can time their layers ``load_file_layers``, which returns LoadedLayers.
    """
    try:
        if name.startswith(PREFIX):
            return importlib.import_module(__name__ + ".command").CommandRuntime(command)
        if name in BUILT_IN:
            module, _, variant = BUILT_IN[name].partition(":")
            return getattr(importlib.import_module(__name__ + "." + module), variant)
        return plugins.others(GROUP)[name].load()
    except KeyError:
        known = ", ".join(sorted([*BUILT_IN, *plugins.others(GROUP)]))
        raise Unsupported("this agent has no runtime %r; it has %s" % (name, known)) from None
    except ImportError as error:
        raise Unsupported("runtime %s does not load on this device: %s" % (name.partition("-")[0], error)) from None


def probe() -> Any:
    """Return the first message of the worker: the runtimes that load, and the reasons why others do not."""
    ready = wire.WorkerReady()
    for name in [*BUILT_IN, *plugins.others(GROUP)]:
        try:
            runtime = find(name)
            ready.runtimes[name] = runtime.version()
        except Exception as error:  # a broken installation must not hide the other runtimes
            ready.missing_runtimes[name] = str(error)
        else:
            ready.profiling_runtimes.extend([name] if hasattr(runtime, "load_profiled") else [])
    return ready
