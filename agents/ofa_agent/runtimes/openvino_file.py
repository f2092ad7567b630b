"""Model files of users in OpenVINO: any inputs and outputs, and layers as its counters report them."""

import time
from typing import Any, List, Tuple

import numpy as np

from ofa_agent.inputs import random_values
from ofa_agent.measuring.parts import Profiled
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Layer, Loaded, LoadedLayers, Malformed, Unsupported
from ofa_agent.runtimes.openvino import INPUT_SEED, READ_EVERY_S, executed_us, typed
from ofa_agent.runtimes.openvino_counters import Counters

NOT_EXECUTED = ("Const", "Parameter", "Result", "Input", "Output")


class OpenVinoFile(Loaded):
    """A compiled model with random inputs."""

    def __init__(self, compiled: Any, job: Any) -> None:
        from openvino import Tensor

        self._request = compiled.create_infer_request()
        self._values: List[Any] = []
        for at, each in enumerate(wire.job_inputs(job)):
            values = np.ascontiguousarray(random_values(each, INPUT_SEED + at))
            try:
                self._request.set_tensor(each.name, Tensor(values, shared_memory=True))
            except RuntimeError as error:
                raise Malformed("input %s of the model: %s" % (each.name, error)) from None
            self._values.append(values)

    def run(self) -> object:
        try:
            return self._request.infer(share_outputs=True)  # otherwise each run copies the outputs
        except Exception as error:  # memory may run out only now
            raise typed(error) from None


class OpenVinoFileLayers(OpenVinoFile, LoadedLayers):
    """A model that was compiled with counters."""

    def __init__(self, compiled: Any, job: Any) -> None:
        super().__init__(compiled, job)
        self._layers = _executed(compiled)
        owners = {layer.name: at for at, layer in enumerate(self._layers)}
        self._counters = Counters(owners, len(self._layers))
        self._runs = 0
        self._read_at = 0.0

    def run(self) -> object:
        result = super().run()
        self._runs += 1
        if time.perf_counter() - self._read_at >= READ_EVERY_S:
            self._read()
        return result

    def layer_times(self) -> Tuple[List[Layer], Profiled]:
        self._read()
        times = self._counters.profiled()
        if not times.operator_ns.any():
            raise Unsupported("OpenVINO reports no kernel of 1 µs or more")
        return self._layers, times

    def _read(self) -> None:
        self._counters.add(self._runs, executed_us(self._request))
        self._read_at = time.perf_counter()


def _executed(compiled: Any) -> List[Layer]:
    """Return the nodes of a compiled model in order of execution."""
    nodes: List[Tuple[int, Layer]] = []
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        kind = str(facts["layerType"].value) if "layerType" in facts else node.get_type_name()
        order = int(facts["execOrder"].value) if "execOrder" in facts else 0
        if kind not in NOT_EXECUTED:
            nodes.append((order, Layer(node.get_friendly_name(), kind)))
    return [layer for _, layer in sorted(nodes)]
