"""Tables of older formats: data/format3.lut.gz was measured by the last version that wrote format 3 (space tiny, 20 and
32 px, raw samples removed), data/format3.json holds what that version predicted for five networks."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from ofa_nas.spaces import find_space
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.sqlite import FORMAT
from ofa_tables.table import CALIBRATION, PROFILED, TEST, LatencyTable

DATA = Path(__file__).parent / "data"
SPACE = find_space("tiny")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "old.lut"
    path.write_bytes(gzip.decompress((DATA / "format3.lut.gz").read_bytes()))
    return path


def format_of(path):
    return int.from_bytes(path.read_bytes()[60:64], "big")


def assert_predicts_as_before(table):
    networks = SPACE.sample(5, np.random.default_rng(0), [20, 32])
    model = LatencyModel.calibrated(table, SPACE)
    before = json.loads((DATA / "format3.json").read_text())
    assert model.predict(networks) == pytest.approx(before["calibrated_ms"], rel=1e-12)
    assert model.raw(networks) == pytest.approx(before["raw_ms"], rel=1e-12)


def test_reading_converts_a_copy_and_leaves_the_file_alone(path):
    before = path.read_bytes()
    path.chmod(0o444)
    with LatencyTable.read(path) as table:
        assert_predicts_as_before(table)
    assert path.read_bytes() == before


def test_opening_for_writing_converts_the_file_once(path):
    assert format_of(path) == 3
    with LatencyTable.open(path) as table:
        assert_predicts_as_before(table)
        roles = [role for *_, role in table.store.networks()]
        assert {role: roles.count(role) for role in roles} == {PROFILED: 113, CALIBRATION: 9, TEST: 3}
        measurements = table.measurements
        assert len({measurement.trial_id for measurement in measurements}) == len(measurements)
    assert format_of(path) == FORMAT
    with LatencyTable.open(path) as table:
        assert_predicts_as_before(table)
        assert len(table.measurements) == len(measurements)
