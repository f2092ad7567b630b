"""Space files: what they express, what they refuse, and how a table keeps the space."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ofa_nas.spaces import all_spaces, find_space
from ofa_nas.spaces.files import BuiltIn, definition_of, is_file, space_of
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces.outline import count_networks, outline_of
from ofa_nas.spaces.recorded import about, difference, find_space_of, record, recorded, space_about, spaces_of
from ofa_tables.errors import FileError, TableMismatch, UnknownName, UsageError
from ofa_tables.identity import Identity
from ofa_tables.table import LatencyTable

EXAMPLES = Path(__file__).parents[2] / "examples" / "spaces"
SMALL = """
family = "inverted-residuals"
classes = 10
resolutions = [24, 32]
kernels = [3, 5]
expands = [2, 4]
depths = [1, 2]
[first]
channels = [12, 12]
activations = ["relu", "relu"]
[[stages]]
channels = 20
stride = 2
activation = "relu"
[[stages]]
channels = 36
stride = 2
activation = "hard_swish"
squeeze_excite = true
[last]
channels = [128]
activation = "hard_swish"
"""
BOTTLENECKS = """
family = "bottlenecks"
classes = 10
resolutions = [32]
widths = [0.5, 1.0]
more_blocks = [0, 1]
[stem]
channels = 16
[[stages]]
channels = 32
stride = 1
blocks = 1
[[stages]]
channels = 64
stride = 2
blocks = 1
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="mine.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("bench", "f00d", "onnxruntime", "1.18.0"), {}) as made:
        yield made


# What a file expresses.


@pytest.mark.parametrize("space", all_spaces(), ids=lambda space: space.name)
def test_the_definition_of_a_space_makes_the_same_space(space):
    definition = json.loads(json.dumps(definition_of(space)))
    again = space_of(definition, space.name, "a table")
    px = space.resolutions_px[0]
    assert (again.keys(px), again.blocks(px), again.groups) == (space.keys(px), space.blocks(px), space.groups)
    networks = space.sample(50, np.random.default_rng(0))
    assert (again.digests(networks) == space.digests(networks)).all()


@pytest.mark.parametrize("text", [SMALL, BOTTLENECKS], ids=["inverted residuals", "bottlenecks"])
def test_a_file_is_a_space_with_the_name_of_the_file(written, text):
    space = find_space(written(text))
    assert space.name == "mine"
    networks = space.sample(20, np.random.default_rng(0))
    assert (space.encode(space.decode(networks)).genes == space.canonical(networks).genes).all()
    for px in space.resolutions_px:
        assert len(set(space.keys(px))) == len({(block.input_shape, block.operators) for block in space.blocks(px)})
    assert all(space.network(network).macs > 0 for network in space.decode(networks))


def test_like_and_width_change_only_what_they_name(written):
    space = find_space(written('like = "ofa-mbv3-w1.0"\nwidth = 1.2\nresolutions = [128]'))
    assert space.keys(128) == find_space("ofa-mbv3-w1.2").keys(128)
    assert space.resolutions_px == (128,)


def test_like_can_name_a_file_in_the_same_folder(written):
    written(SMALL, "base.toml")
    tied = find_space(written('like = "base.toml"\nexpand_by_depth = { 1 = 2, 2 = 4 }'))
    assert tied.name == "mine"
    assert set(tied.first_gene) == {"ks", "d", "r"}
    assert not set(tied.keys(24)) - set(find_space(str(Path(written(SMALL, "base.toml")))).keys(24))


def test_ties_can_fix_kernels_and_reach_stages_with_a_fixed_number_of_blocks(written):
    text = SMALL.replace("depths = [1, 2]", "depths = [2, 3]").replace(
        "stride = 2\nact", "stride = 2\nblocks = 1\nact", 1
    )
    text = f"kernel_by_stage = [3, 5]\nexpand_by_depth = {{ 1 = 4, 2 = 2, 3 = 4 }}\n{text}"
    space = find_space(written(text))
    assert space.groups[0].name == "d"
    assert count_networks(space) == 2
    blocks = [space.network_blocks(each) for each in space.decode(space.sample(4, np.random.default_rng(1)))]
    assert {len(each) for each in blocks} <= {2 + 1 + 2 + 3, 2 + 1 + 3 + 3}


@pytest.mark.parametrize(("middle", "networks"), [("optional", 2), ("always", 1), ("never", 1)])
def test_the_middle_convolution_of_a_stem_is_optional_or_not(written, middle, networks):
    text = BOTTLENECKS.replace("channels = 16", f'channels = 16\nmiddle = "{middle}"')
    text = (
        text.replace("[0.5, 1.0]", "[1.0]")
        .replace("[0, 1]", "[0]")
        .replace("resolutions = [32]", "resolutions = [32]\nexpands = [0.25]")
    )
    space = find_space(written(text))
    assert count_networks(space) == networks
    stems = {len(space.network_blocks(each)) for each in space.decode(space.sample(20, np.random.default_rng(0)))}
    assert stems == {"optional": {7, 8}, "always": {8}, "never": {7}}[middle]


