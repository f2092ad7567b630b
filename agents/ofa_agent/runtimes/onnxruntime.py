"""ONNX Runtime on the CPU, from 1.10 to today's."""

from typing import Any

import numpy as np
import onnxruntime as ort

from ofa_agent.operators import Block, product, seeded
from ofa_agent.runtimes import Loaded, Malformed, OutOfMemory, Unsupported

INPUT_SEED = 1


def version() -> str:
    return str(ort.__version__)


def load(block: Block, job: Any, model_path: str) -> Loaded:
    settings = job.settings
    if settings.precision != "fp32":
        raise Unsupported("runtime onnxruntime measures fp32 here, not %s" % settings.precision)
    if not model_path:
        raise Malformed("runtime onnxruntime reads a model, and the Job names none")
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
        return _OnnxLoaded(session, block, settings.batch)
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise _typed(error) from None


class _OnnxLoaded(Loaded):
    def __init__(self, session: Any, block: Block, batch: int) -> None:
        shape = (batch,) + block.input_shape
        values = seeded(INPUT_SEED, product(shape), 1.0).reshape(shape)
        self._values = values
        self._input = values.copy()
        self._output = ort.OrtValue.ortvalue_from_numpy(np.empty((batch,) + block.output_shape, np.float32))
        self._session = session
        self._binding = session.io_binding()
        name = session.get_inputs()[0].name
        self._binding.bind_input(name, "cpu", 0, np.float32, shape, self._input.ctypes.data)
        self._binding.bind_ortvalue_output(session.get_outputs()[0].name, self._output)

    def run(self) -> object:
        try:
            return self._session.run_with_iobinding(self._binding)
        except Exception as error:  # memory may be short only now
            raise _typed(error) from None

    def warm_input(self) -> None:
        np.copyto(self._input, self._values)

    def output(self) -> Any:
        """What the last run gave, as a numpy array."""
        return self._output.numpy()


def _typed(error: Exception) -> Exception:
    text = str(error)
    if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return OutOfMemory(text)
    if "NOT_IMPLEMENTED" in text or "opset" in text or "IR version" in text or "INVALID_GRAPH" in text:
        return Unsupported(text)
    if "INVALID_PROTOBUF" in text or "INVALID_ARGUMENT" in text or "invalid dimensions" in text:
        return Malformed(text)
    return error
