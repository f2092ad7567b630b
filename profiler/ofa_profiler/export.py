"""Export of one network of a supernet to a file to deploy.

The network is lowered as for a measurement, with trained weights instead of random ones and batch norm folded into the
convolutions. Before the file is written, its outputs are compared with those of the supernet. The file describes its
input in ONNX metadata_props, TFLite metadata, or TorchScript extra files. Needs torch.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_agent import operators as ops
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_nas.normalisation import Channels
from ofa_nas.spaces import Architecture
from ofa_nas.spaces.space import network_key
from ofa_nas.supernet import PlainNetwork, Supernet, estimated
from ofa_nas.training.data import VALUES, Data, evaluation_batches, loader
from ofa_nas.training.evaluation import statistics_batches
from ofa_nas.training.processes import Processes
from ofa_profiler.lowering import onnx, onnx_int8, tflite
from ofa_tables.errors import OfaError, UnknownName, UsageError
from ofa_tables.store.files import replacing

FORMATS = ("onnx", "tflite", "torch")
PRECISIONS = {"onnx": ("fp32", "int8"), "tflite": ("fp32", "fp16"), "torch": ("fp32",)}
# Largest allowed difference from the supernet's logits, relative to the largest logit.
# Quantisation may change outputs by any amount, which the accuracy shows; before it, a network is compared in fp32.
BOUNDS = {"fp32": 1e-3, "fp16": 2e-2, "int8": math.inf}
CHECKED, SEED = 64, 7
CALIBRATION_IMAGES = 256  # training images that determine the ranges of int8 activations

Array = np.ndarray[Any, np.dtype[Any]]
Runner = Callable[[Array], Array]


@dataclass(frozen=True)
class Input:
    """Input images of an exported file: float32 RGB of the given ``shape``.

    ``mean`` and ``std`` are per channel, for values 0…1; the network does not normalise. They are None if neither the
    checkpoint nor the data has them. ``values`` describes the pixel values before normalisation. ``classes`` are the
    names of the logits, or None.
    """

    layout: str
    shape: tuple[int, ...]
    values: str
    mean: Channels | None
    std: Channels | None
    classes: tuple[str, ...] | None

    @classmethod
    def of(cls, supernet: Supernet, px: int, format: str, batch: int, data: Data | None) -> "Input":
        layout, shape = ("NHWC", (batch, px, px, 3)) if format == "tflite" else ("NCHW", (batch, 3, px, px))
        mean, std = supernet.normalisation or (data.train.normalisation if data else (None, None))
        classes = supernet.class_names or (data.classes if data else None)
        return cls(layout, shape, data.values if data else VALUES, mean, std, classes)

    def __str__(self) -> str:
        normalised = "normalised as in training"
        if self.mean is not None and self.std is not None:
            mean, std = (", ".join(f"{value:.4g}" for value in of_channels) for of_channels in (self.mean, self.std))
            normalised = f"(value / 255 - mean) / std with mean {mean} and std {std}, value {self.values}"
        return f"float32 RGB, {self.layout} {self.shape}, {normalised}"


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    ``largest_difference`` is that of the logits from the supernet's, relative to the largest logit. ``same_top1`` is
    the share of images for which both predict the same class. Accuracies, 0…1, are on held-out images; None without
    data.
    """

    file: str
    format: str
    space: str
    architecture: Architecture
    input: Input
    bytes: int
    macs: int
    parameters: int
    largest_difference: float
    same_top1: float
    accuracy: float | None
    supernet_accuracy: float | None


def export(
    supernet: Supernet,
    architecture: Architecture,
    format: str,
    out: Path,
    data: Data | None,
    statistics_images: int,
    images: int,
    batch: int,
    precision: str,
) -> Exported:
    """Export a network to ``out``. Raises OfaError, and writes nothing, if the outputs differ from the supernet's."""
    _check_precision(format, precision, data)
    if data is not None and len(data.held_out) < batch:
        raise UsageError(f"{data.name} has {len(data.held_out)} held-out images, fewer than a batch of {batch}")
    taken = Input.of(supernet, architecture.resolution_px, format, batch, data)
    with _evaluated(supernet, architecture, data, statistics_images):
        network = supernet.extract(architecture)
        metadata = _metadata(supernet, architecture, taken)
        if precision == "int8":
            runner = _runner(_content(network, format, batch, "fp32", metadata, data), format)
            _check(_compared(supernet, architecture, runner, data, min(images, CHECKED), batch), format, "fp32", out)
        content = _content(network, format, batch, precision, metadata, data)
        found = _compared(supernet, architecture, _runner(content, format), data, images, batch)
        _check(found, format, precision, out)
    with replacing(out) as file:
        file.write(content)
    block = _block(network)
    return Exported(
        str(out),
        format,
        supernet.space.name,
        architecture,
        taken,
        len(content),
        block.macs,
        block.parameters,
        found.largest_difference,
        found.same_top1,
        found.accuracy,
        found.supernet_accuracy,
    )


def _check_precision(format: str, precision: str, data: Data | None) -> None:
    """Raise OfaError for a format or a precision that cannot be exported."""
    if format not in FORMATS:
        raise UnknownName("format", format, FORMATS)
    if precision not in PRECISIONS[format]:
        raise UsageError(
            f"{format} cannot be exported in {precision}; use fp32, or fp16 with tflite, or int8 with onnx"
        )
    if precision == "int8" and data is None:
        raise UsageError("int8 needs images that determine the ranges of the activations; add --data")


