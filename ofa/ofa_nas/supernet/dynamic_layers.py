"""Layers of supernets, made of dynamic operators. Modules have the names of the published checkpoints."""

from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_nas.spaces.parts import make_divisible
from ofa_nas.supernet.batch_norm import BatchNorm
from ofa_nas.supernet.convolutions import convolution
from ofa_nas.supernet.dynamic_ops import DynamicBatchNorm, DynamicConv, DynamicDepthwise, DynamicSqueezeExcite
from ofa_nas.supernet.sorting import channels_of, falling, permute

# In place if the gradient needs only the result: the preceding batch norm keeps its input, not its output.
ACTIVATIONS = {
    "relu": functional.relu_,
    "relu6": partial(functional.hardtanh_, min_val=0.0, max_val=6.0),
    "hard_swish": functional.hardswish,
    "hard_sigmoid": functional.hardsigmoid,
    "swish": functional.silu,
    "sigmoid": torch.sigmoid,
}


class Normalised(NamedTuple):
    """The parts of a convolution and its batch norm that a sub-network uses: (mean, variance) of evaluation."""

    weight: Tensor
    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    eps: float

    @classmethod
    def of(cls, weight: Tensor, norm: BatchNorm) -> "Normalised":
        channels = len(weight)
        return cls(weight, norm.weight[:channels], norm.bias[:channels], *norm.statistics_of(channels), norm.eps)


class DynamicLayer(Protocol):
    def sort(self, trained_ratios: tuple[float, ...]) -> None: ...


class ConvLayer(nn.Module):
    """A convolution that is the same in all sub-networks, batch norm by default, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, activation: str, eps: float | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        if eps is not None:
            self.bn = BatchNorm(out_channels, eps)
        self._activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        x = convolution(self.conv, x, self.conv.weight)
        return self._activation(self.bn(x) if hasattr(self, "bn") else x)

    def active(self) -> list[tuple[Tensor, ...]]:
        return [Normalised.of(self.conv.weight, self.bn) if hasattr(self, "bn") else (self.conv.weight,)]


class FirstBlock(nn.Module):
    """Depthwise 3×3 and 1×1 convolution: the block that all sub-networks have."""

    def __init__(self, in_channels: int, out_channels: int, activation: str, eps: float) -> None:
        super().__init__()
        depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.depth_conv = named(conv=depthwise, bn=BatchNorm(in_channels, eps))
        self.point_linear = named(
            conv=nn.Conv2d(in_channels, out_channels, 1, bias=False), bn=BatchNorm(out_channels, eps)
        )
        self._activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.point_linear(self._activation(self.depth_conv(x)))

    def active(self) -> list[tuple[Tensor, ...]]:
        return [Normalised.of(part.conv.weight, part.bn) for part in (self.depth_conv, self.point_linear)]


class DynamicInvertedResidual(nn.Module):
    """1×1, depthwise, squeeze-excite, 1×1 (Sandler et al., CVPR 2018), with elastic kernel size and width.

    With the expand ratio 1, the first 1×1 convolution is left out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: tuple[int, ...],
        expand_ratios: tuple[int, ...],
        stride: int,
        activation: str,
        squeezed: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.expand_ratios = expand_ratios
        most = self.mid_channels(max(expand_ratios))
        self.inverted_bottleneck = named(conv=DynamicConv(in_channels, most), bn=DynamicBatchNorm(most, eps))
        self.depth_conv = named(conv=DynamicDepthwise(most, kernel_sizes, stride), bn=DynamicBatchNorm(most, eps))
        if squeezed:
            self.depth_conv.add_module("se", DynamicSqueezeExcite(most))
        self.point_linear = named(conv=DynamicConv(most, out_channels), bn=DynamicBatchNorm(out_channels, eps))
        self._activation = ACTIVATIONS[activation]

    def mid_channels(self, expand_ratio: float) -> int:
        return self.in_channels if expand_ratio == 1 else make_divisible(self.in_channels * expand_ratio)

    def forward(self, x: Tensor, kernel_size: int, expand_ratio: int) -> Tensor:
        wide, deep, narrow = self.inverted_bottleneck, self.depth_conv, self.point_linear
        mid = self.mid_channels(expand_ratio)
        if mid != self.in_channels:
            x = self._activation(wide.bn(wide.conv(x, mid)))
        x = self._activation(deep.bn(deep.conv(x, kernel_size)))
        if hasattr(deep, "se"):
            x = deep.se(x)
        return narrow.bn(narrow.conv(x, self.out_channels))

    def active(self, kernel_size: int, expand_ratio: int) -> list[tuple[Tensor, ...]]:
        """The weights that a sub-network uses, in the order of the operators of its block."""
        mid = self.mid_channels(expand_ratio)
        wide, deep, narrow = self.inverted_bottleneck, self.depth_conv, self.point_linear
        return [
            *([Normalised.of(wide.conv.active(self.in_channels, mid), wide.bn.bn)] if mid != self.in_channels else []),
            Normalised.of(deep.conv.active(mid, kernel_size), deep.bn.bn),
            *([deep.se.active(mid)] if hasattr(deep, "se") else []),
            Normalised.of(narrow.conv.active(mid, self.out_channels), narrow.bn.bn),
        ]

    @torch.no_grad()
    def sort(self, trained_ratios: tuple[float, ...]) -> None:
        """Sort its mid channels and the hidden units of its squeeze-excite; see ``sort_channels``."""
        wide, deep, narrow = self.inverted_bottleneck, self.depth_conv, self.point_linear
        widths = sorted(self.mid_channels(ratio) for ratio in trained_ratios)
        order = falling(narrow.conv.conv.weight, widths)
        permute(order, [narrow.conv.conv.weight], 1)
        permute(order, [wide.conv.conv.weight, *channels_of(wide.bn.bn)])
        permute(order, [deep.conv.conv.weight, *channels_of(deep.bn.bn)])
        if hasattr(deep, "se"):
            reduce, expand = deep.se.fc.reduce, deep.se.fc.expand
            permute(order, [reduce.weight], 1)
            permute(order, [expand.weight, expand.bias])
            order = falling(expand.weight, [len(deep.se.active(width)[0]) for width in widths])
            permute(order, [expand.weight], 1)
            permute(order, [reduce.weight, reduce.bias])


class Residual(nn.Module):
    """A block, added to its input if ``shortcut``."""

    def __init__(self, conv: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.conv = conv
        self.shortcut = shortcut

    def forward(self, x: Tensor, *choices: int) -> Tensor:
        y = self.conv(x, *choices)
        return x + y if self.shortcut else y


class Classifier(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def named(**modules: nn.Module) -> nn.Sequential:
    named = nn.Sequential()
    for name, module in modules.items():
        named.add_module(name, module)
    return named
