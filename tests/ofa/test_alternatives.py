"""Spaces of positions with alternatives: blocks, keys, genes, search, and what a file may not say."""

import itertools
import json

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_nas.accuracy import MacsStandIn, Mlp
from ofa_nas.accuracy.encoding import Encoder
from ofa_nas.search import Budget, Metric, Problem, find_method, search
from ofa_nas.search.variation import Variation, places
from ofa_nas.spaces import ABSENT, Population, find_space, read_architectures
from ofa_nas.spaces.files import space_of
from ofa_nas.spaces.outline import count_networks
from ofa_tables.errors import FileError, UsageError

CELLS = """
family = "alternatives"
classes = 10
resolutions = [20, 33]

[alternatives]
k3_e1 = { kernel = 3, expand = 1 }
k5_e3 = { kernel = 5, expand = 3 }
k3_e6_se = { kernel = 3, expand = 6, squeeze_excite = true }
swish = { kernel = 3, expand = 3, activation = "swish" }
same.operators = [{ op = "depthwise", kernel = 3 }]
pooled.operators = [{ op = "max_pool", kernel = 3, stride = "stride" }, { op = "conv", channels = "out" }]
residual.operators = [
  { op = "conv", channels = "0.5*out" },
  { op = "activation" },
  { op = "depthwise", kernel = 3, stride = "stride" },
  { op = "squeeze_excite", ratio = 0.5, gate = "sigmoid" },
  { op = "conv", channels = "out", as = "main" },
  { op = "take", from = "input" },
  { op = "avg_pool", size = "stride" },
  { op = "conv", channels = "out", bias = false },
  { op = "add", to = "main" },
]

[[positions]]
stage = "stem"
operators = [{ op = "conv", channels = 16, kernel = 3, stride = 2 }, { op = "relu" }]

[[positions]]
stage = "cells"
channels = 24
stride = 2
repeat = 2
alternatives = ["residual", "k3_e6_se", "k3_e1", "pooled", "skip"]

[[positions]]
stage = "last cells"
channels = 24
activation = "hard_swish"
alternatives = ["swish", "k5_e3", "skip"]

[[positions]]
stage = "head"
operators = [
  { op = "pool" },
  { op = "linear", features = 20 },
  { op = "relu" },
  { op = "linear", features = "classes" },
]
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="cells.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def space(written):
    return find_space(written(CELLS))


@pytest.fixture
def every(space):
    """All networks at the larger resolution."""
    genes = itertools.product(*(range(radix) for radix in space.radices[:-1]), [1])
    return Population(np.array(list(genes), dtype=np.uint8).T.copy())


def test_every_network_is_a_chain_of_its_blocks_and_names_its_choices(space, every):
    assert len(every) == count_networks(space) == 4 * 5 * 3
    for architecture in space.decode(every):
        chosen = architecture.to_json()["alternatives"]
        network = space.network(architecture)
        assert network.output_shape == (10,)
        assert len(space.network_blocks(architecture)) == 2 + len(chosen) - chosen.count("skip")
    assert len(set(space.digests(every))) == len(every)
    assert len({space.network(each).key for each in space.decode(every)}) == len(every)


def test_skip_is_left_out_where_shapes_change_and_comes_first_elsewhere(space):
    assert [names[0] for names in space.names] == ["pooled", "skip", "skip"]
    assert "skip" not in space.names[0]
    smallest, largest = (read_architectures(word, space)[0][0] for word in ("smallest", "largest"))
    assert smallest.genes["alternatives"] == ("pooled", "skip", "skip")
    assert space.network(smallest).macs < space.network(largest).macs


def test_genes_and_names_convert_both_ways(space, every):
    assert (space.encode(space.decode(every)).genes == every.genes).all()
    assert (space.canonical(every).genes == every.genes).all()
    text = json.dumps(space.decode(every[[7]])[0].to_json())
    assert read_architectures(text, space)[0] == space.decode(every[[7]])
    equal = read_architectures('{"alternatives": ["k3_e1", "k3_e1", "k5_e3"], "r": 20}', space)[0][0]
    assert equal.resolution_px == 20
    assert read_architectures(space.example, space)[0][0].resolution_px == 33


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"alternatives": ["k3_e1", "swish", "swish"], "r": 20}', r"'alternatives'\[1\] is swish.*allows skip, "),
        ('{"alternatives": ["k3_e1"], "r": 20}', "needs 3 entries in 'alternatives', this one has 1"),
        ('{"alternatives": [1, 2, 3], "r": 20}', "a value that is not a name"),
        ('{"alternatives": "skip", "r": 20}', r"'alternatives'\[0\] is skip"),
        ('{"ks": 3, "r": 20}', "needs 3 entries in 'alternatives', this one has none"),
        ('{"alternatives": ["k3_e1", "skip", "skip"], "r": 21}', "no resolution 21"),
    ],
)
def test_an_architecture_that_the_space_lacks_is_one_line(space, text, said):
    with pytest.raises(UsageError, match=said):
        read_architectures(text, space)


def test_keys_differ_if_and_only_if_blocks_differ(space):
    for px in space.resolutions_px:
        by_key = {block.key: (block.input_shape, block.operators) for block in space.blocks(px)}
        assert len(by_key) == len(set(by_key.values())) == len(space.blocks(px))
    (pooled,) = (key for key in space.keys(33) if "maxpool3s1+" in key)
    assert pooled == "block-input:9x9x24-output:9x9x24-ops:maxpool3s1+conv24k1"
    (residual,) = (key for key in space.keys(33) if "take0+avgpool2" in key)
    assert residual.endswith("ops:conv16k1+relu+dwk3s2+se8:relu:sigmoid+conv24k1+take0+avgpool2+conv24k1nobias+add5")
    assert sum("-act:swish" in key for key in space.keys(33)) == 1


def test_a_block_in_the_compact_form_has_the_entry_of_the_published_tables(written):
    text = """
