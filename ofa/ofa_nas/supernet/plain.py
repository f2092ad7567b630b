"""A standalone network: plain layers built from the operators of its blocks."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_agent import operators as ops
from ofa_agent.operators import Block
from ofa_nas.spaces.space import FloatArray
from ofa_nas.supernet.batch_norm import BatchNorm
from ofa_nas.supernet.convolutions import convolution, depthwise
from ofa_nas.supernet.dropout import Dropout
from ofa_nas.supernet.dynamic_ops import squeeze_excite
from ofa_nas.supernet.initial import initialise

ACTIVATIONS = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "hard_sigmoid": functional.hardsigmoid,
    "swish": functional.silu,
    "sigmoid": torch.sigmoid,
}
# Only if nothing else reads the preceding output: batch norm, which precedes, keeps its input, not its output.
IN_PLACE = {"relu": functional.relu_, "relu6": partial(functional.hardtanh_, min_val=0.0, max_val=6.0)}
IN_PLACE_WITHOUT_GRADIENT = {**IN_PLACE, "hard_swish": partial(functional.hardswish, inplace=True)}


class PlainNetwork(nn.Module):
    """The network of ``blocks``, for training or deployment. Called with images (N, 3, px, px), returns logits.

    A convolution with a bias has batch norm instead, which folds into that bias.
    """

    def __init__(self, blocks: Sequence[Block], eps: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(nn.ModuleList(_layers(block, eps)) for block in blocks)
        self.apply(initialise)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for block, layers in zip(self.blocks, self.layers, strict=True):
            values = [x]
            for operator, layer in zip(block.operators, layers, strict=True):
                if isinstance(operator, ops.Add):
                    values.append(values[operator.value] + values[-1])
                elif isinstance(operator, ops.Take):
                    values.append(values[operator.value])
                elif isinstance(operator, ops.Linear):
                    values.append(layer(self.dropout(values[-1].flatten(1))))
                else:
                    values.append(layer(values[-1]))
            x = values[-1]
        return x

    @property
    def _weighted(self) -> list[nn.Module]:
        return [layer for layers in self.layers for layer in layers if any(True for _ in layer.parameters())]

    @torch.no_grad()
    def load(self, active: Sequence[tuple[Tensor, ...]]) -> None:
        """Copy the weights that a sub-network uses, one tuple per operator that has weights."""
        for layer, tensors in zip(self._weighted, active, strict=True):
            for own, given in zip(layer.tensors(), tensors, strict=False):
                own.copy_(given.reshape(own.shape))

    @property
    def normalised(self) -> "list[_Conv]":
        """The convolutions with batch norm."""
        return [layer for layer in self._weighted if isinstance(layer, _Conv) and layer.bn is not None]

    @torch.no_grad()
    def norms(self) -> list[tuple[Tensor, Tensor]]:
        """The folded batch norm in evaluation of each of the ``normalised``: a factor (channels, 1, 1, 1) of the
        weights, and a shift (channels,).
        """
        found = [layer.norm() for layer in self.normalised]
        return [(scale.view(-1, 1, 1, 1).float(), shift.float()) for scale, shift in found]

    @torch.no_grad()
    def fold(self) -> "PlainNetwork":
        """Fold batch norm into the convolutions permanently, for faster inference."""
        for layer in self.normalised:
            layer.fold()
        return self

    @torch.no_grad()
    def folded(self) -> list[FloatArray]:
        """The weights of the deployed network: batch norm folded in, in the order of the parameters of the blocks."""
        arrays = [tensor for layer in self._weighted for tensor in layer.folded()]
        return [np.ascontiguousarray(tensor.detach().float().cpu().numpy()) for tensor in arrays]


class _Conv(nn.Module):
    def __init__(self, conv: ops.Conv, eps: float) -> None:
        super().__init__()
        padding = conv.kernel_size // 2
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            padding,
            groups=conv.groups,
            bias=False,
        )
        self.bn = BatchNorm(conv.out_channels, eps) if conv.bias else None

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        trained_depthwise = conv.groups == conv.in_channels > 1 and conv.bias is None
        x = depthwise(x, conv.weight, conv.stride[0]) if trained_depthwise else convolution(conv, x, conv.weight)
        return x if self.bn is None else self.bn(x)

    def tensors(self) -> list[Tensor]:
        bn = self.bn
        return (
            [self.conv.weight]
            if bn is None
            else [self.conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var]
        )

    def fold(self) -> None:
        weight, bias = self.folded()
        self.conv.weight.copy_(weight)
        self.conv.bias = nn.Parameter(bias.to(weight.device, self.conv.weight.dtype))
        self.bn = None

    def norm(self) -> tuple[Tensor, Tensor]:
        """(factor, shift) of each channel, in double precision, since folding is permanent."""
        assert self.bn is not None
        mean, variance = self.bn.statistics_of(self.bn.num_features)
        scale = self.bn.weight.double() / torch.sqrt(variance.double() + self.bn.eps)
        return scale, self.bn.bias.double() - mean.double() * scale

    def folded(self) -> list[Tensor]:
        if self.bn is None:
            return [tensor for tensor in (self.conv.weight, self.conv.bias) if tensor is not None]
        scale, shift = self.norm()
        return [self.conv.weight.double() * scale.view(-1, 1, 1, 1), shift]


class _SqueezeExcite(nn.Module):
    def __init__(self, squeeze: ops.SqueezeExcite) -> None:
        super().__init__()
        if (squeeze.activation, squeeze.gate) != ("relu", "hard_sigmoid"):
            raise ValueError(f"no layer does what {squeeze} says")
        self.reduce = nn.Linear(squeeze.channels, squeeze.reduced_channels)
        self.expand = nn.Linear(squeeze.reduced_channels, squeeze.channels)

    def forward(self, x: Tensor) -> Tensor:
        return squeeze_excite(x, self.reduce.weight, self.reduce.bias, self.expand.weight, self.expand.bias)

    def tensors(self) -> list[Tensor]:
        return [self.reduce.weight, self.reduce.bias, self.expand.weight, self.expand.bias]

    folded = tensors


class _Linear(nn.Linear):
    def tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]

    folded = tensors


class _Activation(nn.Module):
    def __init__(self, function: str, in_place: bool) -> None:
        super().__init__()
        self._function = self._in_inference = ACTIVATIONS[function]
        if in_place:
            self._function = IN_PLACE.get(function, self._function)
            self._in_inference = IN_PLACE_WITHOUT_GRADIENT.get(function, self._function)

    def forward(self, x: Tensor) -> Tensor:
        return (self._function if torch.is_grad_enabled() else self._in_inference)(x)


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def _layers(block: Block, eps: float) -> list[nn.Module]:
    kept = {operator.value for operator in block.operators if isinstance(operator, ops.Add | ops.Take)} | {0}
    return [_layer(operator, eps, value not in kept) for value, operator in enumerate(block.operators)]


def _layer(operator: ops.Operator, eps: float, in_place: bool) -> nn.Module:
    """``in_place``: nothing else reads its input."""
    if isinstance(operator, ops.Conv):
        return _Conv(operator, eps)
    if isinstance(operator, ops.SqueezeExcite):
        return _SqueezeExcite(operator)
    if isinstance(operator, ops.Linear):
        return _Linear(operator.in_features, operator.out_features)
    if isinstance(operator, ops.Activation):
        return _Activation(operator.function, in_place)
    if isinstance(operator, ops.Pool):
        return _Pool()
    if isinstance(operator, ops.MaxPool):
        return nn.MaxPool2d(operator.kernel_size, operator.stride, operator.kernel_size // 2)
    if isinstance(operator, ops.AvgPool):
        return nn.AvgPool2d(operator.size, ceil_mode=True)
    return nn.Identity()  # an Add or a Take: the network does it
