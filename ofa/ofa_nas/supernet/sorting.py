"""Elastic width: the channels that matter most come first, so that the first ones make the best narrow network."""

import itertools

import torch
from torch import Tensor

from ofa_nas.supernet.dynamic_layers import DynamicInvertedResidual
from ofa_nas.supernet.network import Supernet


@torch.no_grad()
def sort_channels(supernet: Supernet, trained_ratios: tuple[int, ...]) -> None:
    """Sorts each block's mid channels by the L1 norm of what its last convolution makes of them, the largest first
    (Cai et al., ICLR 2020, section 3.3), and a squeeze-excite's hidden units likewise.

    ``trained_ratios`` are the expand ratios that were trained already: no channel moves from beyond one of their widths
    to below it, for narrow networks rely on theirs. What the largest network computes does not change.
    """
    for layer in supernet.dynamic_layers:
        _sort(layer, sorted(layer.mid_channels(ratio) for ratio in trained_ratios))


def _sort(layer: DynamicInvertedResidual, widths: list[int]) -> None:
    wide, deep, narrow = layer.inverted_bottleneck, layer.depth_conv, layer.point_linear
    order = _falling(narrow.conv.conv.weight.abs().sum((0, 2, 3)), widths)
    _permute(narrow.conv.conv.weight, order, 1)
    norms = [part.bn.bn for part in (wide, deep)]
    outputs = [wide.conv.conv.weight, deep.conv.conv.weight]
    outputs += [tensor for bn in norms for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var)]
    if hasattr(deep, "se"):
        reduce, expand = deep.se.fc.reduce, deep.se.fc.expand
        _permute(reduce.weight, order, 1)
        outputs += [expand.weight, expand.bias]
    for tensor in outputs:
        _permute(tensor, order, 0)
    if hasattr(deep, "se"):
        hidden = [len(deep.se.active(width)[0]) for width in widths]
        order = _falling(expand.weight.abs().sum((0, 2, 3)), hidden)
        _permute(expand.weight, order, 1)
        _permute(reduce.weight, order, 0)
        _permute(reduce.bias, order, 0)


def _falling(importance: Tensor, widths: list[int]) -> Tensor:
    """The order in which importance falls, within each stretch between two widths."""
    edges = [0, *(width for width in widths if width < len(importance)), len(importance)]
    stretches = itertools.pairwise(edges)
    return torch.cat([start + importance[start:end].argsort(descending=True, stable=True) for start, end in stretches])


def _permute(tensor: Tensor, order: Tensor, dimension: int) -> None:
    tensor.copy_(tensor.index_select(dimension, order))
