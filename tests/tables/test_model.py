"""A prediction is the sum of the entries of a network, with an optional calibration."""

import numpy as np
import pytest

from ofa_nas.spaces import all_spaces, find_space
from ofa_tables.errors import EntriesMissing
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, fullest_space, read_calibration, write_calibration
from ofa_tables.table import LatencyTable


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "compofa-fixed-w1.0", "compofa-elastic-w1.0"])
def test_a_population_has_the_latencies_of_its_networks(make_table, name):
    space = find_space(name)
    population = space.sample(50, np.random.default_rng(0), (160, 224))
    with LatencyTable.read(make_table(resolutions=(160, 224))) as table:
        naive = [
            sum(table.entry(block.key, network.resolution_px).latency_ms for block in space.network_blocks(network))
            for network in space.decode(population)
        ]
        assert LatencyModel(table, space).raw(population) == pytest.approx(naive)


def test_every_network_lies_between_cheapest_and_dearest(make_table):
    space = find_space("ofa-mbv3-w1.0")
    with LatencyTable.read(make_table()) as table:
        model = LatencyModel(table, space)
    smallest, cheapest = model.cheapest()
    largest, dearest = model.dearest()
    priced = model.raw(space.sample_spread(2000, np.random.default_rng(0), (160,)))
    assert smallest <= priced.min() < priced.max() <= largest
    assert model.raw(cheapest) == pytest.approx([smallest])
    assert model.raw(dearest) == pytest.approx([largest])


def test_missing_entries_are_counted_in_the_message(make_table):
    space = find_space("ofa-mbv3-w1.0")
    missing = space.keys(160)[5:17]
    with LatencyTable.read(make_table(without=missing)) as table:
        model = LatencyModel(table, space)
    assert model.resolutions_px == []
    with pytest.raises(EntriesMissing, match=r"lacks 12 of 96 entries of ofa-mbv3-w1\.0 at 160 px") as caught:
        model.require([160])
    assert f"({missing[0]}, {missing[1]}, {missing[2]} and 9 more)" in str(caught.value)
    assert "ofa-profile --target " in str(caught.value)
    assert "--space ofa-mbv3-w1.0 --resolutions 160 --runtime onnxruntime --blocks alone --out " in str(caught.value)


def test_a_prediction_with_missing_entries_is_nan(make_table):
    space = find_space("ofa-mbv3-w1.0")
    with LatencyTable.read(make_table()) as table:
        priced = LatencyModel(table, space).raw(space.sample(20, np.random.default_rng(0), (224,)))
    assert np.isnan(priced).all()


def test_predicted_entries_are_known_after_the_file_is_closed(make_table):
    space = find_space("compofa-fixed-w1.0")
    with LatencyTable.open(make_table(space=space.name, resolutions=(160,))) as table:
        table.estimate([*space.blocks(160), *space.blocks(168)])
    with LatencyTable.read(table.path) as table:
        model = LatencyModel(table, space)
    assert model.resolutions_px == [160, 168]
    assert {entry.key for entry in model.predicted()} == set(space.keys(168)) - set(space.keys(160))


def test_a_calibration_is_a_line():
    summed = np.linspace(2.0, 6.0, 20)
    calibration = Calibration.fit(summed, 1.2 * summed - 0.4)
    assert calibration.networks == 20
    assert calibration(summed) == pytest.approx(1.2 * summed - 0.4, rel=0.01)


def test_one_disturbed_network_hardly_affects_a_calibration():
    summed = np.linspace(2.0, 6.0, 20)
    measured = 1.1 * summed
    calm = Calibration.fit(summed, measured)
    measured[7] *= 20
    assert Calibration.fit(summed, measured)(summed) == pytest.approx(calm(summed), rel=0.02)


@pytest.mark.parametrize("measured_ms", [[2.2], [2.2, 2.2, 2.2]])
def test_similar_networks_calibrate_only_the_scale(measured_ms):
    calibration = Calibration.fit([2.0] * len(measured_ms), measured_ms)
    assert calibration(2.0) == pytest.approx(2.2, rel=0.01)
    assert calibration(4.0) == pytest.approx(4.4, rel=0.03)


def test_an_interval_has_its_coverage_and_is_narrow():
    """Networks have errors of 2 % around the line, as the twenty calibration networks have."""
    rng = np.random.default_rng(0)
    within, widths = [], []
    for _ in range(200):
        summed = rng.uniform(2, 6, 40)
        measured = (1.2 * summed - 0.4) * rng.normal(1, 0.02, 40)
        calibration = Calibration.fit(summed[:20], measured[:20])
        within += list(np.abs(measured[20:] / calibration(summed[20:]) - 1) <= calibration.half_width)
        widths.append(calibration.half_width)
    assert 0.92 < np.mean(within) < 0.98
    assert np.median(widths) == pytest.approx(0.043, abs=0.005)


