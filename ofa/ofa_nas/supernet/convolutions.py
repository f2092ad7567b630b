"""Convolutions that train faster than oneDNN's on CPUs.

* A 1×1 convolution of few pixels is mostly its weights. oneDNN rearranges them in each pass, a matrix product does not.
* The gradient of a 5×5 or 7×7 depthwise weight takes oneDNN two to ten times as long as its taps would take in a kernel
  three columns wide, the widest that its fast code takes. But any kernel is made of such strips.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_PIXELS = 2048  # pixels of a batch; from about 4000 on oneDNN is faster
STRIP = 3  # columns
FLIPPED_PX = 8  # on larger maps oneDNN's gradient of the input is faster


def convolution(conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """Apply ``conv`` with another ``weight``."""
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1:
        return pointwise(x, weight, conv.bias)
    return functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1×1 convolution of x (N, in, h, w), channels last, with weight (out, in, 1, 1)."""
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or _is_recorded():
        return functional.conv2d(x, weight, bias)
    images, channels, height, width = x.shape
    if images * height * width > FEW_PIXELS:
        return functional.conv2d(x, weight, bias)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    found = functional.linear(pixels, weight.flatten(1), bias)
    return found.view(images, height, width, len(weight)).permute(0, 3, 1, 2)


def _is_recorded() -> bool:
    """Whether torch records the operations to repeat them on other sizes."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A depthwise convolution of x (N, C, h, w) with weight (C, 1, k, k), padding k // 2; on CPUs always in single
    precision.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):  # oneDNN is many times slower at these in half precision
            return depthwise(x.float(), weight.float(), stride)
    if x.device.type == "cpu" and weight.shape[-1] > STRIP and torch.is_grad_enabled():
        result: Tensor = _ByStrips.apply(x, weight, stride)
        return result
    return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))


class _ByStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride, pad = ctx.stride, weight.shape[-1] // 2
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            if stride == 1 and max(x.shape[2:]) <= FLIPPED_PX:
                of_x = functional.conv2d(gradient, weight.flip(2, 3), None, 1, pad, groups=len(weight))
            else:
                of_x, _ = _gradients(gradient, x, weight, stride, pad, 0)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, x, weight, stride)
        return of_x, of_weight, None


def _of_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The gradient of the weight, strip by strip. Every strip uses the same padded images with another column offset,
    without a copy.
    """
    (images, channels, height, width), kernel_size = x.shape, weight.shape[-1]
    pad = kernel_size // 2
    rows, columns = (gradient.shape[2] - 1) * stride + kernel_size, width + pad  # padded
    within = min(height, rows - pad)
    size = images * rows * columns * channels
    # The right padding of a row is the left padding of the next; for the last row it is what follows.
    memory = x.new_empty(size + 2 * pad * channels)
    memory[size:] = 0
    padded = memory[:size].view(images, rows, columns, channels)
    padded[:, :pad] = 0
    padded[:, pad + within :] = 0
    padded[:, pad : pad + within, :pad] = 0
    padded[:, pad : pad + within, pad:] = x.permute(0, 2, 3, 1)[:, :within]
    beyond = (columns - STRIP) // stride + 1 - gradient.shape[3]  # outputs at which one row runs into the next
    gradient = functional.pad(gradient, (0, beyond))
    strip, found = weight.new_empty(channels, 1, kernel_size, STRIP), torch.empty_like(weight)
    strides = (rows * columns * channels, 1, columns * channels, channels)
    for left in range(0, kernel_size - STRIP + 1, STRIP - 1):  # kernels of 5 and 7 are strips that share a column
        part = memory.as_strided((images, channels, rows, columns), strides, left * channels)
        _, found[:, :, :, left : left + STRIP] = _gradients(gradient, part, strip, stride, 0, 1)
    return found


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int, which: int) -> tuple[Tensor, Tensor]:
    """The gradient of ``x`` (0) or of the weight (1); the latter does not depend on the values of the weight."""
    wanted, ones = [which == 0, which == 1, False], [1, 1]
    found: tuple[Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, [pad] * 2, ones, False, [0, 0], len(weight), wanted
    )[:2]
    return found
