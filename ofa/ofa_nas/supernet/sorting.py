"""Elastic width: sort channels by importance, so that the first ones form the best narrow network."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ofa_nas.supernet.batch_norm import BatchNorm


def falling(weight: Tensor, widths: Sequence[int]) -> Tensor:
    """The order of the inputs of a convolution, weight [out, in, k, k], by falling L1 norm, within each stretch between
    two of the widths.
    """
    importance = weight.abs().sum((0, 2, 3))
    edges = [0, *(width for width in widths if width < len(importance)), len(importance)]
    stretches = itertools.pairwise(edges)
    return torch.cat([start + importance[start:end].argsort(descending=True, stable=True) for start, end in stretches])


def permute(order: Tensor, tensors: Sequence[Tensor], dimension: int = 0) -> None:
    """Permute in place."""
    for tensor in tensors:
        tensor.copy_(tensor.index_select(dimension, order))


def channels_of(norm: BatchNorm) -> list[Tensor]:
    return [norm.weight, norm.bias, norm.running_mean, norm.running_var]
