"""The supernet of a Space of bottlenecks. Modules have the names of the published checkpoints."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_nas.spaces import Architecture
from ofa_nas.spaces.bottlenecks import BottleneckSpace
from ofa_nas.supernet.dynamic_layers import Normalised, Residual, named
from ofa_nas.supernet.dynamic_ops import DynamicBatchNorm, DynamicConv
from ofa_nas.supernet.initial import initialise
from ofa_nas.supernet.network import Supernet
from ofa_nas.supernet.sorting import channels_of, falling, permute


class BottleneckSupernet(Supernet):
    space: BottleneckSpace

    def __init__(self, space: BottleneckSpace, classes: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(space, classes, dropout)
        eps = space.batch_norm_epsilon
        mid, channels = max(space.stem_mid_channels), max(space.stem_channels)
        inner = DynamicConvLayer(mid, mid, 1, eps)
        self.input_stem = nn.ModuleList(
            [DynamicConvLayer(3, mid, 2, eps), Residual(inner, True), DynamicConvLayer(mid, channels, 1, eps)]
        )
        blocks = []
        for stage, block in space.places:
            widths = space.stage_channels[stage]
            blocks.append(DynamicBottleneck(space, channels, widths, space.layout.stages[stage].stride, block == 0))
            channels = max(widths)
        self.blocks = nn.ModuleList(blocks)
        self.classifier = named(linear=named(linear=nn.Linear(channels, self.classes)))
        self.apply(initialise)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        mid, channels, _ = self.space.chosen_widths(architecture)
        first, inner, last = self.input_stem
        x = first(images, mid)
        if self.space.has_stem_block(architecture):
            x = inner(x, mid)
        x = functional.max_pool2d(last(x, channels), 3, 2, 1)
        for at, mid, channels in self.space.chosen_blocks(architecture):
            x = self.blocks[at](x, mid, channels)
        weight, bias = self._classifier(channels)
        return functional.linear(self.dropout(x.mean((2, 3))), weight, bias)

    @property
    def dynamic_layers(self) -> "list[DynamicBottleneck]":
        return list(self.blocks)

    def active(self, architecture: Architecture) -> list[tuple[Tensor, ...]]:
        mid, channels, _ = self.space.chosen_widths(architecture)
        first, inner, last = self.input_stem
        used = [first.active(3, mid)]
        if self.space.has_stem_block(architecture):
            used.append(inner.conv.active(mid, mid))
        used.append(last.active(mid, channels))
        for at, mid, out_channels in self.space.chosen_blocks(architecture):
            used += self.blocks[at].active(channels, mid, out_channels)
            channels = out_channels
        return [*used, self._classifier(channels)]

    def _classifier(self, features: int) -> tuple[Tensor, Tensor]:
        linear = self.classifier.linear.linear
        return linear.weight[:, :features], linear.bias


class DynamicConvLayer(nn.Module):
    """3×3 convolution, batch norm, relu; uses the first channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, eps: float) -> None:
        super().__init__()
        self.conv = DynamicConv(in_channels, out_channels, 3, stride)
        self.bn = DynamicBatchNorm(out_channels, eps)

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        return functional.relu_(self.bn(self.conv(x, out_channels)))

    def active(self, in_channels: int, out_channels: int) -> Normalised:
        return Normalised.of(self.conv.active(in_channels, out_channels), self.bn.bn)


class DynamicBottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1, added to the input; the first of a stage is added to a 1×1 convolution of the
    averaged input (He et al., CVPR 2019, figure 2d). All widths are elastic.
    """

    def __init__(
        self, space: BottleneckSpace, in_channels: int, widths: tuple[int, ...], stride: int, first: bool
    ) -> None:
        super().__init__()
        self._space, self._widths = space, widths
        self._stride = stride if first else 1
        out_channels, eps = max(widths), space.batch_norm_epsilon
        mid = space.mid_channels(out_channels, max(space.expand_ratios))
        self.conv1 = named(conv=DynamicConv(in_channels, mid), bn=DynamicBatchNorm(mid, eps))
        self.conv2 = named(conv=DynamicConv(mid, mid, 3, self._stride), bn=DynamicBatchNorm(mid, eps))
        self.conv3 = named(conv=DynamicConv(mid, out_channels), bn=DynamicBatchNorm(out_channels, eps))
        if first:
            self.downsample = named(conv=DynamicConv(in_channels, out_channels), bn=DynamicBatchNorm(out_channels, eps))

    def forward(self, x: Tensor, mid_channels: int, out_channels: int) -> Tensor:
        y = functional.relu_(self.conv1.bn(self.conv1.conv(x, mid_channels)))
        y = functional.relu_(self.conv2.bn(self.conv2.conv(y, mid_channels)))
        y = self.conv3.bn(self.conv3.conv(y, out_channels))
        if hasattr(self, "downsample"):
            if self._stride > 1:
                x = functional.avg_pool2d(x, self._stride, ceil_mode=True)
            x = self.downsample.bn(self.downsample.conv(x, out_channels))
        return functional.relu_(y + x)

    def active(self, in_channels: int, mid_channels: int, out_channels: int) -> list[Normalised]:
        """The weights that a sub-network uses, in the order of the operators of its block."""
        sizes = {"conv1": (in_channels, mid_channels), "conv2": (mid_channels, mid_channels)}
        sizes |= {"conv3": (mid_channels, out_channels)}
        if hasattr(self, "downsample"):
            sizes |= {"downsample": (in_channels, out_channels)}
        parts = [(self.get_submodule(name), size) for name, size in sizes.items()]
        return [Normalised.of(part.conv.active(*size), part.bn.bn) for part, size in parts]

    @torch.no_grad()
    def sort(self, trained_ratios: tuple[float, ...]) -> None:
        """Sort the outputs of its first two convolutions by the convolution that reads them; see ``sort_channels``.
        Widths become elastic together with ratios: the same number of them, the largest, was trained.
        """
        outs = sorted(self._widths, reverse=True)[: len(trained_ratios)]
        widths = sorted({self._space.mid_channels(out, ratio) for out in outs for ratio in trained_ratios})
        for part, following in ((self.conv2, self.conv3), (self.conv1, self.conv2)):
            order = falling(following.conv.conv.weight, widths)
            permute(order, [following.conv.conv.weight], 1)
            permute(order, [part.conv.conv.weight, *channels_of(part.bn.bn)])
