"""Calibration with synthetic networks: the latency of each entry is wrong by a known factor."""

import numpy as np
import pytest

from ofa_nas.spaces import find_space
from ofa_tables.errors import TableMismatch
from ofa_tables.estimates.keys import place
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, read_calibration, write_calibration
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")
RNG = np.random.default_rng(3)
KEYS = list(dict.fromkeys(key for px in SPACE.resolutions_px for key in SPACE.keys(px)))
OF_PLACE = {name: RNG.normal(0, 0.05) for name in dict.fromkeys(map(place, KEYS))}
OFF = {key: OF_PLACE[place(key)] + RNG.normal(0, 0.03) for key in KEYS}


class Truth:
    """A device on which each entry of the table is wrong by OFF, and networks have measurement noise."""

    def __init__(self, table, noise=0.005):
        self.model = LatencyModel(table, SPACE)
        factors = np.array([[1 + OFF[key] for key in SPACE.keys(px)] for px in SPACE.resolutions_px])
        self._true = SPACE.pricer(self.model.figures_ms * factors)
        self._noise, self._rng = noise, np.random.default_rng(7)

    def networks(self, count, seed, resolutions=(160,)):
        return SPACE.canonical(SPACE.sample_spread(count, np.random.default_rng(seed), resolutions))

    def measured(self, networks):
        return 1.1 * self._true(networks) * np.exp(self._rng.normal(0, self._noise, len(networks)))

    def calibrate(self, count, **where):
        networks = self.networks(count, seed=1, **where)
        return self.model.fit_calibration(networks, self.measured(networks))

    def off(self, calibration, seed=2, **where):
        """Return the root mean square of the relative errors of networks that were not used in the fit."""
        networks = self.networks(200, seed, **where)
        predicted = LatencyModel(self.model.table, SPACE, calibration).predict(networks)
        return float(np.sqrt(np.mean((predicted / (1.1 * self._true(networks)) - 1) ** 2)))


@pytest.fixture
def truth(make_table):
    with LatencyTable.read(make_table(resolutions=(160, 224))) as table:
        yield Truth(table)


def test_shifts_correct_wrong_entries_better_than_the_line(truth):
    line = Calibration.fit(truth.model.raw(truth.networks(40, 1)), truth.measured(truth.networks(40, 1)))
    assert truth.off(truth.calibrate(40)) < 0.7 * truth.off(line)


def test_more_networks_give_a_better_calibration(truth):
    assert truth.off(truth.calibrate(120)) < truth.off(truth.calibrate(30))


def test_few_networks_calibrate_only_the_line(truth):
    assert not truth.calibrate(5).shifts


def test_correct_entries_are_hardly_shifted(truth, monkeypatch):
    for key in OFF:
        monkeypatch.setitem(OFF, key, 0.0)
    exact = Truth(truth.model.table)
    calibration = exact.calibrate(40)
    assert exact.off(calibration) < 0.006
    assert max(abs(shift) for shift in calibration.shifts.values()) < 0.03


def test_a_disturbed_network_hardly_affects_the_calibration(truth):
    networks = truth.networks(40, seed=1)
    measured = truth.measured(networks)
    measured[11] *= 1.6
    assert truth.off(truth.model.fit_calibration(networks, measured)) < 1.3 * truth.off(truth.calibrate(40))


def test_the_interval_covers_networks_outside_the_fit(truth):
    calibration = truth.calibrate(60)
    networks = truth.networks(300, seed=9)
    model = LatencyModel(truth.model.table, SPACE, calibration)
    off = np.abs(model.predict(networks) / truth.measured(networks) - 1)
    assert 0.9 <= np.mean(off <= model.half_widths(networks)) <= 1.0
    assert calibration.half_width < 0.06


def test_an_entry_outside_all_calibration_networks_has_the_shift_of_its_place(truth):
    calibration = truth.calibrate(40)
    absent = next(key for key in SPACE.keys(224) if key not in calibration.shifts)
    assert calibration.factors([absent])[0] == 1 + calibration.shifts[place(absent)]


def test_shifts_are_stored_in_the_table(make_table):
    with LatencyTable.open(make_table()) as table:
        calibration = Truth(table).calibrate(20)
        write_calibration(table, SPACE, calibration)
        assert read_calibration(table, SPACE) == calibration


def test_cheapest_and_dearest_use_the_shifted_latencies(truth):
    model = LatencyModel(truth.model.table, SPACE, truth.calibrate(40))
    for latency_ms, network in (model.cheapest([160]), model.dearest([160])):
        assert model.predict(network)[0] == pytest.approx(latency_ms)


def test_a_calibration_for_other_settings_is_refused(make_table):
    with LatencyTable.open(make_table()) as table:
        write_calibration(table, SPACE, Calibration(1.1, 9))
        kept = table.store.get("calibration/ofa-mbv3-w1.0")
        table.store.put(
            "calibration/ofa-mbv3-w1.0", {**kept, "made_for": "onnxruntime 1.18.0, fp32, 4 threads, batch 1"}
        )
        with pytest.raises(
            TableMismatch, match=r"made for onnxruntime 1.18.0, fp32, 4 threads.*ofa-compare --calibrate"
        ):
            LatencyModel.calibrated(table, SPACE)
        LatencyModel(table, SPACE)
