"""Synthetic tables: every entry of a space at some resolutions, with random latencies from a seed."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import ofa_profiler
from ofa_nas.spaces import find_space
from ofa_tables.identity import Identity
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

IDENTITY = Identity("bench", "f00d", "onnxruntime", "1.18.0")

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "note10"

_trials = itertools.count()


@pytest.fixture
def identity():
    return IDENTITY


@pytest.fixture
def trial():
    """Make a Measurement of ``key`` with these samples in ms."""

    def make(key, *samples_ms, **fields):
        samples_ns = [round(sample * 1e6) for sample in samples_ms]
        values = {"trial_id": f"trial-{next(_trials)}", "key": key, **statistics(samples_ns), **fields}
        return Measurement(**values)

    return make


@pytest.fixture
def failed_trial():
    def make(key, status="unsupported", error="no kernel for it"):
        return Measurement(f"trial-{next(_trials)}", key, status, error)

    return make


@pytest.fixture
def make_table(tmp_path, trial):
    """Make a closed table file with three trials of every entry, except of the keys in ``without``."""

    def make(name="t.lut", space="ofa-mbv3-w1.0", resolutions=(160,), seed=0, identity=IDENTITY, without=()):
        path = tmp_path / name
        keys = dict.fromkeys(key for px in resolutions for key in find_space(space).keys(px))
        rng = np.random.default_rng(seed)
        base_ms = {key: rng.uniform(0.1, 2.0) for key in keys}
        with LatencyTable.create(path, identity, {"chip": "synthetic"}) as table:
            table.add(
                [
                    trial(key, *(base_ms[key] * rng.normal(1, 0.01, 5)), round=number)
                    for number in range(3)
                    for key in keys
                    if key not in without
                ]
            )
        return path

    return make


@pytest.fixture(scope="session")
def note10():
    """The directory of the published Note 10 tables."""
    if not DATA.is_dir():
        pytest.skip(f"the published tables are not at {DATA}")
    return DATA


@pytest.fixture
def call(call, monkeypatch, tmp_path):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def lut(tmp_path, monkeypatch):
    """A simulated table at 160 and 224 px, in the current directory."""
    monkeypatch.chdir(tmp_path)
    result = ofa_profiler.profile("xilinx-zu9eg", "ofa-mbv3-w1.0", resolutions=[160, 224], out="zu9eg.lut")
    return result.path