def test_blocks_that_published_tables_cannot_have_name_their_activation(written):
    other = SMALL.replace('"relu"', '"swish"')
    one, two = find_space(written(SMALL, "one.toml")), find_space(written(other, "two.toml"))
    operators = {block.key: block.operators for block in (*one.blocks(24), *two.blocks(24))}
    for block in (*one.blocks(24), *two.blocks(24)):
        assert operators[block.key] == block.operators


def test_the_number_of_networks_is_that_of_different_canonical_genes(written):
    space = find_space(written(SMALL.replace("channels = 36", "blocks = 2\nchannels = 36")))
    genes = np.array(list(itertools.product(*(range(radix) for radix in space.radices[:-1]), [0])), dtype=np.uint8).T
    from ofa_nas.spaces import Population

    assert count_networks(space) == len(np.unique(space.canonical(Population(genes)).genes, axis=1).T)


def test_the_outline_has_the_ranges_of_all_networks(written):
    space = find_space(written(SMALL))
    outline = outline_of(space)
    macs = space.macs(space.sample_spread(2000, np.random.default_rng(0), [32]))
    assert outline.macs[32].smallest <= macs.min() <= macs.max() <= outline.macs[32].largest
    assert sum(stage.macs for stage in outline.stages) == outline.macs[32].largest
    assert [(stage.fewest_blocks, stage.most_blocks) for stage in outline.stages] == [(2, 2), (1, 2), (1, 2), (3, 3)]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_the_example_files_are_spaces(name):
    assert outline_of(find_space(str(EXAMPLES / name))).networks > 1


def test_the_files_in_the_documentation_are_spaces(written):
    text = (EXAMPLES.parents[1] / "docs" / "spaces.md").read_text()
    files = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spaces = [find_space(written(file, f"doc-{number}.toml")) for number, file in enumerate(files)]
    assert len({type(space) for space in spaces}) == 2
    assert f"networks     {count_networks(spaces[0]):,.0f} per resolution" in text


# What is refused.


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("stride = 2", "stride = 9", "mine.toml: stage 1: stride is 9; it must be a whole number from 1 to 8"),
        ("stride = 2", "strid = 2", "stage 1: stride is missing"),
        ("stride = 2", "stride = 2\nkernal = 3", "stage 1: unknown key 'kernal'; known keys: channels, blocks, stride"),
        ("kernels = [3, 5]", "kernels = [3, 4]", "kernels has the even number 4"),
        ("kernels = [3, 5]", "kernels = [5, 3]", "kernels is [5, 3]; it must be a list of at most 8"),
        ("kernels = [3, 5]", "kernel = [3, 5]", "unknown key 'kernel'; did you mean kernels?"),
        ('activation = "relu"', 'activation = "gelu"', "activation is 'gelu'; it must be one of relu, relu6"),
        ("squeeze_excite = true", "squeeze_excite = 1", "stage 2: squeeze_excite is 1; it must be true or false"),
        ("depths = [1, 2]", "depths = [1, 3]\n", ""),
        ("channels = 20", "channels = 20\nblocks = 3", "stage 1: blocks is 3; it must be 2, the largest of depths"),
        ("channels = [12, 12]", "channels = [12]", "first: channels has 1 value; it needs 2"),
        ("resolutions = [24, 32]", "resolutions = { from = 8, to = 224, step = 2 }", "resolutions has 109 values"),
        ("resolutions = [24, 32]", "resolutions = []", "resolutions is []"),
        ('"inverted-residuals"', '"resnets"', "family is 'resnets'; it must be one of inverted-residuals, bottlenecks"),
        ("classes = 10", "classes = true", "classes is True"),
        ("classes = 10", "classes = 10\nname = 'a b'", "name is 'a b'"),
        ("classes = 10", "classes = 10\nname = 'tiny'", "there is another space named tiny"),
        ("classes = 10", "classes = 10\nkernel_by_stage = [3]", "kernel_by_stage needs 2 values, one for each stage"),
        ("classes = 10", "classes = 10\nexpand_by_depth = { 1 = 2 }", "expand_by_depth: 2 is missing"),
        ("classes = 10", "classes = = 10", "is not valid TOML"),
        ("[last]", "[lst]", "last is missing; did you mean lst?"),
        ("classes = 10", "classes = 10\nlike = 'nothing'", "like is 'nothing'; it must be a file"),
        ("classes = 10", "classes = 10\nlike = 'mine.toml'", "at most 5 in a row"),
    ],
)
def test_an_error_is_one_line_with_the_place_and_what_is_allowed(written, before, after, said):
    assert before in SMALL
    source = written(SMALL.replace(before, after, 1))
    if not said:
        assert find_space(source).layout.depths == (1, 3)
        return
    with pytest.raises(FileError) as found:
        find_space(source)
    assert said in str(found.value)
    assert "mine.toml" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_space_that_is_too_large_is_refused(written):
    many = SMALL.replace("[24, 32]", "{ from = 24, to = 86, step = 1 }").replace("[3, 5]", "[3, 5, 7, 9, 11, 13, 15]")
    many += 6 * '[[stages]]\nchannels = 8\nstride = 1\nactivation = "relu"\n'
    many = many.replace("expands = [2, 4]", "expands = [1, 2, 3, 4, 5, 6, 7, 8]").replace(
        "[1, 2]", "[1, 8, 16, 24, 32]"
    )
    with pytest.raises(FileError, match="the space is too large"):
        find_space(written(many))


