"""Runtimes: what executes a Block on this device. One file each, registered here.

Other distributions add theirs through the entry point group ``ofa_agent.runtimes`` (Python 3.8 and up).

    RuntimeFailure          a typed failure of one Visit
    ├── Unsupported         this runtime cannot do it, and will not on another try
    ├── OutOfMemory         it did not fit
    └── Malformed           the model is damaged, or is not the Block's
"""

import importlib
from typing import Any, Dict

from ofa_agent import wire
from ofa_agent.parts import Profiled

BUILT_IN = {"onnxruntime": "ofa_agent.runtimes.onnxruntime"}


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
        """Writes the input anew, as the Block before this one would have."""

    def close(self) -> None:
        pass


class LoadedProfiled(Loaded):
    """A Job whose runtime takes the time of every Operator while it runs."""

    def told(self) -> Profiled:
        """What every run took so far; nothing can be run thereafter."""
        raise NotImplementedError


def find(name: str) -> Any:
    """The runtime's module. Raises Unsupported.

    It has ``version()`` and ``load(block, job, model_path)``; where it can tell how long each Operator of a Block takes
    inside it, also ``load_profiled`` with the same arguments.
    """
    try:
        if name in BUILT_IN:
            return importlib.import_module(BUILT_IN[name])
        return _others()[name].load()
    except KeyError:
        known = ", ".join(sorted([*BUILT_IN, *_others()]))
        raise Unsupported("this agent knows no runtime %r; it knows %s" % (name, known)) from None
    except ImportError as error:
        raise Unsupported("runtime %s does not load on this device: %s" % (name, error)) from None


def probe() -> Any:
    """Those that load here, and what keeps the others from loading, as the worker's first message."""
    ready = wire.WorkerReady()
    for name in [*BUILT_IN, *_others()]:
        try:
            runtime = find(name)
            ready.runtimes[name] = runtime.version()
        except Exception as error:  # a broken installation of one must not hide the others
            ready.missing_runtimes[name] = str(error)
        else:
            ready.profiling_runtimes.extend([name] if hasattr(runtime, "load_profiled") else [])
    return ready


def _others() -> Dict[str, Any]:
    try:
        from importlib import metadata  # novm
    except ImportError:  # Python 3.7 and older
        return {}
    points: Any = metadata.entry_points()
    if hasattr(points, "select"):
        chosen = points.select(group="ofa_agent.runtimes")
    else:  # Python 3.9 and older
        chosen = points.get("ofa_agent.runtimes", ())
    return {point.name: point for point in chosen}
