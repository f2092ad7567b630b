"""Blocks as PyTorch layers with seeded weights, in channels-last memory format."""

from functools import partial
from operator import add
from typing import Any, Callable, List

import numpy as np
import torch

from ofa_agent import operators as ops
from ofa_agent.measuring.parts import Profiled
from ofa_agent.measuring.timing import clock_ns
from ofa_agent.operators import Block, product, seeded, tensor_seed
from ofa_agent.runtimes import Loaded, LoadedProfiled, OutOfMemory, RuntimeFailure, Unsupported

INPUT_SEED = 1
# Precision to the type of values. tf32 rounds them inside convolutions and products.
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ACTIVATIONS = {
    "relu": torch.nn.ReLU,
    "relu6": torch.nn.ReLU6,
    "hard_swish": torch.nn.Hardswish,
    "hard_sigmoid": torch.nn.Hardsigmoid,
    "swish": torch.nn.SiLU,
    "sigmoid": torch.nn.Sigmoid,
}


def load(block: Block, job: Any, device: str, mode: str, profiled: bool = False) -> Any:
    """Load a block; ``mode``: eager, script, compile or graph. Raises RuntimeFailure.

    If ``profiled``, its runs are timed operator by operator.
    """
    kinds: Any = (CpuLoaded, CpuProfiled)
    if device == "cuda":
        from ofa_agent.runtimes.torch_cuda import CudaLoaded, CudaProfiled

        kinds = CudaLoaded, CudaProfiled
    try:
        return kinds[profiled](_module(block, job, device), block, job, mode)
    except RuntimeError as error:
        raise typed(error) from None


def _module(block: Block, job: Any, device: str) -> "TorchBlock":
    precision = job.settings.precision
    if precision not in DTYPES or (precision != "fp32" and device == "cpu"):
        raise Unsupported("runtime %s does not support %s on %s" % (job.settings.runtime, precision, device))
    torch.set_num_threads(job.settings.threads)
    torch.backends.cudnn.benchmark = True  # selects algorithms during the warm-up
    # Without this, PyTorch computes convolutions of fp32 values with 10 bits of mantissa on GPUs since 2020.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    module = TorchBlock(block, job.seed).eval().to(device, memory_format=torch.channels_last)
    return module.to(DTYPES[precision])


class TorchBlock(torch.nn.Module):  # type: ignore[misc]
    """A block as PyTorch layers, with the same weights as in its model files."""

    def __init__(self, block: Block, seed: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(_layer(operator) for operator in block.operators)
        self.added = [operator.value if isinstance(operator, ops.Add) else -1 for operator in block.operators]
        self.taken = [operator.value if isinstance(operator, ops.Take) else -1 for operator in block.operators]
        index = 0
        for operator, layer in zip(block.operators, self.layers):
            for parameter, tensor in zip(operator.parameters(), layer.parameters()):
                values = seeded(tensor_seed(seed, index), parameter.size, parameter.scale)
                tensor.data = torch.from_numpy(values.reshape(tuple(tensor.shape)).copy())
                tensor.requires_grad_(False)
                index += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for index, layer in enumerate(self.layers):
            added = self.added[index]
            values.append(values[added] + values[-1] if added >= 0 else layer(values[self.taken[index]]))
        return values[-1]

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def run_layers(self, x: torch.Tensor, around: Callable[[int, Callable[[], Any]], Any]) -> Any:
        """Do the same as ``forward``, with ``around(index, execute)`` for each operator (not in TorchScript)."""
        values = [x]
        for index, layer in enumerate(self.layers):
            added, taken = self.added[index], self.taken[index]
            execute = partial(add, values[added], values[-1]) if added >= 0 else partial(layer, values[taken])
            values.append(around(index, execute))
        return values[-1]


def in_mode(module: TorchBlock, mode: str) -> Any:
    """Return the module as the mode executes it."""
    if mode == "script":
        with torch.no_grad():
            return torch.jit.freeze(torch.jit.script(module))
    return torch.compile(module) if mode == "compile" else module


class SqueezeExcite(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, squeeze: ops.SqueezeExcite) -> None:
        super().__init__()
        self.reduce = torch.nn.Conv2d(squeeze.channels, squeeze.reduced_channels, 1)
        self.activation = ACTIVATIONS[squeeze.activation]()
        self.expand = torch.nn.Conv2d(squeeze.reduced_channels, squeeze.channels, 1)
        self.gate = ACTIVATIONS[squeeze.gate]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.activation(self.reduce(pooled))))