def test_too_few_networks_give_no_interval():
    assert Calibration.fit([1.0, 2.0, 3.0], [1.1, 2.2, 3.3]).half_width is None


def test_errors_of_entries_add_up_in_quadrature(make_table):
    space = find_space("ofa-mbv3-w1.0")
    with LatencyTable.read(make_table()) as table:
        model = LatencyModel(table, space)
        population = space.sample(50, np.random.default_rng(0), (160,))
        halves = model.half_widths(population)
        entries = [entry.half_width for entry in table.entries]
        assert (halves < np.median(entries)).all()  # independent errors partly cancel
        fitted = LatencyModel(table, space, Calibration(1.0, 20, 0.0, error=0.05))
        assert fitted.half_widths(population) == pytest.approx(fitted.calibration.half_width)


def test_a_table_with_single_trials_has_no_intervals(make_table, trial):
    space = find_space("ofa-mbv3-w1.0")
    keys = space.keys(160)
    with LatencyTable.open(make_table(without=keys)) as table:
        table.add([trial(key, 1.0) for key in keys])
        model = LatencyModel(table, space)
        assert np.isnan(model.half_widths(space.sample(3, np.random.default_rng(0), (160,)))).all()
        assert model.without_interval([160]) == keys


def test_only_networks_with_an_entry_without_interval_have_none(make_table, trial):
    space = find_space("ofa-mbv3-w1.0")
    key = space.keys(160)[7]
    with LatencyTable.open(make_table(without=(key,))) as table:
        table.add([trial(key, 1.0)])
        model = LatencyModel(table, space)
        population = space.sample(200, np.random.default_rng(0), (160,))
        has = np.array([key in {b.key for b in space.network_blocks(a)} for a in space.decode(population)])
        assert 0 < has.sum() < 200
        assert (np.isnan(model.half_widths(population)) == has).all()
        assert (np.isnan(model.upper(population, 0.9)) == has).all()
        assert model.without_interval([160]) == [key]


@pytest.mark.parametrize("calibration", [None, Calibration(1.2, 20, -0.05, error=0.001), Calibration(1.2, 3, 0.05)])
def test_least_upper_is_a_lower_bound_of_upper(make_table, calibration):
    space = find_space("ofa-mbv3-w1.0")
    with LatencyTable.read(make_table()) as table:
        model = LatencyModel(table, space, calibration)
        population = space.sample_spread(500, np.random.default_rng(0), (160,))
        base_ms, figures_ms = model.least_upper(0.95)
        upper = model.upper(population, 0.95)
        assert (base_ms + space.pricer(figures_ms)(population) <= upper * (1 + 1e-12)).all()


def test_a_calibrated_latency_increases_with_the_sum():
    calibration = Calibration.fit([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert calibration.scale > 0
    assert calibration(1.0) > 0


def test_a_calibration_is_stored_in_the_table_by_space(make_table):
    path = make_table()
    space, other = find_space("ofa-mbv3-w1.0"), find_space("compofa-elastic-w1.0")
    with LatencyTable.open(path) as table:
        write_calibration(table, space, Calibration(1.25, 8))
    with LatencyTable.read(path) as table:
        assert read_calibration(table, space) == Calibration(1.25, 8)
        assert read_calibration(table, other) is None
        model = LatencyModel.calibrated(table, space)
    population = space.sample(5, np.random.default_rng(0), (160,))
    assert model.predict(population) == pytest.approx(1.25 * model.raw(population))
    assert model.cheapest()[0] == pytest.approx(1.25 * LatencyModel(table, space).cheapest()[0])


def test_the_fullest_space_contains_the_others(make_table):
    with LatencyTable.read(make_table()) as table:
        assert fullest_space(table, all_spaces()).name == "ofa-mbv3-w1.0"
    with LatencyTable.read(make_table("fixed.lut", "compofa-fixed-w1.0")) as table:
        assert fullest_space(table, all_spaces()).name == "compofa-fixed-w1.0"


def test_the_fullest_incomplete_space_has_the_fewest_missing_entries(make_table):
    some = find_space("ofa-mbv3-w1.2").keys(160)[:3]
    with LatencyTable.read(make_table(space="ofa-mbv3-w1.2", without=some)) as table:
        assert fullest_space(table, all_spaces()).name == "ofa-mbv3-w1.2"
