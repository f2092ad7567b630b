import hashlib

import pytest

from ofa_agent import keys
from ofa_agent import operators as ops
from ofa_agent.operators import (
    Activation,
    Add,
    AvgPool,
    Block,
    Conv,
    InvalidBlock,
    Linear,
    MaxPool,
    Pool,
    SqueezeExcite,
    Take,
)

# An operator and an input shape; the expected output shape, MACs and weights were computed by hand.
OPERATORS = {
    "3×3 stride 2": (Conv(3, 16, 3, stride=2), (3, 128, 128), (16, 64, 64), 16 * 27 * 64 * 64, 16 * 27 + 16),
    "1×1": (Conv(16, 48, 1), (16, 7, 7), (48, 7, 7), 16 * 48 * 49, 16 * 48 + 48),
    "1×1 without bias": (Conv(960, 1280, 1, bias=False), (960, 1, 1), (1280, 1, 1), 960 * 1280, 960 * 1280),
    "depthwise 5×5 stride 2 on odd": (Conv(16, 16, 5, 2, 16), (16, 7, 7), (16, 4, 4), 16 * 25 * 16, 16 * 25 + 16),
    "depthwise 7×7": (Conv(8, 8, 7, 1, 8), (8, 4, 4), (8, 4, 4), 8 * 49 * 16, 8 * 49 + 8),
    "two groups": (Conv(8, 4, 3, groups=2), (8, 5, 6), (4, 5, 6), 4 * 4 * 9 * 30, 4 * 4 * 9 + 4),
    "activation": (Activation("hard_swish"), (16, 5, 5), (16, 5, 5), 0, 0),
    "swish": (Activation("swish"), (16, 5, 5), (16, 5, 5), 0, 0),
    "max pool": (MaxPool(3, 2), (64, 112, 112), (64, 56, 56), 0, 0),
    "max pool of odd sizes": (MaxPool(3, 2), (8, 7, 9), (8, 4, 5), 0, 0),
    "average pool": (AvgPool(2), (64, 56, 56), (64, 28, 28), 0, 0),
    "average pool of odd sizes": (AvgPool(2), (8, 7, 9), (8, 4, 5), 0, 0),
    "pool": (Pool(), (960, 4, 5), (960, 1, 1), 0, 0),
    "linear": (Linear(1280, 1000), (1280, 1, 1), (1000,), 1280 * 1000, 1280 * 1000 + 1000),
    "linear flattens": (Linear(12, 2, bias=False), (3, 2, 2), (2,), 24, 24),
    "squeeze-excite": (SqueezeExcite(40, 16), (40, 7, 7), (40, 7, 7), 2 * 40 * 16, 2 * 40 * 16 + 16 + 40),
    "add": (Add(0), (16, 5, 5), (16, 5, 5), 0, 0),
    "take": (Take(0), (16, 5, 5), (16, 5, 5), 0, 0),
}


@pytest.mark.parametrize(("operator", "shape", "output", "macs", "parameters"), OPERATORS.values(), ids=OPERATORS)
def test_an_operator_has_the_expected_shape_macs_and_parameters(operator, shape, output, macs, parameters):
    block = Block("one", shape, (operator,))
    assert block.output_shape == output
    assert block.macs == macs
    assert block.parameters == parameters


def test_a_block_is_the_sum_of_its_operators():
    relu = Activation("relu")
    block = Block(
        "inverted residual",
        (16, 10, 10),
        (Conv(16, 48, 1), relu, Conv(48, 48, 5, 1, 48), relu, SqueezeExcite(48, 16), Conv(48, 16, 1), Add(0)),
    )
    assert block.shapes == [(16, 10, 10), *[(48, 10, 10)] * 5, *[(16, 10, 10)] * 2]
    assert block.macs == 100 * (16 * 48 + 48 * 25 + 48 * 16) + 2 * 48 * 16
    assert block.parameters == (768 + 48) + (1200 + 48) + (1536 + 64) + (768 + 16)


def test_a_shortcut_has_separate_operators():
    inner = (Conv(16, 8, 1), Activation("relu"), Conv(8, 8, 3, 2), Activation("relu"), Conv(8, 32, 1))
    block = Block("bottleneck", (16, 10, 10), (*inner, Take(0), Conv(16, 32, 1, stride=2), Add(5), Activation("relu")))
    assert block.shapes[5:] == [(32, 5, 5), (16, 10, 10), *[(32, 5, 5)] * 3]
    assert block.macs == 100 * 16 * 8 + 25 * (8 * 8 * 9 + 8 * 32 + 16 * 32)
    assert block.parameters == (128 + 8) + (576 + 8) + (256 + 32) + (512 + 32)


