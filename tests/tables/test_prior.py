"""Other tables as prior, on made-up devices that are alike or not."""

import numpy as np
import pytest
from made_up import COSTS, log_ms

from ofa_nas.spaces import find_space
from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.prior import NO_PRIOR, Hypotheses, PriorTable

SPACE = find_space("ofa-mbv3-w1.0")
BLOCKS = list({block.key: block for block in SPACE.blocks(160)}.values())
TRUTH = log_ms(BLOCKS, wave=0.15)
ALIKE = log_ms(BLOCKS, costs=3 * COSTS, wave=0.15)


def table(name, values):
    entries = [
        Entry(block.key, float(np.exp(value)), float(np.exp(value)), 0.0, 0.0, 8, 80, measured_ms=float(np.exp(value)))
        for block, value in zip(BLOCKS, values, strict=True)
    ]
    return PriorTable(name, tuple(BLOCKS), tuple(entries))


def fit(priors, count=12, seed=0):
    rows = np.random.default_rng(seed).choice(len(BLOCKS), count, replace=False)
    mixture = Hypotheses(BLOCKS, priors).fit(rows, TRUTH[rows], np.full(count, 0.003))
    return mixture, float(np.std(mixture.mean - TRUTH))


@pytest.fixture(scope="module")
def lie():
    return table("lie", np.random.default_rng(0).permutation(TRUTH))


def test_a_table_of_a_similar_device_is_used_and_helps():
    mixture, error = fit([table("alike", ALIKE)])
    assert mixture.weights["alike"] > 0.9
    assert error < 0.6 * fit([])[1]


def test_a_table_that_lies_gets_no_weight_and_does_no_harm(lie):
    mixture, error = fit([lie])
    assert mixture.weights[NO_PRIOR] > 0.95
    assert error <= 1.1 * fit([])[1]


def test_beside_a_lie_the_similar_table_is_used(lie):
    mixture, error = fit([lie, table("alike", ALIKE)])
    assert mixture.weights["alike"] > 0.5 > mixture.weights["lie"]
    assert error < 0.8 * fit([])[1]


def test_weights_add_up_to_one(lie):
    mixture, _ = fit([lie, table("alike", ALIKE)])
    assert sum(mixture.weights.values()) == pytest.approx(1)