class TorchLoaded(Loaded):
    """A block with its input on a device. ``_call`` executes it."""

    def __init__(self, module: Any, block: Block, job: Any, device: str) -> None:
        shape = (job.settings.batch,) + block.input_shape
        values = torch.from_numpy(seeded(INPUT_SEED, product(shape), 1.0).reshape(shape).copy())
        self._input = values.to(device, DTYPES[job.settings.precision])
        if len(shape) == 4:
            self._input = self._input.contiguous(memory_format=torch.channels_last)
        self._values = self._input.clone()
        self._module = module
        self._call: Callable[[], Any] = self._plain

    def run(self) -> object:
        try:
            with torch.no_grad():
                return self._call()
        except RuntimeError as error:
            raise typed(error) from None

    def warm_input(self) -> None:
        self._input.copy_(self._values)

    def output(self) -> Any:
        """Run once and return the output as a numpy array."""
        return np.asarray(self.run().float().cpu())  # type: ignore[attr-defined]

    def _plain(self) -> Any:
        return self._module(self._input)


class CpuLoaded(TorchLoaded):
    """A block on the CPU; ``mode``: eager, script or compile."""

    def __init__(self, module: TorchBlock, block: Block, job: Any, mode: str) -> None:
        super().__init__(in_mode(module, mode), block, job, "cpu")


class CpuProfiled(CpuLoaded, LoadedProfiled):
    """A block that reads the clock after every operator until ``operator_times`` is called."""

    def __init__(self, module: TorchBlock, block: Block, job: Any, mode: str) -> None:
        super().__init__(module, block, job, mode)
        self._runs: List[List[int]] = []
        self._call = self._timed

    def _timed(self) -> Any:
        module, values, clock = self._module, [self._input], [clock_ns()]
        for layer, added, taken in zip(module.layers, module.added, module.taken):
            values.append(values[added] + values[-1] if added >= 0 else layer(values[taken]))
            clock.append(clock_ns())
        self._runs.append(clock)
        return values[-1]

    def operator_times(self) -> Profiled:
        operator_ns = np.diff(np.array(self._runs, dtype=np.float64), axis=1)
        self._call = self._plain
        return Profiled(operator_ns, np.ones(operator_ns.shape[1], dtype=int))


def _layer(operator: ops.Operator) -> torch.nn.Module:
    if isinstance(operator, ops.Conv):
        return torch.nn.Conv2d(
            operator.in_channels,
            operator.out_channels,
            operator.kernel_size,
            stride=operator.stride,
            padding=operator.kernel_size // 2,
            groups=operator.groups,
            bias=operator.bias,
        )
    if isinstance(operator, ops.Linear):
        linear = torch.nn.Linear(operator.in_features, operator.out_features, bias=operator.bias)
        return torch.nn.Sequential(torch.nn.Flatten(), linear)
    if isinstance(operator, ops.SqueezeExcite):
        return SqueezeExcite(operator)
    if isinstance(operator, ops.Pool):
        return torch.nn.AdaptiveAvgPool2d(1)
    if isinstance(operator, ops.MaxPool):
        return torch.nn.MaxPool2d(operator.kernel_size, stride=operator.stride, padding=operator.kernel_size // 2)
    if isinstance(operator, ops.AvgPool):
        return torch.nn.AvgPool2d(operator.size, ceil_mode=True)
    if isinstance(operator, ops.Activation):
        return ACTIVATIONS[operator.function]()
    return torch.nn.Identity()  # Add and Take are executed by TorchBlock


def typed(error: RuntimeError) -> Exception:
    """Return an error of PyTorch as a typed failure; itself if its text does not say what failed."""
    if isinstance(error, RuntimeFailure):
        return error
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "out of memory" in text or "can't allocate memory" in text:
        return OutOfMemory(text)
    if "not implemented for 'Half'" in text or "not supported" in text:
        return Unsupported(text)
    return error
