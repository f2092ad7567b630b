"""The ResNet50D Space: published architectures, widths shared between stages, and sums."""

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_nas.accuracy.encoding import find_encoder, inputs_of
from ofa_nas.spaces import ABSENT, Architecture, Population, find_space, parse_architecture
from ofa_tables.errors import UsageError

SPACE = find_space("ofa-resnet50d")
LARGEST = {"d": [2, 2, 2, 2, 2], "e": [0.35] * 18, "w": [2] * 6, "image_size": 224}
SMALLEST = {"d": [0] * 5, "e": [0.2] * 18, "w": [0] * 6, "r": [128]}


def changed(architecture, name, at, value):
    values = list(architecture[name])
    values[at] = value
    return {**architecture, name: values}


def test_the_published_form_is_read_and_written():
    found = parse_architecture(changed(LARGEST, "d", 0, 0))
    (again,) = SPACE.decode(SPACE.encode([found]))
    assert again == found
    assert again.to_json() == {"e": [0.35] * 18, "d": [0, 2, 2, 2, 2], "w": [2] * 6, "r": 224}


def test_a_network_has_the_expected_blocks():
    blocks = SPACE.network_blocks(parse_architecture(SMALLEST))
    assert [block.key for block in blocks] == [
        "Conv-input:128x128x3-output:64x64x24",
        "Conv-input:64x64x24-output:64x64x40",
        "MaxPool2D-input:64x64x40-output:32x32x40",
        "bottleneck-input:32x32x40-output:32x32x168-expand:32-kernel:3-stride:1",
        "bottleneck-input:32x32x168-output:32x32x168-expand:32-kernel:3-stride:1",
        "bottleneck-input:32x32x168-output:16x16x336-expand:64-kernel:3-stride:2",
        "bottleneck-input:16x16x336-output:16x16x336-expand:64-kernel:3-stride:1",
        "bottleneck-input:16x16x336-output:8x8x664-expand:136-kernel:3-stride:2",
        *["bottleneck-input:8x8x664-output:8x8x664-expand:136-kernel:3-stride:1"] * 3,
        "bottleneck-input:8x8x664-output:4x4x1328-expand:264-kernel:3-stride:2",
        "bottleneck-input:4x4x1328-output:4x4x1328-expand:264-kernel:3-stride:1",
        "AvgPool2D-input:4x4x1328-output:1x1x1328",
        "Logits-input:1x1x1328-output:1000",
    ]


def test_the_largest_network_has_a_stem_of_three_convolutions_and_eighteen_blocks():
    blocks = SPACE.network_blocks(parse_architecture(LARGEST))
    assert sum(block.key.startswith("bottleneck") for block in blocks) == 18
    assert [block.key for block in blocks if block.key.endswith("idskip:1")] == [
        "Conv-input:112x112x32-output:112x112x32-idskip:1"
    ]
    averaged = [block for block in blocks if any(isinstance(op, ops.AvgPool) for op in block.operators)]
    assert len(averaged) == 3, "one for each stage with a stride"


def test_keys_are_unique_and_every_entry_occurs_in_a_network():
    population = SPACE.sample(20_000, np.random.default_rng(0))
    keys = SPACE.keys(224)
    assert len(keys) == len(set(keys)) == 163
    found = SPACE.entry_indices(population)
    assert set(np.unique(found)) == {ABSENT, *range(163)}


def test_macs_of_a_population_match_its_networks():
    population = SPACE.sample(20, np.random.default_rng(1))
    expected = [SPACE.network(architecture).macs for architecture in SPACE.decode(population)]
    assert SPACE.macs(population) == pytest.approx(expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_cheapest_finds_the_minimum_although_stages_share_genes(seed):
    """Values have any sign. No change of one gene and no random network is better."""
    rng = np.random.default_rng(seed)
    figures = rng.standard_normal((len(SPACE.resolutions_px), len(SPACE.keys(224))))
    pricer = SPACE.pricer(figures)
    least, network = pricer.cheapest()
    assert pricer(network) == pytest.approx(least)
    assert least <= pricer(SPACE.sample(50_000, rng)).min()
    around = [
        np.where(np.arange(len(SPACE.radices)) == row, value, network.genes[:, 0])
        for row, radix in enumerate(SPACE.radices)
        for value in range(radix)
    ]
    neighbours = Population(np.array(around, dtype=np.uint8).T.copy())
    assert least <= pricer(neighbours).min() + 1e-9


def test_networks_that_differ_only_in_a_width_or_depth_have_different_encodings():
    encoder = find_encoder(SPACE, inputs_of(SPACE, SPACE.resolutions_px), "test")
    one = parse_architecture(LARGEST)
    others = [parse_architecture(changed(LARGEST, "w", at, 0)) for at in range(6)]
    others += [parse_architecture(changed(LARGEST, "d", at, 0)) for at in range(5)]
    rows = encoder(SPACE.encode([one, *others]))
    assert len(np.unique(rows, axis=0)) == 12


@pytest.mark.parametrize(
    ("name", "at", "value", "expected"),
    [
        ("e", 17, 0.3, r"'e'\[17\] is 0.3 in the architecture; ofa-resnet50d allows 0.2, 0.25, 0.35"),
        ("d", 1, 3, r"'d'\[1\] is 3 in the architecture; ofa-resnet50d allows 0, 1, 2"),
        ("w", 5, 0.65, r"'w'\[5\] is 0.65 in the architecture; ofa-resnet50d allows 0, 1, 2"),
    ],
)
def test_an_invalid_choice_is_reported(name, at, value, expected):
    with pytest.raises(UsageError, match=expected):
        SPACE.encode([parse_architecture(changed(LARGEST, name, at, value))])


def test_missing_genes_are_reported():
    with pytest.raises(UsageError, match="needs 6 entries in 'w', this one has none"):
        SPACE.encode([Architecture({"d": (0,) * 5, "e": (0.2,) * 18}, 128)])