def _evaluated(
    supernet: Supernet, architecture: Architecture, data: Data | None, images: int
) -> AbstractContextManager[None]:
    """Use batch-norm statistics of the sub-network inside the context, if data is available to estimate them."""
    supernet.eval()
    if data is None:
        return nullcontext()
    one = Processes(0, 1, torch.device("cpu"))
    statistics = statistics_batches(data.train, images, architecture.resolution_px, 0, one)
    return estimated(supernet, lambda x: supernet(x, architecture), statistics)


def _metadata(supernet: Supernet, architecture: Architecture, taken: Input) -> dict[str, str]:
    """Return the metadata of the file: text, and values as JSON."""
    known = {"mean": taken.mean, "std": taken.std, "classes": taken.classes, "architecture": architecture.to_json()}
    values = {name: json.dumps(value) for name, value in known.items() if value is not None}
    return {"input": str(taken), "space": supernet.space.name, **values}


def _content(
    network: PlainNetwork, format: str, batch: int, precision: str, metadata: dict[str, str], data: Data | None
) -> bytes:
    if format == "torch":
        return _torchscript(network, batch, metadata)
    block, source = _block(network), _weights(network)
    if format == "onnx":
        ranges = _ranges(block, source, data) if precision == "int8" and data else None
        return wire.model_bytes(onnx.lower(block, batch, precision, source, metadata, ranges), source)
    return wire.model_bytes(tflite.lower(block, batch, precision, source, metadata), source)


def _ranges(block: Block, source: wire.Source, data: Data) -> onnx_int8.Ranges:
    """Return the ranges of the activations over training images."""
    one = Processes(0, 1, torch.device("cpu"))
    batches = statistics_batches(data.train, CALIBRATION_IMAGES, block.input_shape[-1], SEED, one)
    images = (images[at : at + 1].numpy() for images in batches for at in range(len(images)))
    return onnx_int8.ranges_of(onnx.graph_of(block, 1), source, images)


def _weights(network: PlainNetwork) -> wire.Source:
    """Return a source of the trained tensors by the seeds that identify them."""
    seed = _block(network).seed
    tensors = {ops.tensor_seed(seed, index): tensor for index, tensor in enumerate(network.folded())}
    return lambda seed, length, scale: tensors[seed].ravel().astype("<f4")


def _block(network: PlainNetwork) -> Block:
    return ops.concatenate(network_key(network.blocks), network.blocks)


def _torchscript(network: PlainNetwork, batch: int, metadata: dict[str, str]) -> bytes:
    """Return a TorchScript file, which needs only torch to load."""
    folded = deepcopy(network).fold()
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(folded, torch.zeros(batch, *network.blocks[0].input_shape)))
    content = BytesIO()
    torch.jit.save(traced, content, _extra_files=metadata)
    return content.getvalue()


# Running the exported file.


def _runner(content: bytes, format: str) -> Runner:
    """Return a function from images (batch, 3, px, px) float32 to logits (batch, classes).

    Raises UsageError if the runtime is not installed.
    """
    return {"onnx": _onnx_runner, "tflite": _tflite_runner, "torch": _torch_runner}[format](content)


def _onnx_runner(content: bytes) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"x": images})[0]


def _tflite_runner(content: bytes) -> Runner:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UsageError("checking a TFLite file needs TFLite; pip install 'ofa-profile[tflite]'") from None
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Array) -> Array:
        interpreter.set_tensor(taken["index"], np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        return interpreter.get_tensor(given["index"]).copy()

    return run


def _torch_runner(content: bytes) -> Runner:
    loaded = torch.jit.load(BytesIO(content))
    return lambda images: loaded(torch.from_numpy(images)).numpy()


@dataclass(frozen=True)
class _Comparison:
    largest_difference: float
    same_top1: float
    accuracy: float | None
    supernet_accuracy: float | None


def _check(found: _Comparison, format: str, precision: str, out: Path) -> None:
    """Raise OfaError if the outputs of a file differ from the supernet's by more than the bound of the precision."""
    if not found.largest_difference <= BOUNDS[precision]:  # it may be NaN
        raise OfaError(
            f"the {format} file differs from the supernet by {found.largest_difference:.2g} of the largest logit, more "
            f"than the rounding error {BOUNDS[precision]:g}; {out} is not written"
        )


@torch.no_grad()
def _compared(
    supernet: Supernet, architecture: Architecture, runner: Runner, data: Data | None, images: int, batch: int
) -> _Comparison:
    """Compare the file with the supernet on held-out images, or on random ones without data."""
    expected, found, truth = [], [], []
    for pixels, labels in _images(architecture.resolution_px, data, images, batch):
        expected.append(supernet(torch.from_numpy(pixels), architecture).numpy())
        found.append(runner(pixels))
        truth.append(labels)
    ours, theirs, labels = np.concatenate(found), np.concatenate(expected), np.concatenate(truth)
    accuracies: Sequence[float | None] = (None, None)
    if data is not None:
        accuracies = [float((logits.argmax(1) == labels).mean()) for logits in (ours, theirs)]
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    same = float((ours.argmax(1) == theirs.argmax(1)).mean())
    return _Comparison(difference, same, *accuracies)


def _images(px: int, data: Data | None, count: int, batch: int) -> Iterator[tuple[Array, Array]]:
    """Yield (images, labels) in full batches only: deployed models have a fixed batch size."""
    if data is None:
        rng = np.random.default_rng(SEED)
        for _ in range(-(-CHECKED // batch)):
            yield rng.standard_normal((batch, 3, px, px)).astype(np.float32), np.zeros(batch, dtype=np.int64)
        return
    held_out = data.held_out.subset(range(min(max(count, batch), len(data.held_out))))
    for draws in evaluation_batches(held_out, px=px, batch_size=batch):
        if len(draws) == batch:
            (found,) = loader(held_out, [draws])
            yield found.images.contiguous().numpy(), found.labels.numpy()
