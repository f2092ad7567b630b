"""Model files of users in TFLite: any inputs and outputs, and layers as LiteRT's profiler reports them."""

from typing import Any, List, Optional, Tuple

import numpy as np

from ofa_agent.inputs import random_values
from ofa_agent.measuring.parts import Profiled
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Layer, Loaded, LoadedLayers, Malformed, Unsupported, litert_profiler
from ofa_agent.runtimes.tflite import INPUT_SEED, typed


class TfliteFile(Loaded):
    """A model with random inputs."""

    def __init__(self, interpreter: Any, job: Any) -> None:
        details, inputs = interpreter.get_input_details(), wire.job_inputs(job)
        takes = [(each["name"], np.dtype(each["dtype"]).name, tuple(map(int, each["shape"]))) for each in details]
        if takes != [(each.name, each.kind, each.shape) for each in inputs]:
            described = ", ".join("%s %s %s" % taken for taken in takes)
            raise Malformed("the model takes %s, which differs from the job" % described)
        self._interpreter = interpreter
        self.values = [np.ascontiguousarray(random_values(each, INPUT_SEED + at)) for at, each in enumerate(inputs)]
        for each, values in zip(details, self.values):
            interpreter.set_tensor(each["index"], values)
        # Bypasses Interpreter.invoke, which first checks for references to tensor memory.
        self._invoke = getattr(getattr(interpreter, "_interpreter", None), "Invoke", interpreter.invoke)

    def run(self) -> object:
        try:
            return self._invoke()
        except Exception as error:  # ValueError or RuntimeError; only the text distinguishes the causes
            raise typed(error) from None


class TfliteFileLayers(TfliteFile, LoadedLayers):
    """Runs a profiled copy of the model."""

    def __init__(self, interpreter: Any, job: Any, model_path: str, package_file: str) -> None:
        super().__init__(interpreter, job)
        if any(tuple(each["shape"]) != tuple(abs(each["shape_signature"])) for each in interpreter.get_input_details()):
            raise Unsupported("the LiteRT profiler does not time the layers of a model with open shapes")
        profiled = litert_profiler.ProfiledModel(package_file, model_path, job.settings.threads, self._values_of)
        self._profiled: Optional[litert_profiler.ProfiledModel] = profiled

    def run(self) -> object:
        assert self._profiled
        self._profiled.run()
        return None

    def layer_times(self) -> Tuple[List[Layer], Profiled]:
        """Return the nodes of the model with their times; the kernels, if they cannot be assigned to nodes."""
        assert self._profiled
        tags, took_ns = self._profiled.kernel_times()
        nodes = self._nodes()
        try:
            owners = litert_profiler.owners_of(tags, [(layer.operator, at) for at, layer in enumerate(nodes)])
        except Unsupported:
            return [Layer(tag, "") for tag in tags], Profiled(took_ns, np.ones(len(tags), dtype=int), pure=True)
        node_ns = np.zeros((len(took_ns), len(nodes)))
        np.add.at(node_ns.T, np.array(owners), took_ns.T)
        executed = np.unique(owners)
        return [nodes[at] for at in executed], Profiled(
            node_ns[:, executed], np.ones(len(executed), dtype=int), pure=True
        )

    def close(self) -> None:
        if self._profiled:
            self._profiled.close()
            self._profiled = None

    def _values_of(self, name: str) -> Any:
        """Return the values of an input by its name in the first signature. Raises Unsupported."""
        signatures = self._interpreter._get_full_signature_list()
        tensors = next(iter(signatures.values()))["inputs"] if signatures else {}
        for details, values in zip(self._interpreter.get_input_details(), self.values):
            if details["index"] == tensors.get(name) or details["name"] == name:
                return values
        raise Unsupported("the LiteRT profiler names an input %r, which the model does not have" % name)

    def _nodes(self) -> List[Layer]:
        """Return the nodes of the model, named after their outputs."""
        names = {tensor["index"]: tensor["name"] for tensor in self._interpreter.get_tensor_details()}
        return [
            Layer(names.get(node["outputs"][0], ""), node["op_name"])
            for node in self._interpreter._get_ops_details()
            if node["op_name"] != "DELEGATE" and len(node["outputs"])
        ]
