"""The cost model on made-up devices."""

import numpy as np
import pytest
from made_up import log_ms

from ofa_agent import operators as ops
from ofa_nas.spaces import find_space
from ofa_tables.estimates.cost_model import CostModel, Reach
from ofa_tables.estimates.physics import COSTS, Works, works

SPACE = find_space("ofa-mbv3-w1.0")
BLOCKS = list({block.key: block for px in (160, 224) for block in SPACE.blocks(px)}.values())
MODEL = CostModel(Works.of(BLOCKS))


def some(count, seed=0):
    return np.random.default_rng(seed).choice(len(BLOCKS), count, replace=False)


def fit(truth, rows, error=0.003):
    noise = error * np.random.default_rng(7).standard_normal(len(rows))
    return MODEL.fit(rows, truth[rows] + noise, np.full(len(rows), error))


def test_the_work_of_a_block_is_that_of_its_operators():
    conv, depthwise, add = ops.Conv(8, 16, 1), ops.Conv(16, 16, 3, 2, groups=16), ops.Add(3)
    block = ops.Block("b", (8, 6, 6), (conv, ops.Activation("relu"), depthwise, add))
    of_conv, of_depthwise, of_add = works(block)
    names = list(COSTS)
    assert of_conv.units[names.index("MACs of convolutions and linear layers")] == conv.macs((8, 6, 6))
    assert of_conv.units[names.index("bytes of activations")] == 4 * (8 * 36 + 16 * 36)
    assert of_depthwise.kind == "depthwise"
    assert of_depthwise.units[names.index("outputs of depthwise convolutions")] == 16 * 9
    assert of_add.units[names.index("values of elementwise operators and pools")] == 16 * 9


def test_blocks_with_the_same_operators_share_them():
    of_space = Works.of(BLOCKS)
    assert of_space.counts.shape == (len(BLOCKS), len(of_space.units))
    assert len(of_space.units) < of_space.counts.sum() / 2


def test_ten_entries_predict_a_device_that_follows_its_costs():
    truth = log_ms(BLOCKS)
    off = fit(truth, some(10)).mean - truth
    assert np.sqrt(np.mean(off**2)) < 0.05


def test_a_device_without_fast_code_for_one_kernel_size_is_predicted_too():
    """As TFLite, which has none for 7 × 7 depthwise convolutions."""
    truth = log_ms(BLOCKS, wave=0.1, slower={"depthwise 7×7": 12.0})
    off = [fit(truth, some(40, seed)).mean - truth for seed in range(3)]
    assert np.sqrt(np.mean(np.square(off))) < 0.1


def test_more_entries_predict_better_and_the_model_knows_it():
    truth = log_ms(BLOCKS, wave=0.1)
    errors, expected = [], []
    for count in (8, 30, 120):
        found = [fit(truth, some(count, seed)) for seed in range(4)]
        errors.append(np.mean([(posterior.mean - truth) ** 2 for posterior in found]))
        expected.append(np.mean([np.diag(posterior.covariance) for posterior in found]))
    assert errors == sorted(errors, reverse=True)
    assert expected == sorted(expected, reverse=True)


@pytest.mark.parametrize("count", [15, 60])
def test_entries_lie_within_their_intervals(count):
    """Of entries that were not measured, 85 to 100 % lie in the 95 % interval, over several devices."""
    inside = []
    for phase in range(4):
        truth, rows = log_ms(BLOCKS, wave=0.12, phase=phase), some(count, phase)
        posterior = fit(truth, rows)
        others = np.setdiff1d(np.arange(len(BLOCKS)), rows)
        errors = np.sqrt(np.diag(posterior.covariance))[others]
        inside += list(np.abs(posterior.mean - truth)[others] < 1.96 * errors)
    assert 0.85 <= np.mean(inside) <= 1.0


def test_entries_with_common_operators_err_together():
    """Two blocks that differ only in the kernel share their 1 × 1 convolutions."""
    row = {block.key: number for number, block in enumerate(BLOCKS)}
    key = "expanded_conv-input:14x14x80-output:14x14x80-expand:480-kernel:5-stride:1-idskip:1-se:0-hs:1"
    alike = key.replace("kernel:5", "kernel:7")
    posterior = fit(log_ms(BLOCKS, wave=0.1), np.setdiff1d(some(20), [row[key], row[alike]]))
    one, two, other = row[key], row[alike], row["Logits-input:1x1x1280-output:1000"]
    spread = np.sqrt(np.diag(posterior.covariance))
    correlation = posterior.covariance / np.outer(spread, spread)
    assert correlation[one, two] > 0.5
    assert correlation[one, two] > correlation[one, other] + 0.3


def test_a_precise_measurement_counts_and_a_disturbed_one_does_not():
    truth, rows = log_ms(BLOCKS, wave=0.05), some(60)
    values, errors = truth[rows].copy(), np.full(len(rows), 0.003)
    values[0] += 0.5
    errors[0] = 0.3
    posterior = MODEL.fit(rows, values, errors)
    assert abs(posterior.mean[rows[0]] - truth[rows[0]]) < 0.1
    assert np.abs(posterior.mean - truth)[rows[1:]].max() < 0.01


def test_before_the_first_measurement_the_speed_is_unknown():
    nothing = np.zeros(0)
    posterior = MODEL.posterior([], nothing, nothing, Reach())
    assert np.sqrt(np.diag(posterior.covariance)).min() > 3
