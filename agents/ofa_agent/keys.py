"""Keys of blocks, in the format of the published tables. Shapes are ``(channels, height, width)``."""

from typing import Tuple

Shape = Tuple[int, ...]


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


def residual_conv_key(input_shape: Shape, output_shape: Shape) -> str:
    return "%s-idskip:1" % first_conv_key(input_shape, output_shape)


def bottleneck_key(input_shape: Shape, output_shape: Shape, mid_channels: int, stride: int) -> str:
    """Return the key of a ResNet block, modelled on ``expanded_conv_key``: no table of ResNets was published."""
    return "bottleneck-input:%s-output:%s-expand:%d-kernel:3-stride:%d" % (
        _size(input_shape),
        _size(output_shape),
        mid_channels,
        stride,
    )


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


def _size(shape: Shape) -> str:
    channels, height, width = shape
    return "%dx%dx%d" % (height, width, channels)
