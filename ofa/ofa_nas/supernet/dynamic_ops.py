"""Operators that use the first of their channels and the centre of their kernels.

Modules and parameters have the names of the published checkpoints.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_nas.spaces.parts import make_divisible
from ofa_nas.supernet.batch_norm import BatchNorm
from ofa_nas.supernet.convolutions import convolution, depthwise

SQUEEZE = 4  # mid channels per hidden unit of a squeeze-excite


class DynamicConv(nn.Module):
    """Convolution, weight [out, in, k, k]: the first ``out_channels`` of its outputs."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)

    def active(self, in_channels: int, out_channels: int) -> Tensor:
        return self.conv.weight[:out_channels, :in_channels]

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        return convolution(self.conv, x, self.active(x.shape[1], out_channels))


class DynamicDepthwise(nn.Module):
    """Depthwise convolution with an elastic kernel.

    A smaller kernel is the centre of the next larger one, flattened, times a learned matrix that all channels share
    (Cai et al., ICLR 2020, section 3.3): 25 × 25 for 5 × 5, 9 × 9 for 3 × 3.
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.stride = stride
        self._falling = tuple(pairwise(sorted(kernel_sizes, reverse=True)))
        self.conv = nn.Conv2d(channels, channels, max(kernel_sizes), stride, groups=channels, bias=False)
        for larger, smaller in self._falling:
            self.register_parameter(_matrix_name(larger, smaller), nn.Parameter(torch.eye(smaller**2)))

    def active(self, channels: int, kernel_size: int) -> Tensor:
        weight = self.conv.weight[:channels]
        for larger, smaller in self._falling:
            if larger <= kernel_size:
                break
            edge = (larger - smaller) // 2
            centre = weight[:, :, edge : edge + smaller, edge : edge + smaller].reshape(channels, smaller**2)
            matrix = self.get_parameter(_matrix_name(larger, smaller))
            weight = functional.linear(centre, matrix).view(channels, 1, smaller, smaller)
        return weight

    def forward(self, x: Tensor, kernel_size: int) -> Tensor:
        return depthwise(x, self.active(x.shape[1], kernel_size), self.stride)


class DynamicBatchNorm(nn.Module):
    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = BatchNorm(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class DynamicSqueezeExcite(nn.Module):
    """Squeeze-excite of the first channels, with the hidden units that these need."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = make_divisible(channels / SQUEEZE)
        self.fc = nn.Sequential()
        self.fc.add_module("reduce", nn.Conv2d(channels, hidden, 1))
        self.fc.add_module("expand", nn.Conv2d(hidden, channels, 1))

    def active(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of the reducing convolution, then of the expanding one."""
        hidden = make_divisible(channels / SQUEEZE)
        reduce, expand = self.fc.reduce, self.fc.expand
        return (
            reduce.weight[:hidden, :channels],
            reduce.bias[:hidden],
            expand.weight[:channels, :hidden],
            expand.bias[:channels],
        )

    def forward(self, x: Tensor) -> Tensor:
        return squeeze_excite(x, *self.active(x.shape[1]))


def squeeze_excite(x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor) -> Tensor:
    pooled = x.mean((2, 3))
    hidden = functional.relu(functional.linear(pooled, reduce.flatten(1), reduce_bias))
    gate = functional.hardsigmoid(functional.linear(hidden, expand.flatten(1), expand_bias))
    return x * gate[:, :, None, None]


def _matrix_name(larger: int, smaller: int) -> str:
    return f"{larger}to{smaller}_matrix"
