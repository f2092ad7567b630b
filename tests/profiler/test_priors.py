"""``--prior``: other tables, and folders of them."""

import pytest

from ofa_nas.spaces import find_space
from ofa_profiler.priors import priors_of, read_priors
from ofa_tables.errors import UsageError
from ofa_tables.identity import Identity
from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

SPACE = find_space("compofa-fixed-w1.0")
BLOCKS = SPACE.blocks(160)


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a table with some measured blocks, and returns its path."""

    def make(name, blocks):
        path = tmp_path / f"{name}.lut"
        with LatencyTable.create(path, Identity(name, "f", "onnxruntime", "1"), {}) as table:
            ms = {"count": 9, "median_ms": 1.0, "mean_ms": 1.0, "std_ms": 0.0}
            table.add([Measurement(block.key, block.key, **ms) for block in blocks])
        return path

    return make


def test_a_folder_stands_for_its_tables_without_the_one_that_is_written(make, tmp_path):
    paths = [make(name, BLOCKS[:10]) for name in ("a", "b", "c")]
    assert [prior.name for prior in read_priors([tmp_path], paths[1])] == ["a", "c"]


def test_a_prior_has_the_blocks_of_its_entries(make, tmp_path):
    (prior,) = read_priors([make("a", BLOCKS[:10])], tmp_path / "new.lut")
    assert [block.key for block in prior.blocks] == [entry.key for entry in prior.entries]
    assert set(prior.blocks) == set(BLOCKS[:10])


def test_what_cannot_be_a_prior_is_refused_in_one_line(make, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = (
        (tmp_path / "missing.lut", "does not exist"),
        (empty, "contains no table"),
        (make("few", BLOCKS[:2]), "has 2 entries of known blocks; a prior needs 5"),
    )
    for path, said in cases:
        with pytest.raises(UsageError, match=said):
            read_priors([path], tmp_path / "new.lut")


def test_a_table_remembers_its_priors(make, tmp_path):
    first, second = make("first", BLOCKS[:10]), make("second", BLOCKS[:10])
    said = []
    with LatencyTable.open(make("new", BLOCKS[:3])) as table:
        assert priors_of(table, (), said.append) == []
        given = priors_of(table, [first, second], said.append)
        assert [prior.name for prior in given] == ["first", "second"]
        assert priors_of(table, (), said.append) == given
        second.unlink()
        assert [prior.name for prior in priors_of(table, (), said.append)] == ["first"]
    (line,) = said
    assert "second.lut, a prior of" in line
