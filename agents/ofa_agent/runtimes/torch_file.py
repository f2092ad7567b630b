"""Files of ``torch.export.save`` in PyTorch, eager or compiled, on the CPU.

Loading such a file executes what is in it. The agent takes trials only from a host with its token.
"""

from typing import Any, List, Tuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ofa_agent.inputs import random_values
from ofa_agent.measuring.parts import Profiled
from ofa_agent.measuring.timing import clock_ns
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Layer, Loaded, LoadedLayers, Malformed, Unsupported
from ofa_agent.runtimes.torch_layers import INPUT_SEED, typed


class TorchFile(Loaded):
    """A program with random inputs; ``mode``: eager or compile."""

    def __init__(self, job: Any, model_path: str, mode: str) -> None:
        if job.settings.precision != "fp32":
            raise Unsupported(
                "a torch.export file has the types of its weights; use --precision fp32 to run it as it is"
            )
        torch.set_num_threads(job.settings.threads)
        program = _loaded(model_path)
        inputs = wire.job_inputs(job)
        values = [torch.from_numpy(random_values(each, INPUT_SEED + at)) for at, each in enumerate(inputs)]
        self._module = program.module()
        try:
            self._arguments, self._named = pytree.tree_unflatten(values, program.call_spec.in_spec)
        except ValueError:
            raise Malformed("the model takes %d inputs, not %d" % (len(program.example_inputs), len(inputs))) from None
        self._call = torch.compile(self._module) if mode == "compile" else self._module

    def run(self) -> object:
        try:
            with torch.no_grad():
                return self._call(*self._arguments, **self._named)
        except RuntimeError as error:
            raise typed(error) from None


class TorchFileLayers(TorchFile, LoadedLayers):
    """A program that is executed operator by operator, with the clock read around each."""

    def __init__(self, job: Any, model_path: str, mode: str) -> None:
        if mode != "eager":
            raise Unsupported("torch.compile fuses the layers, and does not report their times")
        super().__init__(job, model_path, mode)
        self._clocked = _Clocked(self._module)
        self._flat = pytree.tree_leaves((self._arguments, self._named))
        self._call = self._one_by_one

    def layer_times(self) -> Tuple[List[Layer], Profiled]:
        took_ns = np.array(self._clocked.runs, dtype=np.float64)
        layers = [Layer(node.name, _operator(node)) for node in self._clocked.nodes]
        return layers, Profiled(took_ns, np.ones(len(layers), dtype=int), pure=True)

    def _one_by_one(self, *arguments: Any, **named: Any) -> Any:
        self._clocked.runs.append([])
        return self._clocked.run(*self._flat)


class _Clocked(torch.fx.Interpreter):  # type: ignore[misc]
    """Executes a graph and keeps the time of each operator of each run, in ns."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.nodes = [node for node in module.graph.nodes if node.op == "call_function"]
        self.runs: List[List[int]] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        start = clock_ns()
        result = target(*args, **kwargs)
        self.runs[-1].append(clock_ns() - start)
        return result


def _loaded(model_path: str) -> Any:
    if not hasattr(torch, "export") or not hasattr(torch.export, "load"):
        raise Unsupported("torch.export files require PyTorch 2.1; the installed version is %s" % torch.__version__)
    try:
        with open(model_path, "rb") as file:  # without the suffix .pt2, a path is refused
            return torch.export.load(file)
    except RuntimeError as error:
        raise typed(error) from None
    except Exception as error:  # torch raises many kinds
        raise Malformed("PyTorch %s cannot read the file: %s" % (torch.__version__, error)) from None


def _operator(node: Any) -> str:
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]