family = "alternatives"
classes = 10
resolutions = [128]
alternatives.k5_e6 = { kernel = 5, expand = 6 }
[[positions]]
operators = [{ op = "conv", channels = 16, kernel = 3, stride = 2 }]
[[positions]]
channels = 24
stride = 2
repeat = 2
alternatives = ["k5_e6"]
"""
    keys = find_space(written(text)).keys(128)
    published = {block.key: block.operators for block in find_space("ofa-mbv3-w1.0").blocks(128)}
    assert len(keys) == 3
    assert [key in published for key in keys] == [False, True, True]
    assert [block.operators == published.get(block.key) for block in find_space(written(text)).blocks(128)][1:] == [
        True,
        True,
    ]


def test_a_long_list_of_operators_has_a_digest_in_its_key():
    from ofa_agent.keys import operators_key

    many = [ops.Conv(8, 8, 3), ops.Activation("relu")] * 20
    one, two = (operators_key((8, 4, 4), (8, 4, 4), each) for each in (many, [*many[:-1], ops.Activation("relu6")]))
    assert one != two
    assert len(one) < 80


def test_shapes_follow_the_resolution(space):
    for px in space.resolutions_px:
        half = (px + 1) // 2
        assert space.blocks(px)[0].output_shape == (16, half, half)
        assert {block.output_shape[1] for block in space.blocks(px)[1:5]} == {(half + 1) // 2}


def test_each_position_mutates_by_itself(space):
    assert places(space).tolist() == [0, 1, 2, 3]
    problem = Problem(space, MacsStandIn(space), [], (), (33,))
    parents = Population(np.repeat(space.sample(1, np.random.default_rng(0), [33]).genes, 500, axis=1))
    children = Variation(problem, np.random.default_rng(0)).neighbours(parents)
    changed = (children.genes != parents.genes).sum(axis=0)
    assert changed.max() == 1
    assert {tuple(column) for column in children.genes.T} >= {tuple(column) for column in parents.genes.T}


def test_an_accuracy_model_sees_every_choice(space, every):
    inputs = Encoder(space, space.resolutions_px)(every)
    assert inputs.shape == (len(every), 4 + 5 + 3 + 2)
    assert (inputs.sum(axis=1) == 4).all()
    assert len(np.unique(inputs, axis=0)) == len(every)


@pytest.mark.parametrize("method", ["annealing", "evolution", "exhaustive", "random"])
def test_search_finds_the_best_network_within_the_limit(space, every, make_layers, method):
    model = Mlp(space, [make_layers(8, 8, seed=3, inputs=14)], "random.npz")
    figures = np.random.default_rng(1).uniform(0.1, 1, (2, len(space.keys(33))))
    metric = Metric("made up", "ms", "--max-latency-ms", space.pricer(figures), figures)
    prices = space.pricer(figures)(every)
    limit = float(np.quantile(prices, 0.3))
    found = search(Problem(space, model, [metric], (limit,), (33,)), find_method(method), Budget(50, 30), seed=0)
    within = every[prices <= limit]
    assert found.best[0].accuracy[0] == pytest.approx(model(within).max(), abs=1e-6)


def test_the_definition_that_a_table_keeps_makes_the_same_space(space):
    kept = json.loads(json.dumps({"family": "alternatives", **space.definition}))
    again = space_of(kept, "cells", "a table")
    assert (again.keys(33), again.names) == (space.keys(33), space.names)


def test_entries_are_shared_by_equal_positions(written):
    text = CELLS.replace("repeat = 2", "repeat = 3")
    space = find_space(written(text))
    second, third = space.positions[2:4]
    assert (second.entries == third.entries).all()
    assert second.entries[0] == ABSENT


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            '"k3_e1", "pooled"',
            '"k3_e2", "pooled"',
            "position table 2: alternatives is .*; it must be .* of skip, k3_e1",
        ),
        (
            'alternatives = ["residual", "k3_e6_se", "k3_e1", "pooled", "skip"]',
            'alternatives = ["skip", "same", "k3_e1"]',
            "position 2 .cells.: k3_e1 has the output 24 channels at 1/4 of the image, and same 16 channels at 1/2",
        ),
        ('"k3_e1", "pooled"', '"k3_e1", "k3_e1"', "position table 2: alternatives has 'k3_e1' twice"),
        (
            "repeat = 2\n",
            "",
            "position 2 .cells.: skip has the output 16 channels at 1/2 of the image, and residual 24",
        ),
        ('alternatives = ["swish", "k5_e3", "skip"]', 'alternatives = ["skip"]', 'alternatives has only "skip"'),
        ("kernel = 3, expand = 1", "kernel = 4, expand = 1", "alternative k3_e1: kernel is 4; it must be one of 1, 3"),
        ("kernel = 3, expand = 1", "kernel = 3, expnd = 1", "alternative k3_e1: expand is missing"),
        (
            "k5_e3 = { kernel = 5, expand = 3 }",
            "k5_e3 = { kernel = 3, expand = 3, activation = 'swish' }",
            "the same block",
        ),
        ('from = "input"', 'from = "inpt"', "alternative residual: operator 6: from is 'inpt'; .*one of input, main"),
        ('channels = "0.5*out"', 'channels = "half"', "residual: operator 1: channels is 'half'; it must be a number"),
        ('op = "activation"', 'op = "gelu"', "alternative residual: operator 2: op is 'gelu'; it must be one of conv"),
        ('size = "stride"', "size = 1", r"position 2 .cells.: residual: Add\(value=5\) cannot take"),
        (
            "channels = 24\nstride",
            "stride",
            'position 2 .cells.: residual: it uses the channels "out", but the position',
        ),
        (
            '{ op = "pool" },',
            '{ op = "linear", features = 5 }, { op = "pool" },',
            r"position 5 .head.: Pool\(.* cannot take a value of shape \(5,\)",
        ),
        ('as = "main"', 'as = "input"', "operator 5: as is 'input', which an earlier value has"),
        ("k3_e1 = {", "skip = {", '"skip" is built in'),
        ("repeat = 2", "repeat = 128", "more than 128 positions"),
        (
            'stage = "head"',
            'stage = "head"\nchannel = 3',
            "position table 4: unknown key 'channel'; did you mean channels",
        ),
    ],
)
def test_an_error_is_one_line_with_the_position(written, before, after, said):
    assert before in CELLS
    with pytest.raises(FileError, match=said) as found:
        find_space(written(CELLS.replace(before, after, 1)))
    assert "cells.toml: " in str(found.value)
    assert "\n" not in str(found.value)
