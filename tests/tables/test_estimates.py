"""Estimates of all entries of a table, from some measured ones."""

import numpy as np
import pytest
from made_up import log_ms

from ofa_nas.spaces import find_blocks, find_space
from ofa_tables.errors import TableUnreadable
from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.estimates import PARTLY, PREDICTED, Estimates, estimate, estimates_of
from ofa_tables.estimates.prior import Mixture
from ofa_tables.identity import Identity
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

SPACE = find_space("compofa-fixed-w1.0")
BLOCKS = list({block.key: block for block in SPACE.blocks(160)}.values())
LATENCIES_MS = {block.key: float(np.exp(value)) for block, value in zip(BLOCKS, log_ms(BLOCKS), strict=True)}


def entry(key, latency_ms, error=0.01, trials=8):
    return Entry(key, latency_ms, latency_ms, 0.0, 0.0, trials, 80, measured_ms=latency_ms, trial_error=error)


def trials_of(key, latency_ms, count=4, name=""):
    rng = np.random.default_rng(len(key))
    return [
        Measurement(f"{key} {number}{name}", key, **statistics([round(1e6 * latency_ms * (1 + 0.01 * rng.normal()))]))
        for number in range(count)
    ]


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        table.add([trial for block in BLOCKS[::3] for trial in trials_of(block.key, LATENCIES_MS[block.key])])
        yield table


def test_entries_that_were_not_measured_are_predicted_with_an_interval(table):
    table.estimate(BLOCKS)
    predicted = table.entry(BLOCKS[1].key)
    assert PREDICTED in predicted.flags
    assert predicted.trials == 0
    assert predicted.latency_ms == pytest.approx(LATENCIES_MS[predicted.key], rel=3 * predicted.half_width)
    assert 0 < predicted.half_width < 0.5


def test_measured_entries_keep_what_was_measured(table):
    before = {entry.key: entry.latency_ms for entry in table.entries}
    table.estimate(BLOCKS)
    for entry in table.entries:
        assert entry.measured_ms == before[entry.key]
        assert entry.latency_ms == pytest.approx(entry.measured_ms, rel=0.05)
        assert PREDICTED not in entry.flags


def test_a_single_disturbed_trial_does_not_make_an_entry():
    measured = [entry(block.key, LATENCIES_MS[block.key]) for block in BLOCKS[1:]]
    disturbed = entry(BLOCKS[0].key, 1.6 * LATENCIES_MS[BLOCKS[0].key], error=0.3, trials=1)
    found = estimate(BLOCKS, [disturbed, *measured], "")
    combined = found.entry(disturbed.key, disturbed)
    assert PARTLY in combined.flags
    assert combined.latency_ms < 1.25 * LATENCIES_MS[disturbed.key]


def test_estimates_are_kept_in_the_file(table):
    made, predicted = table.estimate(BLOCKS), table.entry(BLOCKS[1].key)
    table.close()
    with LatencyTable.read(table.path) as again:
        assert again.entry(predicted.key).latency_ms == pytest.approx(predicted.latency_ms, rel=1e-5)
        assert again.estimates.weights == made.weights


def test_estimates_are_made_again_after_new_trials_once_the_blocks_are_known(table):
    table.estimate(BLOCKS)
    table.add(trials_of(BLOCKS[1].key, 3 * LATENCIES_MS[BLOCKS[1].key], count=8))
    assert PREDICTED not in table.entry(BLOCKS[1].key).flags
    assert table.entry(BLOCKS[2].key) is None
    model = LatencyModel(table, SPACE)
    assert model.resolutions_px == [160]
    assert PREDICTED in table.entry(BLOCKS[2].key).flags


def test_only_what_was_asked_for_is_predicted(table):
    table.estimate(BLOCKS[:20])
    assert table.entry(BLOCKS[19].key) is not None
    assert table.entry(BLOCKS[20].key) is None
    assert LatencyModel(table, SPACE).resolutions_px == []