def test_a_name_is_not_a_file_and_a_file_is_not_a_name():
    assert [is_file(name) for name in ("tiny", "a.toml", "a.py:X", "a.py", "./tiny")] == [False, True, True, True, True]
    assert all(not is_file(name) for name in BuiltIn.NAMES)
    with pytest.raises(UnknownName, match=r"a space file is given as --space my_space\.toml"):
        find_space("tinny-space")


# Python files.

PYTHON = """
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace
from ofa_nas.spaces import find_space
import dataclasses
SMALL = InvertedResidualSpace("in-python", dataclasses.replace(find_space("tiny").layout, resolutions_px=(20, 36)))
class Other(InvertedResidualSpace):
    pass
OTHER = Other("in-code", SMALL.layout)
"""


def test_a_python_file_has_a_space_with_a_name(written):
    source = written(PYTHON, "mine.py")
    assert find_space(f"{source}:SMALL").resolutions_px == (20, 36)
    for words, said in ((source, f"such as {source}:SMALL"), (f"{source}:SMALLL", "did you mean SMALL")):
        with pytest.raises(UsageError, match=said):
            find_space(words)


@pytest.mark.parametrize("text", ["1 / 0", "raise SystemExit(3)", "import nothing_like_this", "def"])
def test_a_python_file_that_does_not_run_is_one_line(written, text):
    with pytest.raises(FileError, match=r"broken\.py.* does not run: ") as found:
        find_space(written(f"\n{text}\n", "broken.py") + ":X")
    assert "\n" not in str(found.value)


# What tables and checkpoints keep.


def test_a_table_keeps_the_space_of_a_file_that_is_gone(written, table):
    source = written(SMALL)
    record(table, find_space(source))
    Path(source).unlink()
    kept = find_space_of("mine", table)
    assert kept.keys(24) == space_of({**definition_of(kept)}, "x", "x").keys(24)
    assert spaces_of(table)[0] is kept
    with pytest.raises(UnknownName, match="did you mean mine"):
        find_space_of("mine2", table)


def test_commands_name_a_space_by_its_file(written):
    source = written(SMALL)
    assert find_space(source).given_as == source
    assert find_space("tiny").given_as == "tiny"


def test_a_table_keeps_no_space_that_a_name_finds(table):
    record(table, find_space("tiny"))
    assert recorded(table) == []
    assert about(find_space("tiny")) == {"space": "tiny"}


def test_another_space_of_the_same_name_is_refused_and_says_what_differs(written, table):
    record(table, find_space(written(SMALL)))
    record(table, find_space(written(f"# with a comment\n{SMALL}")))
    changed = written(SMALL.replace("channels = 36", "channels = 40"))
    for step in (lambda: record(table, find_space(changed)), lambda: find_space_of(changed, table)):
        with pytest.raises(TableMismatch, match=r"another space named mine \(stages 2: channels 36 there, 40 here\)"):
            step()


def test_a_space_of_a_python_file_is_kept_if_a_file_can_express_it(written, table):
    source = written(PYTHON, "mine.py")
    for name in ("SMALL", "OTHER"):
        record(table, find_space(f"{source}:{name}"))
    assert [space.name for space in recorded(table)] == ["in-python"]
    assert find_space_of("in-python", table).resolutions_px == (20, 36)
    with pytest.raises(UsageError, match=r"only the name of the space in-code.*--space my_file\.py:NAME"):
        find_space_of("in-code", table)
    assert find_space_of(f"{source}:OTHER", table).name == "in-code"


def test_a_definition_is_found_again_from_what_a_checkpoint_keeps(written):
    space = find_space(written(SMALL))
    kept = json.loads(json.dumps(about(space)))
    assert space_about(kept, "a checkpoint").keys(32) == space.keys(32)
    with pytest.raises(FileError, match="the space mine in a checkpoint: classes is 0"):
        space_about({**kept, "space_definition": {**kept["space_definition"], "classes": 0}}, "a checkpoint")


def test_differences_name_the_first_value_that_differs():
    one = definition_of(find_space("tiny"))
    tied = definition_of(find_space("compofa-tiny"))
    assert difference(one, tied) == 'expand_by_depth none there, {"1": 2, "2": 3, "3": 4} here'
    assert difference(one, {**one, "kernels": [3]}) == "kernels [3, 5, 7] there, [3] here"


def test_spaces_of_one_layout_have_one_definition():
    layout = find_space("tiny").layout
    one, two = (InvertedResidualSpace(name, replace(layout, classes=7)) for name in ("one", "two"))
    assert definition_of(one) == definition_of(two) != definition_of(find_space("tiny"))
