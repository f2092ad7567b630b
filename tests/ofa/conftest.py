"""Synthetic tables and accuracy models, in which every value is drawn from a seed."""

import itertools

import numpy as np
import pytest

from ofa_nas.accuracy import Linear, Mlp
from ofa_nas.spaces import find_space
from ofa_tables.identity import Identity
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable


@pytest.fixture
def make_table(tmp_path):
    """Write a table file with every entry at some resolutions. Latencies follow MACs, within a third.

    The first ``without`` entries and the ``lacking`` ones are left out. With several ``trials``, the spread of the
    trials is drawn per entry. Entries in ``once`` have one trial.
    """

    def make(
        space="compofa-fixed-w1.0",
        resolutions=(160, 192),
        seed=0,
        name="t.lut",
        without=0,
        lacking=(),
        trials=1,
        once=(),
        condition="",
    ):
        blocks = {block.key: block for px in resolutions for block in find_space(space).blocks(px)}
        rng = np.random.default_rng(seed)
        latency_ns = {key: round(2e4 + block.macs / 30 * rng.uniform(0.75, 1.33)) for key, block in blocks.items()}
        path = tmp_path / name
        with LatencyTable.create(path, Identity("bench", "f00d", "onnxruntime", "1.18.0"), {}) as table:
            kept = {key: value for key, value in list(latency_ns.items())[without:] if key not in lacking}
            apart = {key: rng.choice([0.001, 0.3]) if trials > 1 else 0.0 for key in kept}
            table.add(
                [
                    Measurement(
                        f"{key}-{number}",
                        key,
                        round=number,
                        condition=condition,
                        **statistics([round(value * np.exp(apart[key] * rng.standard_normal()))]),
                    )
                    for key, value in kept.items()
                    for number in range(1 if key in once else trials)
                ]
            )
        return path

    return make


@pytest.fixture
def make_latency(make_table, tmp_path):
    def make(space="compofa-fixed-w1.0", resolutions=(160, 192), seed=0, **others):
        name = f"{space}-{seed}-{'-'.join(map(str, resolutions))}.lut"
        path = tmp_path / name if (tmp_path / name).exists() else make_table(space, resolutions, seed, name, **others)
        with LatencyTable.read(path) as table:
            return LatencyModel(table, find_space(space))

    return make


@pytest.fixture
def make_layers():
    def make(*hidden, seed=0, inputs=128, outputs=1):
        rng = np.random.default_rng(seed)
        return [
            Linear(
                (rng.standard_normal((after, before)) / before**0.5).astype(np.float32),
                rng.standard_normal(after).astype(np.float32) / 10,
            )
            for before, after in itertools.pairwise((inputs, *hidden, outputs))
        ]

    return make


@pytest.fixture
def make_mlp(make_layers):
    def make(space="compofa-fixed-w1.0", seed=0):
        return Mlp(find_space(space), [make_layers(16, 16, seed=seed)], "random.npz")

    return make
