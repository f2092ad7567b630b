"""Keys of blocks, in the format of the published tables. Shapes are ``(channels, height, width)``."""

import hashlib
from typing import Sequence, Tuple

from ofa_agent import operators as ops

Shape = Tuple[int, ...]

LONGEST_OPERATORS = 120  # characters of a key that list its operators; a digest stands for more


def first_conv_key(input_shape: Shape, output_shape: Shape) -> str:
    return "Conv-input:%s-output:%s" % (_size(input_shape), _size(output_shape))


def expanded_conv_key(
    input_shape: Shape,
    output_shape: Shape,
    mid_channels: int,
    kernel_size: int,
    stride: int,
    skip: bool,
    se: bool,
    hs: bool,
) -> str:
    return "expanded_conv-input:%s-output:%s-expand:%d-kernel:%d-stride:%d-idskip:%d-se:%d-hs:%d" % (
        _size(input_shape),
        _size(output_shape),
        mid_channels,
        kernel_size,
        stride,
        skip,
        se,
        hs,
    )


def expanded_conv_ratio_key(
    input_shape: Shape, output_shape: Shape, expand_ratio: int, kernel_size: int, stride: int, skip: bool
) -> str:
    """Return the key that the ProxylessNAS tables use: with the expand ratio, without ``se`` and ``hs``."""
    return "expanded_conv-input:%s-output:%s-expand:%d-kernel:%d-stride:%d-idskip:%d" % (
        _size(input_shape),
        _size(output_shape),
        expand_ratio,
        kernel_size,
        stride,
        skip,
    )


def with_activation(key: str, activation: str, published: str) -> str:
    """Add an activation to a key that does not contain it, unless the published tables of the family have it."""
    return key if activation == published else "%s-act:%s" % (key, activation)


def residual_conv_key(input_shape: Shape, output_shape: Shape) -> str:
    return "%s-idskip:1" % first_conv_key(input_shape, output_shape)


def bottleneck_key(
    input_shape: Shape, output_shape: Shape, mid_channels: int, stride: int, convolved: bool = False
) -> str:
    """Return the key of a ResNet block, modelled on ``expanded_conv_key``: no table of ResNets was published.

    ``convolved``: the shortcut has a convolution. The key says so if the shapes do not require one.
    """
    key = "bottleneck-input:%s-output:%s-expand:%d-kernel:3-stride:%d" % (
        _size(input_shape),
        _size(output_shape),
        mid_channels,
        stride,
    )
    return key + "-shortcut:1" if convolved and input_shape == output_shape else key


def max_pool_key(input_shape: Shape, output_shape: Shape) -> str:
    return "MaxPool2D-input:%s-output:%s" % (_size(input_shape), _size(output_shape))


def final_expand_key(input_shape: Shape, output_shape: Shape) -> str:
    return "Conv_1-input:%s-output:%s" % (_size(input_shape), _size(output_shape))


def pool_key(input_shape: Shape, output_shape: Shape) -> str:
    return "AvgPool2D-input:%s-output:%s" % (_size(input_shape), _size(output_shape))


def feature_mix_key(input_shape: Shape, output_shape: Shape) -> str:
    return "Conv_2-input:%s-output:%s" % (_size(input_shape), _size(output_shape))


def classifier_key(input_shape: Shape, classes: int) -> str:
    return "Logits-input:%s-output:%d" % (_size(input_shape), classes)


def operators_key(input_shape: Shape, output_shape: Shape, operators: Sequence[ops.Operator]) -> str:
    """Return the key of a block of any operators, which lists them: ``conv16k3s2+relu``. Different blocks differ."""
    listed = "+".join(map(operator_text, operators))
    if len(listed) > LONGEST_OPERATORS:
        listed = "%d-%s" % (len(operators), hashlib.sha256(listed.encode()).hexdigest()[:16])
    return "block-input:%s-output:%s-ops:%s" % (_size(input_shape), _size(output_shape), listed)


def operator_text(operator: ops.Operator) -> str:
    """Return an operator as text, without what follows from its input: ``dwk3s2``, ``conv24k1``, ``relu``."""
    if isinstance(operator, ops.Conv):
        depthwise = 1 < operator.groups == operator.in_channels == operator.out_channels
        text = "dwk%d" % operator.kernel_size
        if not depthwise:
            text = "conv%dk%d" % (operator.out_channels, operator.kernel_size)
            text += "g%d" % operator.groups if operator.groups > 1 else ""
        text += "s%d" % operator.stride if operator.stride > 1 else ""
        return text if operator.bias else text + "nobias"
    if isinstance(operator, ops.Activation):
        return operator.function
    if isinstance(operator, ops.MaxPool):
        return "maxpool%ds%d" % (operator.kernel_size, operator.stride)
    if isinstance(operator, ops.AvgPool):
        return "avgpool%d" % operator.size
    if isinstance(operator, ops.Linear):
        return "linear%d" % operator.out_features + ("" if operator.bias else "nobias")
    if isinstance(operator, ops.SqueezeExcite):
        return "se%d:%s:%s" % (operator.reduced_channels, operator.activation, operator.gate)
    if isinstance(operator, (ops.Add, ops.Take)):
        return "%s%d" % ("add" if isinstance(operator, ops.Add) else "take", operator.value)
    return "pool"


def _size(shape: Shape) -> str:
    if len(shape) == 1:
        return "%d" % shape
    channels, height, width = shape
    return "%dx%dx%d" % (height, width, channels)
