"""Depthwise convolution of small maps, with gradients that are faster than oneDNN's on processors.

There its gradient of a 5 × 5 or 7 × 7 depthwise weight takes many times as long as that of a 3 × 3 one, on maps of 4 px
a hundred times. But each tap of a large kernel is a tap of some 3 × 3 window of it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MOST_PX = {1: 8, 2: 10}  # by stride: on larger maps it does not pay


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """x (N, C, h, w) and weight (C, 1, k, k), padded by k // 2. On processors always in single precision."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):  # oneDNN is many times slower at these in half precision
            return depthwise(x.float(), weight.float(), stride)
    if (
        x.device.type == "cpu"
        and weight.shape[-1] > 3
        and max(x.shape[2:]) <= MOST_PX.get(stride, 0)
        and torch.is_grad_enabled()
    ):
        result: Tensor = _ByWindows.apply(x, weight, stride)
        return result
    return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))


class _ByWindows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride, kernel_size, pad = ctx.stride, weight.shape[-1], weight.shape[-1] // 2
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            if stride == 1:  # the forward kernel is the faster one
                of_x = functional.conv2d(gradient, weight.flip(2, 3), None, 1, pad, groups=len(weight))
            else:
                of_x, _ = _gradients(gradient, x, weight, stride, pad, 0)
        if ctx.needs_input_grad[1]:
            padded = functional.pad(x, (pad, pad, pad, pad))
            height, width = ((size - 1) * stride + 3 for size in gradient.shape[2:])
            window, of_weight = weight.new_empty(len(weight), 1, 3, 3), torch.empty_like(weight)
            for top in range(0, kernel_size - 2, 2):
                for left in range(0, kernel_size - 2, 2):
                    part = padded[:, :, top : top + height, left : left + width]
                    _, found = _gradients(gradient, part, window, stride, 0, 1)
                    of_weight[:, :, top : top + 3, left : left + 3] = found
        return of_x, of_weight, None


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int, which: int) -> tuple[Tensor, Tensor]:
    """That of ``x`` (0) or of the weight (1), for which the weight's own figures do not matter."""
    wanted, ones = [which == 0, which == 1, False], [1, 1]
    found: tuple[Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, [pad] * 2, ones, False, [0, 0], len(weight), wanted
    )[:2]
    return found
