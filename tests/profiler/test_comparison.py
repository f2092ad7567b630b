"""Predicted against measured: the statistics, against formulas and libraries of other hands."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats

from ofa_profiler.comparison.statistics import (
    ComparedNetwork,
    Comparison,
    MacsLine,
    errors,
    excess_interval,
    noise,
    relative_errors,
)
from ofa_tables.identity import Identity
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.ranks import kendall_tau


def network(raw_ms, passes_ms, macs=1e8, name="n00"):
    return ComparedNetwork(name, f"network:{name}", {"r": 160}, 160, macs, raw_ms, (raw_ms,), passes_ms)


def comparison(networks, calibration_networks=(), calibration=None):
    identity = Identity("local", "f", "onnxruntime", "1")
    return Comparison(
        "t.lut", "s", identity, {}, {}, ("all",), tuple(networks), tuple(calibration_networks), calibration, 0.0, 1.0
    )


@pytest.fixture
def measured():
    rng = np.random.default_rng(7)
    true = rng.uniform(5, 60, size=40)
    return true * rng.normal(0.96, 0.02, size=40), true * rng.normal(1, 0.02, size=(2, 40))


def test_every_error_is_the_average_of_its_formula_over_the_two_passes(measured):
    predicted, passes = measured
    found = errors(predicted, passes)

    def average(formula):
        return pytest.approx(np.mean([formula(predicted, y) for y in passes]))

    assert found.mape == average(lambda p, y: np.mean(np.abs(p - y) / y))
    assert found.bias == average(lambda p, y: np.mean((p - y) / y))
    assert found.rmse_ms == average(lambda p, y: np.sqrt(np.mean((p - y) ** 2)))
    assert found.rmspe == average(lambda p, y: np.sqrt(np.mean(((p - y) / y) ** 2)))
    assert found.within_5 == average(lambda p, y: np.mean(np.abs(p - y) / y <= 0.05))
    assert found.within_10 == average(lambda p, y: np.mean(np.abs(p - y) / y <= 0.10))
    assert found.kendall_tau == average(lambda p, y: scipy.stats.kendalltau(p, y).statistic)


def test_excess_error_is_the_root_of_the_mean_product_of_the_passes_errors():
    found = errors([110.0, 90.0], np.array([[100.0, 100.0], [105.0, 95.0]]))
    product = np.mean([(110 / 100 - 1) * (110 / 105 - 1), (90 / 100 - 1) * (90 / 95 - 1)])
    assert found.excess_rms == pytest.approx(np.sqrt(product))


def test_excess_error_is_zero_where_the_passes_errors_disagree_in_sign():
    assert errors([100.0], np.array([[98.0], [102.0]])).excess_rms == 0


@pytest.mark.parametrize("model_error", [0.0, 0.01, 0.03])
def test_excess_error_recovers_the_models_own_error_from_passes_that_scatter_more(model_error):
    rng = np.random.default_rng(1)
    true = rng.uniform(5, 60, size=20_000)
    passes = true * (1 + rng.normal(0, 0.03, size=(2, len(true))))
    predicted = true * (1 + rng.normal(0, model_error, size=len(true)))
    relative = relative_errors(predicted, passes)
    assert np.sqrt(np.mean(relative**2)) > 0.029  # what one pass shows, whatever the model
    product = float(np.mean(relative[0] * relative[1]))
    assert product == pytest.approx(model_error**2, abs=3e-5)


def test_a_share_within_ten_percent_counts_the_limit_itself():
    assert errors([110.0], np.array([[100.0], [100.0]])).within_10 == 1


def test_noise_uses_each_pass_in_turn_as_the_prediction(measured):
    _, (one, two) = measured
    found = noise(np.stack([one, two]))
    assert found.mape == pytest.approx((np.mean(np.abs(one - two) / two) + np.mean(np.abs(two - one) / one)) / 2)
    assert found == noise(np.stack([two, one]))
    assert found.kendall_tau == pytest.approx(scipy.stats.kendalltau(one, two).statistic)


def test_a_perfect_prediction_scores_0_71_of_the_passes_mape():
    rng = np.random.default_rng(3)
    true = np.full(5_000, 20.0)
    passes = true * (1 + rng.normal(0, 0.02, size=(2, len(true))))
    assert errors(true, passes).mape / noise(passes).mape == pytest.approx(0.71, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_kendall_tau_is_scipys_with_ties_too(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 8, size=30), rng.integers(0, 8, size=30)
    assert kendall_tau(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic)


def test_kendall_tau_needs_two_different_values_on_either_side():
    assert kendall_tau([1.0], [2.0]) is None
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) is None
    assert kendall_tau([1.0, 2.0], [1.0, np.nan]) is None
    assert kendall_tau([], []) is None


def test_the_interval_of_the_excess_error_holds_the_truth_and_narrows_with_networks():
    def interval(count):
        rng = np.random.default_rng(5)
        passes = 20 * (1 + rng.normal(0, 0.02, size=(2, count)))
        return excess_interval(relative_errors(20 * (1 + rng.normal(0, 0.03, size=count)), passes))

    few, many = interval(20), interval(500)
    assert many[0] < 0.03 < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert interval(9) is None


def test_the_line_through_macs_is_found_where_there_is_one():
    calibration_networks = [network(1.0, (2 + 0.1 * m, 2 + 0.1 * m), macs=m * 1e6) for m in (60, 120, 230)]
    line = MacsLine.fit(calibration_networks)
    assert (line.base_ms, line.ms_per_mac * 1e6) == (pytest.approx(2), pytest.approx(0.1))


def test_the_line_through_macs_has_the_least_relative_error():
    rng = np.random.default_rng(2)
    macs = rng.uniform(50e6, 300e6, size=12)
    passes = (1 + macs / 1e7) * rng.normal(1, 0.1, size=(2, 12))
    line = MacsLine.fit([network(1.0, tuple(y), macs=m) for m, y in zip(macs, passes.T, strict=True)])

    def cost(base, slope):
        return np.sum(((base + slope * macs) / passes - 1) ** 2)

    best = cost(line.base_ms, line.ms_per_mac)
    for base, slope in ((1.02, 1), (0.98, 1), (1, 1.02), (1, 0.98)):
        assert cost(line.base_ms * base, line.ms_per_mac * slope) > best


@pytest.mark.parametrize(
    "calibration_networks",
    [
        [],
        [network(1.0, (1.0, 1.0))],
        [network(1.0, (1.0, 1.0)), network(1.0, (2.0, 2.0))],  # equal MACs
        [network(1.0, (1.0, 1.0)), network(1.0, (0.0, 2.0), macs=2e8)],
    ],
)
def test_a_macs_line_needs_two_networks_of_different_macs(calibration_networks):
    assert MacsLine.fit(calibration_networks) is None


def test_calibration_networks_are_in_no_test():
    tested = [network(10.0, (10.0, 10.0)), network(20.0, (20.0, 20.0), macs=2e8)]
    calibration_networks = [network(10.0, (90.0, 90.0)), network(20.0, (180.0, 180.0), macs=2e8)]
    found = comparison(tested, calibration_networks, Calibration(2.0, 2))
    assert found.raw.mape == 0
    assert found.calibrated.bias == pytest.approx(1)
    assert found.macs_baseline.bias == pytest.approx(8)
    assert found.summary()["networks"] == 2


def test_the_summary_is_the_documented_object(tmp_path):
    tested = [network(10.0, (10.0, 10.1)), network(20.0, (20.0, 20.3), macs=2e8)]
    summary = comparison(tested, tested, Calibration(1.01, 2)).summary(tmp_path / "report.html")
    names = ["mape", "bias", "rmse_ms", "rmspe", "within_5", "within_10", "kendall_tau", "excess_rms"]
    parts = ["networks", "raw", "calibrated", "macs_baseline", "noise", "references", "measured", "report", "csv"]
    assert list(summary) == parts
    assert [(one["role"], one["predicted_ms"]) for one in summary["measured"]] == [
        ("test", pytest.approx(10.1)),
        ("test", pytest.approx(20.2)),
        ("calibration", pytest.approx(10.1)),
        ("calibration", pytest.approx(20.2)),
    ]
    assert summary["measured"][1]["passes_ms"] == [20.0, 20.3]
    assert summary["csv"] == str(tmp_path / "comparison.csv")
    assert [list(summary[part]) for part in ("raw", "calibrated", "macs_baseline")] == [names] * 3
    assert list(summary["noise"]) == ["mape", "within_5", "within_10", "kendall_tau"]
    assert summary["report"] == str(tmp_path / "report.html")


def test_without_calibration_and_calibration_networks_their_figures_are_null():
    summary = comparison([network(10.0, (10.0, 10.1))]).summary()
    assert summary["calibrated"] is None
    assert summary["macs_baseline"] is None


@pytest.mark.parametrize(
    "networks",
    [
        [],
        [network(10.0, (10.0, 10.1))],
        [network(10.0, (10.0, 10.0))] * 3,
        [network(0.0, (0.0, 0.0)), network(1.0, (1.0, 1.0))],
        [network(float("nan"), (1.0, float("inf"))), network(1.0, (1.0, 1.0))],
    ],
)
def test_unknown_values_are_null_in_strict_json(networks):
    summary = comparison(networks, networks, Calibration(1.1, 1)).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_one_network_has_errors_but_no_rank():
    found = comparison([network(11.0, (10.0, 10.0))]).raw
    assert found.mape == found.excess_rms == pytest.approx(0.1)
    assert found.kendall_tau is None


def test_a_latency_of_zero_has_no_relative_error_but_one_in_ms():
    found = comparison([network(3.0, (0.0, 0.0))]).raw
    assert found.rmse_ms == 3
    assert {value for name, value in dataclasses.asdict(found).items() if name != "rmse_ms"} == {None}