def test_weights_keep_the_magnitude_of_values():
    weight, bias = Conv(16, 32, 3, groups=4).parameters()
    assert weight.shape == (32, 4, 3, 3)
    assert weight.scale == pytest.approx((2 / (4 * 9)) ** 0.5)
    assert (bias.shape, bias.scale) == ((32,), ops.BIAS_SCALE)


def test_squeeze_excite_names_its_weights_in_the_order_of_their_use():
    assert [(parameter.part, parameter.shape) for parameter in SqueezeExcite(24, 8).parameters()] == [
        ("reduce.weight", (8, 24, 1, 1)),
        ("reduce.bias", (8,)),
        ("expand.weight", (24, 8, 1, 1)),
        ("expand.bias", (24,)),
    ]


IMAGE = (8, 6, 6)
MISFITS = {
    "no operators": (IMAGE, ()),
    "wrong channels": (IMAGE, (Conv(16, 8, 1),)),
    "conv on features": ((8,), (Conv(8, 8, 1),)),
    "even kernel": (IMAGE, (Conv(8, 8, 2),)),
    "no kernel": (IMAGE, (Conv(8, 8, 0),)),
    "negative kernel": (IMAGE, (Conv(8, 8, -1),)),
    "no stride": (IMAGE, (Conv(8, 8, 1, stride=0),)),
    "no groups": (IMAGE, (Conv(8, 8, 1, groups=0),)),
    "no output": (IMAGE, (Conv(8, 0, 1),)),
    "groups that do not divide the input": (IMAGE, (Conv(8, 9, 1, groups=3),)),
    "groups that do not divide the output": (IMAGE, (Conv(8, 6, 1, groups=4),)),
    "unknown activation": (IMAGE, (Activation("gelu"),)),
    "average pool of nothing": (IMAGE, (AvgPool(0),)),
    "average pool of features": ((8,), (AvgPool(2),)),
    "even max pool": (IMAGE, (MaxPool(2, 2),)),
    "negative max pool": (IMAGE, (MaxPool(-1, 2),)),
    "max pool without a stride": (IMAGE, (MaxPool(3, 0),)),
    "max pool of features": ((8,), (MaxPool(3, 2),)),
    "unknown pool": (IMAGE, (Pool("max"),)),
    "pool of features": ((8,), (Pool(),)),
    "linear of another size": (IMAGE, (Linear(8, 10),)),
    "linear to nothing": (IMAGE, (Linear(288, 0),)),
    "squeeze-excite of other channels": (IMAGE, (SqueezeExcite(16, 4),)),
    "squeeze-excite to nothing": (IMAGE, (SqueezeExcite(8, 0),)),
    "squeeze-excite of features": ((8,), (SqueezeExcite(8, 2),)),
    "squeeze-excite by an unknown gate": (IMAGE, (SqueezeExcite(8, 2, gate="gelu"),)),
    "squeeze-excite with an unknown activation": (IMAGE, (SqueezeExcite(8, 2, activation=""),)),
    "take of a value to come": (IMAGE, (Conv(8, 8, 1), Take(2))),
    "take of a negative value": (IMAGE, (Take(-1),)),
    "add of a value to come": (IMAGE, (Conv(8, 8, 1), Add(2))),
    "add of a negative value": (IMAGE, (Add(-1),)),
    "add of another shape": (IMAGE, (Conv(8, 8, 3, stride=2), Add(0))),
    "empty input": ((), (Activation("relu"),)),
    "input of size zero": ((8, 0, 6), (Activation("relu"),)),
    "negative input": ((8, -6, -6), (Activation("relu"),)),
}


@pytest.mark.parametrize(("shape", "operators"), MISFITS.values(), ids=MISFITS)
def test_operators_that_do_not_fit_are_refused(shape, operators):
    with pytest.raises(InvalidBlock):
        ops.shapes(operators, shape)