def test_without_estimates_a_table_is_what_was_measured(table):
    assert table.estimates is None
    assert table.entry(BLOCKS[1].key) is None
    assert table.entries[0].latency_ms == table.entries[0].measured_ms


def test_blocks_are_found_by_their_keys():
    keys = [block.key for block in BLOCKS]
    assert [find_blocks([*keys, "unknown"])[key] for key in keys] == BLOCKS
    assert find_blocks([]) == {}


def test_common_errors_survive_storing():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(60, 5)) * 0.03
    covariance = mixing @ mixing.T + 0.004**2 * np.eye(60)
    blocks = BLOCKS[:30] + [block._replace(key=f"{block.key} again") for block in BLOCKS[:30]]
    made = estimates_of(Mixture(np.zeros(60), covariance, {}), blocks, [], "")
    read = Estimates.from_json(made.to_json())
    again = read.factors @ read.factors.T + np.diag(read.own**2)
    assert np.diag(again) == pytest.approx(np.diag(covariance), rel=1e-4)
    assert np.abs(again - covariance).max() < 0.02 * np.diag(covariance).max()


def test_estimates_whose_arrays_do_not_fit_their_keys_are_refused(table):
    value = table.estimate(BLOCKS).to_json()
    value["keys"] = value["keys"][:-1]
    table.store.put("estimates", value)
    table.close()
    with LatencyTable.read(table.path) as again, pytest.raises(TableUnreadable, match="one finite value per key"):
        again.entry(BLOCKS[1].key)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_estimates_that_are_not_latencies_are_refused(table, value):
    made = table.estimate(BLOCKS)
    made.log_ms[0] = value
    with pytest.raises(ValueError, match="one finite value per key"):
        Estimates.from_json(made.to_json())


def test_networks_err_as_their_entries_do_together(table):
    """The standard error of a network is that of sums drawn from the joint distribution of its entries."""
    made = table.estimate(BLOCKS)
    model = LatencyModel(table, SPACE)
    networks = SPACE.sample(20, np.random.default_rng(0), [160])
    rng = np.random.default_rng(1)
    draws = made.factors @ rng.normal(size=(made.factors.shape[1], 4000)) + made.own[:, None] * rng.normal(
        size=(len(made.keys), 4000)
    )
    latencies_ms = np.exp(made.log_ms)[:, None] * (1 + draws)
    row = SPACE.resolutions_px.index(160)
    keys = SPACE.keys(160)
    for number, indices in enumerate(SPACE.entry_indices(networks).T):
        sums = sum(latencies_ms[made.row[keys[index]]] for index in indices[indices >= 0])
        assert model.half_widths(networks[[number]])[0] == pytest.approx(1.98 * sums.std() / sums.mean(), rel=0.1)
    assert np.isnan(model.figures_ms[row]).sum() == 0


def test_a_table_of_an_earlier_version_predicts_between_the_sizes_that_it_measured(tmp_path):
    """What was measured stays as it is; what lies outside the measured sizes stays missing."""
    px = (128, 144, 176)
    latencies = {block.key: value for at in (*px, 160, 224) for block, value in _latencies(at)}
    with LatencyTable.create(tmp_path / "old.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        table.store.put("interpolates", True)
        table.add(
            [trial for at in px for block in SPACE.blocks(at) for trial in trials_of(block.key, latencies[block.key])]
        )
        model = LatencyModel(table, SPACE)
        assert {160} <= set(model.resolutions_px)
        assert 224 not in model.resolutions_px
        assert all(entry.latency_ms == entry.measured_ms for entry in table.entries)
        networks = SPACE.sample(30, np.random.default_rng(0), [160])
        truth = SPACE.pricer(
            np.array([[latencies.get(key, np.nan) for key in SPACE.keys(at)] for at in SPACE.resolutions_px])
        )
        assert model.predict(networks) == pytest.approx(truth(networks), rel=0.02)


def _latencies(px):
    blocks = SPACE.blocks(px)
    return list(zip(blocks, np.exp(log_ms(blocks)), strict=True))
