"""The supernet of a Space of inverted residuals. Modules have the names of the published checkpoints."""

import torch
from torch import Tensor, nn

from ofa_nas.spaces import Architecture
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.supernet.dynamic_layers import Classifier, ConvLayer, DynamicInvertedResidual, FirstBlock, Residual
from ofa_nas.supernet.initial import initialise
from ofa_nas.supernet.network import Supernet


class InvertedResidualSupernet(Supernet):
    space: InvertedResidualSpace

    def __init__(self, space: InvertedResidualSpace, classes: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(space, classes, dropout)
        layout = space.layout
        eps = layout.batch_norm_epsilon
        stem, first = layout.first_channels
        self.first_conv = ConvLayer(3, stem, 3, 2, layout.first_activations[0], eps)
        blocks = [Residual(FirstBlock(stem, first, layout.first_activations[1], eps), stem == first)]
        channels = first
        for stage_at, block in space.places:
            stage = layout.stages[stage_at]
            stride = stage.stride if block == 0 else 1
            layer = DynamicInvertedResidual(
                channels,
                stage.channels,
                space.kernel_sizes,
                layout.expand_ratios,
                stride,
                stage.activation,
                stage.squeeze_excite,
                eps,
            )
            blocks.append(Residual(layer, stride == 1 and channels == stage.channels))
            channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        # As published: with one convolution before the pool and one after it, the latter mixes features; with
        # only one, that one does.
        expanded, *mixed = layout.last_channels
        last = ConvLayer(channels, expanded, 1, 1, layout.last_activation, eps)
        if mixed:
            self.final_expand_layer = last
            self.feature_mix_layer = ConvLayer(expanded, mixed[0], 1, 1, layout.last_activation, None)
        else:
            self.feature_mix_layer = last
        self.classifier = Classifier(layout.last_channels[-1], self.classes)
        self.apply(initialise)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        x = self.blocks[0](self.first_conv(images))
        for at, kernel_size, expand_ratio in self.space.chosen_blocks(architecture):
            x = self.blocks[1 + at](x, kernel_size, expand_ratio)
        if hasattr(self, "final_expand_layer"):
            x = self.feature_mix_layer(self.final_expand_layer(x).mean((2, 3), keepdim=True))
        else:
            x = self.feature_mix_layer(x).mean((2, 3), keepdim=True)
        return self.classifier(self.dropout(x.flatten(1)))

    @property
    def dynamic_layers(self) -> list[DynamicInvertedResidual]:
        return [block.conv for block in self.blocks[1:]]

    def active(self, architecture: Architecture) -> list[tuple[Tensor, ...]]:
        """The weights that the sub-network uses, in the order of the operators of its blocks."""
        used = [*self.first_conv.active(), *self.blocks[0].conv.active()]
        for at, kernel_size, expand_ratio in self.space.chosen_blocks(architecture):
            used += self.blocks[1 + at].conv.active(kernel_size, expand_ratio)
        if hasattr(self, "final_expand_layer"):
            used += self.final_expand_layer.active()
        used += self.feature_mix_layer.active()
        return [*used, (self.classifier.linear.weight, self.classifier.linear.bias)]
