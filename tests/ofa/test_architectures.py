"""Architectures in the forms that people have them in."""

import json
import re

import numpy as np
import pytest

from ofa_nas.selection import read_names, read_network, read_networks
from ofa_nas.spaces import all_spaces, find_space, read_architectures
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces.parts import make_divisible
from ofa_nas.spaces.text import MOST_CHARACTERS, parse
from ofa_tables.errors import FileError, UsageError

MBV3, FIXED, TINY = (find_space(name) for name in ("ofa-mbv3-w1.0", "compofa-fixed-w1.0", "tiny"))
PROXYLESS, RESNET = (find_space(name) for name in ("ofa-proxyless-w1.3", "ofa-resnet50d"))
SPACES = all_spaces()
LISTS = {"ks": [3, 5, 7, 3] * 5, "e": [6, 4, 3, 3] * 5, "d": [4, 3, 2, 3, 4], "r": 148}


def read(source, space=MBV3, *others):
    return read_network(source if isinstance(source, str) else json.dumps(source), "this", space, *others).to_json()


def test_one_number_stands_for_equal_entries():
    assert read({"ks": 7, "e": 6, "d": 4, "r": 224}) == {"ks": [7] * 20, "e": [6] * 20, "d": [4] * 5, "r": 224}
    assert read({"ks": 7, "e": LISTS["e"], "d": 2, "image_size": [160]})["d"] == [2] * 5
    assert read({"e": 0.35, "d": 2, "w": 1, "r": 128}, RESNET) == {
        "e": [0.35] * 18,
        "d": [2] * 5,
        "w": [1] * 6,
        "r": 128,
    }
    assert read({"ks": 3, "e": 3, "d": 2, "r": 128}, PROXYLESS)["d"] == [2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_largest_network_by_numbers_by_word_and_as_the_example_of_messages(space):
    largest = read("largest", space)
    assert read(space.example, space) == largest
    assert space.encode(read_architectures("largest", space)[0]).genes.T.tolist() == [(space.radices - 1).tolist()]


def test_lists_that_follow_from_others_may_be_omitted():
    assert read({"d": 3, "r": 160}, FIXED) == read(
        {"d": [3] * 5, "e": 4, "ks": [3] * 4 + [5] * 4 + [3] * 8 + [5] * 4, "r": 160}, FIXED
    )
    assert read({"ks": 5, "d": [1, 2, 3], "r": 28}, find_space("compofa-tiny"))["e"] == [2] * 3 + [3] * 3 + [4] * 3


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_words_name_networks(space):
    smallest, largest = (space.encode(read_architectures(word, space)[0]) for word in ("smallest", "largest"))
    others = space.sample(200, np.random.default_rng(0))
    assert space.macs(smallest)[0] <= space.macs(others).min()
    assert space.macs(largest)[0] >= space.macs(others).max()
    assert read("random:7", space) == read("random:7", space) != read("random:8", space)


def test_words_choose_among_the_given_resolutions():
    for word, px in (("smallest", 160), ("largest", 192), ("random:1", 176)):
        assert read(word, MBV3, [176] if word == "random:1" else [160, 192, 176])["r"] == px


def test_words_in_lists():
    networks, many = read_networks('["smallest", {"architecture": "largest"}, "random:3"]', TINY)
    assert (len(networks), many) == (3, True)


@pytest.mark.parametrize(
    "word", ["random", "random:", "random:x", "random:-1", "random:1.5", "random:" + "9" * 30, "big"]
)
def test_other_words_are_refused(word):
    with pytest.raises((UsageError, FileError), match=r"random:0|random:SEED"):
        read(word)


PYTHON = [
    "{'ks': [3, 5, 7, 3] * 5}",
    str(LISTS),
    str({**LISTS, "r": [148], "wid": None}),
    str({name: tuple(value) if isinstance(value, list) else value for name, value in LISTS.items()}),
    json.dumps(LISTS)[:-1] + ",}",
    f"(0.78, {LISTS}, 24.5)",
    f"  [\n{LISTS},\n]  # the best\n",
    str({**LISTS, "measured": True}).replace("True", "true"),
    re.sub(r"(\d+)", r"np.int64(\1)", str(LISTS)),
    str(LISTS).replace("[", "array([").replace("]", "], dtype=int64)"),
    re.sub(r"(\d+)", r"\1.0", str(LISTS)),
]


@pytest.mark.parametrize("text", PYTHON[1:])
def test_text_that_python_printed(text, tmp_path):
    assert read(text) == LISTS
    (tmp_path / "net.txt").write_text(text, encoding="utf-8-sig")
    assert read(str(tmp_path / "net.txt")) == LISTS


@pytest.mark.parametrize(
    "text",
    [
        PYTHON[0],
        "{'ks': __import__('os').system('true')}",
        "{'ks': [" + "(" * 5000 + "]",
        "[" * 90 + "-" * 90_000 + "1" + "]" * 90,
        "{'r': " + "9" * 10_000 + "}",
        "{'r': 1, }" + " " * MOST_CHARACTERS,
        "{'a': {1, 2}}",
        "{'ks': np.load('a')}",
        "{'ks': np.int64(open('a'))}",
        "(",
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(UsageError):
        read(text)
    with pytest.raises(ValueError, match=r"."):
        parse(text if "{1, 2}" not in text else "{")


BAD = [
    "3",
    "{",
    "[]",
    "{}",
    '{"ks": 7}',
    '{"r": 224}',
    '{"ks": 9, "e": 6, "d": 4, "r": 224}',
    '{"ks": [7], "e": 6, "d": 4, "r": 224}',
]


@pytest.mark.parametrize("space", [MBV3, TINY, FIXED, RESNET, PROXYLESS], ids=lambda space: space.name)
def test_examples_in_messages_are_json_that_is_read(space):
    shown = 0
    for text in BAD:
        with pytest.raises((UsageError, FileError)) as found:
            read(text, space)
        for example in re.findall(r"(?:as in|such as|looks like) ({[^}]*})", str(found.value)):
            shown += 1
            assert read(example, space)["r"] == max(space.resolutions_px)
    assert shown >= 4


# Published network configs.


def config_of(space, architecture, conv="conv", mid=True):
    """As the published ``get_active_net_config`` makes them."""
    layout = space.layout
    names = {"hard_swish": "h_swish"}

    def layer(name, channels, out, kernel, stride, ratio, function, squeezed):
        made = {"name": name, "in_channels": channels, "out_channels": out, "kernel_size": kernel, "stride": stride}
        made |= {"expand_ratio": ratio, "act_func": names.get(function, function), "use_se": squeezed}
        return made | ({"mid_channels": make_divisible(channels * ratio)} if mid else {})

    stem, first = layout.first_channels
    blocks = [
        {"name": "ResidualBlock", conv: layer("MBConvLayer", stem, first, 3, 1, 1, layout.first_activations[1], False)}
    ]
    channels = first
    for at, kernel, ratio in space.chosen_blocks(architecture):
        stage_at, index = space.places[at]
        stage = layout.stages[stage_at]
        stride = stage.stride if index == 0 else 1
        made = layer(
            "MBConvLayer", channels, stage.channels, kernel, stride, ratio, stage.activation, stage.squeeze_excite
        )
        blocks.append({"name": "ResidualBlock", conv: made, "shortcut": None})
        channels = stage.channels
    return {
        "name": "MobileNetV3",
        "bn": {"momentum": 0.1, "eps": 1e-05},
        "first_conv": {"name": "ConvLayer", "out_channels": stem},
        "blocks": blocks,
        "feature_mix_layer": {"name": "ConvLayer", "out_channels": layout.last_channels[-1]},
        "classifier": {"name": "LinearLayer", "out_features": 1000},
    }


def resnet_config_of(architecture):
    mid, channels, _ = RESNET.chosen_widths(architecture)
    stem = [{"out_channels": mid}, {"name": "ResidualBlock"}, {"out_channels": channels}]
    blocks = [
        {"name": "ResNetBottleneckBlock", "out_channels": out, "mid_channels": inner}
        for _, inner, out in RESNET.chosen_blocks(architecture)
    ]
    return {
        "name": "ResNets",
        "input_stem": stem if RESNET.has_stem_block(architecture) else stem[::2],
        "blocks": blocks,
        "classifier": {"name": "LinearLayer"},
    }


@pytest.mark.parametrize(
    "space", [space for space in SPACES if isinstance(space, InvertedResidualSpace)] + [RESNET], ids=lambda s: s.name
)
def test_a_published_network_config_is_an_architecture(space):
    for number, architecture in enumerate(space.decode(space.sample(20, np.random.default_rng(0)))):
        if space is RESNET:
            config = resnet_config_of(architecture)
        else:
            config = config_of(space, architecture, ("conv", "mobile_inverted_conv")[number % 2], mid=number % 3 > 0)
        config = config | {"image_size": architecture.resolution_px}
        (found,), _ = read_architectures(json.dumps(config), space)
        assert space.network(found).key == space.network(architecture).key


def test_the_resolution_of_a_network_config_is_in_the_run_config_beside_it(tmp_path):
    (architecture,), _ = read_architectures("random:3", MBV3)
    config = config_of(MBV3, architecture)
    path = tmp_path / "net.config"
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match='a network config has no resolution: add "image_size": 224 to it, or put its'):
        read(str(path))
    (tmp_path / "run.config").write_text(json.dumps({"n_epochs": 150, "image_size": 176}))
    assert read(str(path))["r"] == 176
    assert read_names(str(path), MBV3) == []


def test_a_network_config_of_another_space_is_refused_with_the_space_that_has_it():
    wide = find_space("ofa-mbv3-w1.2")
    config = config_of(wide, read_architectures("random:3", wide)[0][0]) | {"r": 160}
    with pytest.raises(
        UsageError,
        match=r"is not a network of ofa-mbv3-w1\.0: .* has 24 channels, not 16; it is a network of ofa-mbv3-w1\.2$",
    ):
        read(config)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config: config["blocks"].pop(), "block|depth|'d'"),
        (lambda config: config["blocks"][4]["conv"].update(use_se=False), "block 4 has False as use_se, not True"),
        (lambda config: config["blocks"][4]["conv"].update(stride=2), "block 4 has 2 as its stride, not 1"),
        (lambda config: config["blocks"][3]["conv"].update(mid_channels=100), "has 100 channels inside"),
        (lambda config: config["blocks"][3]["conv"].update(kernel_size=9), r"'ks'\[4\] is 9"),
        (lambda config: config["blocks"][3]["conv"].pop("out_channels"), "it lacks 'out_channels'"),
        (lambda config: config["blocks"].append(config["blocks"][3]), "do not fit a stage"),
        (lambda config: config.pop("first_conv"), "it lacks 'first_conv'"),
        (lambda config: config["blocks"].clear(), "its blocks have another form"),
    ],
)
def test_a_network_config_of_no_space_is_refused_with_the_reason(change, reason):
    config = config_of(MBV3, read_architectures("smallest", MBV3)[0][0]) | {"r": 160}
    change(config)
    with pytest.raises(UsageError, match=reason):
        read(config)


def test_python_functions_accept_the_same_forms(make_table):
    library = pytest.importorskip("ofa_profiler")
    table = library.open_table(make_table())
    found = library.predict(table, ["largest", {"d": 4, "r": 192}, "smallest", {"d": 2, "r": 160}], FIXED)
    assert found[0] == found[1] > found[2] == found[3]
