"""The runtime ``numpy``: executes every operator with numpy. It needs no model file, and reports operator times.

The weights are those that ``seeded`` generates, so the outputs equal those of the other runtimes.
"""

from typing import Any, Callable, List

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from ofa_agent import operators as ops
from ofa_agent.measuring.parts import Profiled
from ofa_agent.measuring.timing import clock_ns
from ofa_agent.operators import Block, Operator, product, seeded, tensor_seed
from ofa_agent.runtimes import LoadedProfiled, Unsupported

Array = Any  # float32, shape (batch, channels, height, width) or (batch, features)
Layer = Callable[[Array], Array]

INPUT_SEED = 1
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def lower(block: Block, batch: int, precision: str) -> List[Any]:
    """Return no model file: the runtime builds the block from its operators."""
    return []


class NumpyRuntime:
    def version(self) -> str:
        return np.__version__

    def load(self, block: Block, job: Any, model_path: str) -> "LoadedBlock":
        return self._load(block, job, profiled=False)

    def load_profiled(self, block: Block, job: Any, model_path: str) -> "LoadedBlock":
        return self._load(block, job, profiled=True)

    def _load(self, block: Block, job: Any, profiled: bool) -> "LoadedBlock":
        if job.settings.precision != "fp32":
            raise Unsupported("runtime numpy supports only fp32")
        threadpool_limits(job.settings.threads)
        return LoadedBlock(block, job.seed, job.settings.batch, profiled)


class LoadedBlock(LoadedProfiled):
    """A block with its weights and input."""

    def __init__(self, block: Block, seed: int, batch: int, profiled: bool) -> None:
        shape = (batch,) + tuple(block.input_shape)
        self._input = seeded(INPUT_SEED, product(shape), 1.0).reshape(shape).copy()
        self._values = self._input.copy()
        self._operators = block.operators
        self._layers = []  # type: List[Layer]
        self._runs = []  # type: List[List[int]]
        self._is_profiled = profiled
        index = 0
        for operator in block.operators:
            parameters = operator.parameters()
            weights = [
                seeded(tensor_seed(seed, index + number), one.size, one.scale).reshape(one.shape)
                for number, one in enumerate(parameters)
            ]
            index += len(parameters)
            self._layers.append(_layer(operator, weights))

    def run(self) -> Array:
        values, clock = [self._input], [clock_ns()]
        for operator, layer in zip(self._operators, self._layers):
            if isinstance(operator, ops.Add):
                values.append(values[-1] + values[operator.value])
            elif isinstance(operator, ops.Take):
                values.append(values[operator.value])
            else:
                values.append(layer(values[-1]))
            clock.append(clock_ns())
        if self._is_profiled:
            self._runs.append(clock)
        return values[-1]

    def warm_input(self) -> None:
        self._input[...] = self._values

    def output(self) -> Array:
        return self.run()

    def operator_times(self) -> Profiled:
        """Return the time of each operator in each run so far, and stop profiling."""
        self._is_profiled = False
        operator_ns = np.diff(np.array(self._runs, dtype=np.float64), axis=1)
        return Profiled(operator_ns, np.ones(operator_ns.shape[1], dtype=int))


def _layer(operator: Operator, weights: List[Array]) -> Layer:
    if isinstance(operator, ops.Conv):
        return lambda x: convolution(x, operator, weights)
    if isinstance(operator, ops.Linear):
        return lambda x: x.reshape(len(x), -1) @ weights[0].T + (weights[1] if operator.bias else 0)
    if isinstance(operator, ops.Activation):
        return ACTIVATIONS[operator.function]
    if isinstance(operator, ops.SqueezeExcite):
        return lambda x: squeeze_excite(x, operator, weights)
    if isinstance(operator, ops.Pool):
        return lambda x: x.mean(axis=(2, 3), keepdims=True)
    if isinstance(operator, ops.MaxPool):
        return lambda x: _windows(x, operator.kernel_size, operator.stride, -np.inf).max(axis=(4, 5))
    if isinstance(operator, ops.AvgPool):
        return lambda x: average(x, operator.size)
    return lambda x: x  # Add and Take are executed by ``run``


def convolution(x: Array, conv: ops.Conv, weights: List[Array]) -> Array:
    if conv.groups == conv.in_channels == conv.out_channels:
        output = _depthwise(x, conv, weights[0])
    else:
        inputs, kernels = np.split(x, conv.groups, axis=1), np.split(weights[0], conv.groups)
        output = np.concatenate([_dense(x, conv, kernel) for x, kernel in zip(inputs, kernels)], axis=1)
    return output + weights[1][:, np.newaxis, np.newaxis] if conv.bias else output


def _dense(x: Array, conv: ops.Conv, kernel: Array) -> Array:
    """Multiply the kernels with a matrix of which each column holds the inputs of one output pixel."""
    if conv.kernel_size == 1:
        columns = x[:, :, :: conv.stride, :: conv.stride]
    else:
        columns = _windows(x, conv.kernel_size, conv.stride, 0).transpose(0, 1, 4, 5, 2, 3)
    pixels = columns.shape[-2:]
    outputs = np.matmul(kernel.reshape(len(kernel), -1), columns.reshape(len(x), -1, pixels[0] * pixels[1]))
    return outputs.reshape((len(x), len(kernel)) + pixels)


def _depthwise(x: Array, conv: ops.Conv, kernel: Array) -> Array:
    """Add the shifted images, each multiplied by its weight."""
    windows = _windows(x, conv.kernel_size, conv.stride, 0)
    output = np.zeros(windows.shape[:4], dtype=x.dtype)
    for row in range(conv.kernel_size):
        for column in range(conv.kernel_size):
            output += windows[..., row, column] * kernel[:, 0, row, column, np.newaxis, np.newaxis]
    return output


def squeeze_excite(x: Array, squeeze: ops.SqueezeExcite, weights: List[Array]) -> Array:
    reduced = convolution(x.mean(axis=(2, 3), keepdims=True), squeeze.reduce, weights[:2])
    gate = convolution(ACTIVATIONS[squeeze.activation](reduced), squeeze.expand, weights[2:])
    return x * ACTIVATIONS[squeeze.gate](gate)


def average(x: Array, size: int) -> Array:
    """Average adjacent windows; incomplete ones at the edges average fewer values."""
    missing = [(0, 0), (0, 0)] + [(0, -length % size) for length in x.shape[2:]]
    padded = np.pad(x, missing, constant_values=np.nan)
    height, width = (length // size for length in padded.shape[2:])
    windows = padded.reshape(x.shape[:2] + (height, size, width, size))
    return np.nanmean(windows, axis=(3, 5), dtype=np.float32)


def _windows(x: Array, size: int, stride: int, edge: float) -> Array:
    """Return (batch, channels, height, width, size, size) windows of the padded image."""
    around = (size // 2, size // 2)  # type: Tuple[int, int]
    padded = np.pad(x, ((0, 0), (0, 0), around, around), constant_values=edge)
    return sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


RUNTIME = NumpyRuntime()
