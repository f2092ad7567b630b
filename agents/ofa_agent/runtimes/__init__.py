"""Runtimes execute a job on this device. One file each, registered here.

Other distributions add theirs through the entry point group ``ofa_agent.runtimes``.

    RuntimeFailure          a typed failure of one trial
    ├── Unsupported         this runtime cannot do it, and will not on another try
    ├── OutOfMemory         it did not fit
    └── Malformed           the model is damaged, or is not the Block's
"""

import importlib
from typing import Any

from ofa_agent import plugins
from ofa_agent.measuring.parts import Profiled
from ofa_agent.protocol import messages as wire

GROUP = "ofa_agent.runtimes"
# Modules of this package, and what in them.
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


class Loaded:
    """A Job ready to run, inputs and outputs in the device's memory. ``run`` is one inference."""

    def run(self) -> object:
        raise NotImplementedError

    def warm_input(self) -> None:
        """Write the input again, as the preceding block would."""

    def close(self) -> None:
        pass


class LoadedProfiled(Loaded):
    """A Job whose runtime takes the time of every Operator while it runs, until it is asked what it took."""

    def operator_times(self) -> Profiled:
        """The operator times of every run so far; later runs are not profiled."""
        raise NotImplementedError


def find(name: str) -> Any:
    """The runtime. Raises Unsupported.

    It has ``version()`` and ``load(block, job, model_path)``; if it can report how long each operator of a block takes
    inside it, also ``load_profiled`` with the same arguments.
    """
    try:
        if name in BUILT_IN:
            module, _, variant = BUILT_IN[name].partition(":")
            return getattr(importlib.import_module(__name__ + "." + module), variant)
        return plugins.others(GROUP)[name].load()
    except KeyError:
        known = ", ".join(sorted([*BUILT_IN, *plugins.others(GROUP)]))
        raise Unsupported("this agent knows no runtime %r; it knows %s" % (name, known)) from None
    except ImportError as error:
        raise Unsupported("runtime %s does not load on this device: %s" % (name.partition("-")[0], error)) from None


def probe() -> Any:
    """Those that load here, and what keeps the others from loading, as the worker's first message."""
    ready = wire.WorkerReady()
    for name in [*BUILT_IN, *plugins.others(GROUP)]:
        try:
            runtime = find(name)
            ready.runtimes[name] = runtime.version()
        except Exception as error:  # a broken installation of one must not hide the others
            ready.missing_runtimes[name] = str(error)
        else:
            ready.profiling_runtimes.extend([name] if hasattr(runtime, "load_profiled") else [])
    return ready
