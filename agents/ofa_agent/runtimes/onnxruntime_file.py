"""Model files of users in ONNX Runtime: any inputs and outputs, and layers as its profiler reports them."""

import json
import re
import shutil
from typing import Any, Dict, List, Tuple

import numpy as np
import onnxruntime as ort

from ofa_agent.inputs import random_values
from ofa_agent.measuring.parts import Profiled
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Layer, Loaded, LoadedLayers, Malformed, Unsupported
from ofa_agent.runtimes.onnxruntime import INPUT_SEED, typed

ENDING = "_kernel_time"  # of the names of kernel events
TOKEN = re.compile(r"_token_\d+")  # makes names unique, with another number each time a model is loaded
LOST_US = 0.5  # the average loss when a time is rounded down to whole microseconds
SIZES = ("activation_size", "parameter_size", "output_size")  # of an event: what a kernel reads and writes, in bytes


class OnnxFile(Loaded):
    """A model with random inputs. ONNX Runtime allocates the outputs in the first run and keeps them."""

    def __init__(self, session: Any, job: Any, device: str = "cpu") -> None:
        inputs = wire.job_inputs(job)
        names = [each.name for each in session.get_inputs()]
        if sorted(names) != sorted(each.name for each in inputs):
            raise Malformed("the model has the inputs %s" % ", ".join(names))
        self._session = session
        self._binding = session.io_binding()
        self._kept: List[Any] = []  # the binding does not keep them
        for number, each in enumerate(inputs):
            values = np.ascontiguousarray(random_values(each, INPUT_SEED + number))
            there = ort.OrtValue.ortvalue_from_numpy(values, device, 0)
            self._binding.bind_ortvalue_input(each.name, there)
            self._kept += [values, there]
        for output in session.get_outputs():
            self._binding.bind_output(output.name, device)

    def run(self) -> object:
        try:
            return self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises no narrower type
            raise typed(error) from None

    def outputs(self) -> List[Any]:
        """Return the outputs of the last run as numpy arrays."""
        return list(self._binding.copy_outputs_to_cpu())


class OnnxFileLayers(OnnxFile, LoadedLayers):
    """A model whose session writes a profile into ``folder``."""

    def __init__(self, session: Any, job: Any, folder: str) -> None:
        super().__init__(session, job)
        self._folder = folder
        self._runs = 0

    def run(self) -> object:
        self._runs += 1
        return super().run()

    def layer_times(self) -> Tuple[List[Layer], Profiled]:
        with open(self._session.end_profiling()) as file:
            return read_layers(json.load(file), self._runs)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def read_layers(events: List[Dict[str, Any]], runs: int) -> Tuple[List[Layer], Profiled]:
    """Return the layers and their times in ``runs`` runs, from the events of a profile. Raises Unsupported."""
    kernels = _outermost([each for each in events if each.get("cat") == "Node" and each["name"].endswith(ENDING)])
    a_run, rest = divmod(len(kernels), runs)
    names = [each["name"] for each in kernels]
    if rest or not a_run or names != names[:a_run] * runs:
        raise Unsupported("onnxruntime executes other layers in some runs than in others")
    layers = [_layer(event) for event in kernels[:a_run]]
    took_us = np.array([event["dur"] for event in kernels], dtype=np.float64).reshape(runs, a_run)
    return layers, Profiled((took_us + LOST_US) * 1e3, np.ones(a_run, dtype=int))


def _layer(event: Dict[str, Any]) -> Layer:
    facts = event.get("args", {})
    moved_bytes = sum(int(facts.get(size, 0)) for size in SIZES)
    return Layer(TOKEN.sub("", event["name"][: -len(ENDING)]), str(facts.get("op_name", "")), moved_bytes)


def _outermost(events: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Leave out the kernels inside others: those of the branches and loops of a model.

    Events are in the order in which kernels ended, so that a kernel comes after those inside it.
    """
    kept: List[Dict[str, Any]] = []
    begin = float("inf")
    for event in reversed(events):
        if event["ts"] + event["dur"] <= begin:
            kept.append(event)
            begin = event["ts"]
    return kept[::-1]
