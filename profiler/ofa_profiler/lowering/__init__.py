"""Lower operators and weights to model formats. One file per format, registered by runtime.

Other distributions add theirs through the entry point group ``ofa_profiler.lowering``: a function from a Block, a batch
size and a precision to the Model's chunks; no chunks where the Runtime needs no model.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ofa_agent.commands.template import parse_text
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_profiler.lowering import conversion, onnx, tflite
from ofa_tables import plugins


@dataclass(frozen=True)
class Model:
    """A model file in transit: literal bytes, and seeds from which the agent generates the weights."""

    model_id: str
    chunks: tuple[wire.ModelChunk, ...]


def _none(block: Block, batch: int, precision: str) -> list[wire.ModelChunk]:
    """For a runtime that builds the block from its operators."""
    return []


def _float_onnx(block: Block, batch: int, precision: str) -> list[wire.ModelChunk]:
    """For command templates: their tools convert and quantise the model themselves."""
    return onnx.lower(block, batch)


_BUILT_IN: dict[str, Callable[[Block, int, str], list[wire.ModelChunk]]] = {
    "onnx": _float_onnx,
    "onnxruntime": onnx.lower,
    "onnxruntime-cuda": onnx.lower_for_cuda,
    "onnxruntime-tensorrt": onnx.lower_for_tensorrt,
    **dict.fromkeys(("openvino", "openvino-gpu", "openvino-npu"), onnx.lower),
    **dict.fromkeys(("torch", "torch-script", "torch-compile"), _none),
    **dict.fromkeys(("torch-cuda", "torch-cuda-script", "torch-cuda-compile", "torch-cuda-graph"), _none),
    **dict.fromkeys(("tflite", "tflite-gpu"), tflite.lower),
    **dict.fromkeys(("benchmark_model", "benchmark_model-none", "benchmark_model-gpu"), tflite.lower),
    **dict.fromkeys(("benchmark_model-nnapi", "benchmark_model-hexagon"), tflite.lower),
}


def lower(runtime: str, block: Block, batch: int, precision: str = "fp32", command: str = "") -> Model:
    """The model file of ``block`` for ``runtime``. Raises UnknownName for a runtime without a model format.

    The runtimes ``command:NAME`` need ``command``, their template as JSON.
    """
    template = parse_text(command) if command else None
    kind = template.model if template else runtime
    chunks = wire.merged(plugins.find("runtime", "ofa_profiler.lowering", kind, _BUILT_IN)(block, batch, precision))
    if template and template.convert and template.convert_on == "host":
        chunks = conversion.converted(template, chunks, batch, precision)
    return Model(wire.model_id_of(chunks) if chunks else "", tuple(chunks))