GIANTS = {
    "a dimension": ((1, 1, (1 << 16) + 1), (Activation("relu"),)),
    "an input": ((1 << 16, 1 << 7, 1 << 6), (Activation("relu"),)),
    "an output": ((1, 1 << 8, 1 << 8), (Conv(1, 1 << 16, 1),)),
    "a weight": ((1 << 16, 1, 1), (Conv(1 << 16, 1 << 16, 1),)),
    "a kernel": ((1, 1, 1), (Conv(1, 1, (1 << 17) + 1),)),
    "a linear layer": ((1 << 16, 1, 1), (Linear(1 << 16, 1 << 16),)),
    "a squeeze-excite": ((1 << 15, 1, 1), (SqueezeExcite(1 << 15, 1 << 15),)),
    "what 32 bits can say": ((1,) * 3, (Conv(1, (1 << 32) - 1, (1 << 32) - 1),)),
    "a list of operators": (IMAGE, (Activation("relu"),) * 4097),
}


@pytest.mark.parametrize(("shape", "operators"), GIANTS.values(), ids=GIANTS)
def test_sizes_beyond_the_bounds_are_refused_without_touching_memory(shape, operators, monkeypatch):
    monkeypatch.setattr(ops, "np", None)  # fails if an array is allocated
    with pytest.raises(InvalidBlock):
        ops.shapes(operators, shape)


def test_the_largest_sizes_allowed_are_allowed():
    ops.shapes((Activation("relu"),) * ops.MAX_OPERATORS, (1 << 16, 1 << 6, 1 << 6))


def test_concatenated_blocks_add_their_own_values():
    residual = Block("residual", IMAGE, (Conv(8, 8, 3), Activation("relu"), Add(0)))
    inner = Block("inner", IMAGE, (Conv(8, 8, 1), Conv(8, 8, 1), Add(1)))
    network = ops.concatenate("network", [residual, inner, residual])
    added = [(at, operator.value) for at, operator in enumerate(network.operators) if isinstance(operator, Add)]
    assert added == [(2, 0), (5, 4), (8, 6)]
    assert network.key == "network"
    assert network.macs == 2 * residual.macs + inner.macs
    assert network.parameters == 2 * residual.parameters + inner.parameters
    assert network.output_shape == IMAGE


def test_concatenated_blocks_branch_from_their_own_values():
    conv = Conv(8, 8, 1)
    shortcut = Block("shortcut", IMAGE, (conv, Take(0), conv, Add(1)))
    network = ops.concatenate("network", [shortcut, shortcut])
    assert network.operators == (conv, Take(0), conv, Add(1), conv, Take(4), conv, Add(5))


def test_blocks_that_do_not_follow_each_other_are_not_concatenated():
    with pytest.raises(InvalidBlock, match="second takes"):
        ops.concatenate("network", [Block("first", IMAGE, (Conv(8, 4, 1),)), Block("second", IMAGE, (Conv(8, 8, 1),))])


def test_seeded_values_are_the_same_bytes_everywhere():
    content = ops.seeded(123456789 << 16 | 7, 1000, 0.25)
    assert content.dtype.str == "<f4"
    assert (
        hashlib.sha256(content.tobytes()).hexdigest()
        == "baf64257e60634c6fee22f1d9a5e9b48a491f222b6513c59ac8450e2f8b39d43"
    )


def test_every_weight_tensor_has_a_different_seed():
    block = Block("a key", IMAGE, (Conv(8, 8, 1),))
    assert block.seed == 0xB7937465
    seeds = {ops.tensor_seed(seed, index) for seed in (block.seed, block.seed + 1) for index in range(1 << 10)}
    assert len(seeds) == 2 << 10


def test_keys_are_those_of_the_published_tables():
    assert keys.first_conv_key((3, 160, 160), (24, 80, 80)) == "Conv-input:160x160x3-output:80x80x24"
    assert (
        keys.expanded_conv_key((136, 10, 10), (136, 10, 10), 408, 3, 1, True, True, True)
        == "expanded_conv-input:10x10x136-output:10x10x136-expand:408-kernel:3-stride:1-idskip:1-se:1-hs:1"
    )
    assert keys.final_expand_key((192, 5, 5), (1152, 5, 5)) == "Conv_1-input:5x5x192-output:5x5x1152"
    assert keys.pool_key((1152, 5, 5), (1152, 1, 1)) == "AvgPool2D-input:5x5x1152-output:1x1x1152"
    assert keys.feature_mix_key((1152, 1, 1), (1536, 1, 1)) == "Conv_2-input:1x1x1152-output:1x1x1536"
    assert keys.classifier_key((1536, 1, 1), 1000) == "Logits-input:1x1x1536-output:1000"
