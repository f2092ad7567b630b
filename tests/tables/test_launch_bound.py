"""Networks on a GPU: the latency of the queue between host and device, and which kind of model a table declares."""

import json

import numpy as np
import pytest
from made_up import COSTS, log_ms

from ofa_nas.errors import LimitUnreachable
from ofa_nas.search.constraints import latency_metric
from ofa_nas.spaces import find_space
from ofa_profiler import search
from ofa_tables.model.calibration import LAUNCH_BOUND, SUM, Calibration
from ofa_tables.model.latency_model import LatencyModel, read_calibration, write_calibration
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")


def queue_ms(space, network, device_ms, launch_ms):
    """The same recursion, block by block."""
    end = launched = 0.0
    for block in space.network_blocks(network):
        launched += launch_ms[block.key]
        end = max(end + device_ms[block.key], launched)
    return end


@pytest.fixture
def gpu_table(tmp_path, trial, identity):
    """Make a table of a GPU whose device times are ``scale`` × those of a GPU that its host can just keep busy."""

    def make(scale, without=()):
        path = tmp_path / f"gpu-{scale}.lut"
        rng = np.random.default_rng(0)
        device_ms = {key: scale * rng.uniform(0.005, 0.1) for key in SPACE.keys(160)}
        launch_ms = {key: rng.uniform(0.03, 0.06) for key in SPACE.keys(160)}
        with LatencyTable.create(path, identity, {"chip": "synthetic"}) as table:
            for number in range(3):
                for key in SPACE.keys(160):
                    times = {} if key in without else {"device_ms": device_ms[key], "launch_ms": launch_ms[key]}
                    alone_ms = max(device_ms[key], launch_ms[key])
                    table.add([trial(key, *[alone_ms] * 5, round=number, condition=json.dumps(times))])
        return path, device_ms, launch_ms

    return make


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_a_population_has_the_latencies_of_the_queue(gpu_table, scale):
    path, device_ms, launch_ms = gpu_table(scale)
    population = SPACE.sample(60, np.random.default_rng(1), (160,))
    expected = [queue_ms(SPACE, network, device_ms, launch_ms) for network in SPACE.decode(population)]
    with LatencyTable.read(path) as table:
        model = LatencyModel(table, SPACE)
        assert model.kind == LAUNCH_BOUND
        assert model.predict(population) == pytest.approx(expected)


def test_a_network_with_slow_launches_takes_as_long_as_they_do(gpu_table):
    path, _, launch_ms = gpu_table(0.01)
    (network,) = SPACE.decode(SPACE.sample(1, np.random.default_rng(1), (160,)))
    with LatencyTable.read(path) as table:
        predicted = LatencyModel(table, SPACE).predict(SPACE.encode([network]))
    launched = sum(launch_ms[block.key] for block in SPACE.network_blocks(network))
    assert predicted == pytest.approx([launched], rel=0.01)


def test_predicted_blocks_have_both_times_too(tmp_path, trial, identity):
    """Every third block of a made-up GPU is not measured; launches take 10 µs per operator."""
    blocks = SPACE.blocks(160)
    device_ms = dict(zip((block.key for block in blocks), np.exp(log_ms(blocks, COSTS / 10)), strict=True))
    launch_ms = {block.key: 0.010 * len(block.operators) for block in blocks}
    with LatencyTable.create(tmp_path / "gpu.lut", identity, {"chip": "synthetic"}) as table:
        for number, block in enumerate(blocks):
            if number % 3:
                times = json.dumps({"device_ms": device_ms[block.key], "launch_ms": launch_ms[block.key]})
                table.add([trial(block.key, *[device_ms[block.key]] * 5, condition=times)])
        table.estimate(blocks)
    population = SPACE.sample(60, np.random.default_rng(1), (160,))
    expected = [queue_ms(SPACE, network, device_ms, launch_ms) for network in SPACE.decode(population)]
    with LatencyTable.read(tmp_path / "gpu.lut") as table:
        model = LatencyModel(table, SPACE)
        assert model.kind == LAUNCH_BOUND
        assert model.predict(population) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_predictions_lie_between_the_extremes_and_above_the_linear_bound(gpu_table, scale):
    path, *_ = gpu_table(scale)
    population = SPACE.sample_spread(2000, np.random.default_rng(0), (160,))
    with LatencyTable.read(path) as table:
        model = LatencyModel(table, SPACE, Calibration(1.1, 10, 0.02, kind=LAUNCH_BOUND))
        predicted = model.predict(population)
        smallest, network = model.cheapest([160])
        assert smallest <= predicted.min() < predicted.max() <= model.dearest([160])[0]
        assert model.predict(network) == pytest.approx([smallest])
        base_ms, figures_ms = model.linear
        assert (base_ms + SPACE.pricer(figures_ms)(population) <= predicted * (1 + 1e-9)).all()
        metric = latency_metric(model)
        assert not metric.exact
        assert metric(population) == pytest.approx(predicted)


@pytest.mark.parametrize(("truth", "kind"), [("queue", LAUNCH_BOUND), ("sum", SUM)])
def test_the_calibration_keeps_the_kind_that_predicts_better(gpu_table, truth, kind):
    path, *_ = gpu_table(1.0)
    population = SPACE.sample_spread(30, np.random.default_rng(2), (160,))
    noise = np.random.default_rng(3).normal(1, 0.003, 30)
    with LatencyTable.open(path) as table:
        model = LatencyModel(table, SPACE)
        measured_ms = 1.2 * (model.predict(population) if truth == "queue" else model.raw(population)) * noise
        calibration = model.fit_calibration(population, measured_ms)
        assert calibration.kind == kind
        write_calibration(table, SPACE, calibration)
    with LatencyTable.read(path) as table:
        assert read_calibration(table, SPACE) == calibration
        calibrated = LatencyModel.calibrated(table, SPACE)
        assert calibrated.kind == kind
        assert calibrated.predict(population) == pytest.approx(measured_ms, rel=0.03)
    assert str(calibration).endswith(", model launch-bound") == (kind == LAUNCH_BOUND)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_search_stays_within_the_limit_of_the_queue(gpu_table, scale):
    path, *_ = gpu_table(scale)
    with LatencyTable.read(path) as table:
        model = LatencyModel(table, SPACE)
        smallest_ms, largest_ms = model.cheapest([160])[0], model.dearest([160])[0]
        limit_ms = (smallest_ms + largest_ms) / 2
        found = search(table, limit_ms, SPACE, resolutions=[160], generations=100)
        predicted_ms = float(model.predict(SPACE.encode([found.architecture]))[0])
        assert found.predicted_latency_ms == pytest.approx(predicted_ms)
        assert 0.9 * limit_ms < predicted_ms <= limit_ms
        with pytest.raises(LimitUnreachable):
            search(table, 0.5 * smallest_ms, SPACE, resolutions=[160], generations=100)


def test_a_table_with_an_entry_without_the_times_predicts_by_sums(gpu_table):
    path, *_ = gpu_table(1.0, without=SPACE.keys(160)[:1])
    with LatencyTable.read(path) as table:
        assert LatencyModel(table, SPACE).kind == SUM


def test_a_table_of_a_cpu_predicts_by_sums(make_table):
    with LatencyTable.read(make_table()) as table:
        model = LatencyModel(table, SPACE)
    assert (model.kind, model.is_sum) == (SUM, True)
