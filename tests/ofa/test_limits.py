"""Limits on several devices and on other metrics than latency: results meet them, and the optimum is found."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ofa_agent.operators import Conv, Linear, Pool
from ofa_nas.accuracy import MacsStandIn
from ofa_nas.errors import LimitUnreachable, NoneFound
from ofa_nas.search import (
    Budget,
    Metric,
    Problem,
    Question,
    find_method,
    macs_metric,
    memory_metric,
    parameters_metric,
    search,
    search_front,
    upper_metric,
)
from ofa_nas.search.pareto import undominated
from ofa_nas.search.variation import Variation
from ofa_nas.spaces import Population, find_space
from ofa_tables.errors import EntriesMissing, UsageError
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

FIXED, OFA = "compofa-fixed-w1.0", "ofa-mbv3-w1.0"
PX = (160, 192)
SHORT = Budget(10, 1)


def between(latency, share):
    smallest, largest = latency.cheapest(PX)[0], latency.dearest(PX)[0]
    return smallest + share * (largest - smallest)


@pytest.fixture
def to_problem(make_latency, make_mlp):
    """A Problem with one device per share. Each limit is at this share of the latency range of the device."""

    def make(*shares, space=FIXED, **others):
        latencies = [make_latency(space, PX, seed) for seed in range(len(shares))]
        limits = tuple(between(latency, share) for latency, share in zip(latencies, shares, strict=True))
        question = Question(find_space(space), make_mlp(space), limits, resolutions_px=PX, **others)
        return question.to_problem(latencies)

    return make


@pytest.mark.parametrize("method", ["annealing", "ofa"])
@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.2, 0.6), (0.5, 0.1), (0.4, 0.4, 0.4)])
def test_two_devices_are_searched_together(to_problem, method, shares):
    problem = to_problem(*shares)
    best = search(problem, find_method("exhaustive")).best[0]
    found = search(problem, find_method(method), Budget(50, 40)).best[0]
    assert (found.prices[:, 0] <= problem.limits).all()
    assert found.accuracy == pytest.approx(best.accuracy, abs=1e-6)


@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.2, 0.4)])
def test_on_two_devices_no_feasible_network_of_either_front_is_better(to_problem, shares):
    problem, budget = to_problem(*shares, space=OFA), Budget(100, 200)
    found = search(problem, find_method("annealing"), budget).best[0]
    assert (found.prices[:, 0] <= problem.limits).all()
    for device in range(2):
        alone = replace(
            problem, metrics=problem.metrics[device : device + 1], limits=problem.limits[device : device + 1]
        )
        front = search_front(alone, find_method("annealing"), budget).best
        within = [each for each in front if problem.fits(problem.prices(each.population))[0]]
        assert within, "some networks of the front are within both limits"
        assert max(float(each.accuracy[0]) for each in within) <= found.accuracy[0]


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.02, 0.5), (0.01, 0.01, 0.01)])
def test_a_network_within_all_limits_is_found_if_one_exists(to_problem, shares):
    problem = to_problem(*shares, space=OFA)
    assert problem.fits(problem.prices(problem.smallest())).all()


def test_limits_that_cannot_be_met_together_are_reported(to_problem):
    problem = to_problem(0.0, 0.0, space=OFA)
    with pytest.raises(LimitUnreachable, match="together, although each limit can be met separately"):
        problem.smallest()


def everything(space, resolutions_px=PX):
    """Return every network of a small Space."""
    indices = space.resolution_indices(resolutions_px)
    shape = (*map(int, space.radices[:-1]), len(indices))
    genes = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape))
    genes[-1] = indices[genes[-1]]
    return Population(genes.astype(np.uint8))


@pytest.fixture
def clashing(make_mlp):
    """A Problem with two independent random metrics, and the prices (2, N) of its Pareto front.

    The front is ordered by the first metric.
    """

    def make(seed):
        space = find_space(FIXED)
        rng = np.random.default_rng(seed)
        figures = rng.uniform(0.1, 2.0, size=(2, len(space.resolutions_px), len(space.keys(PX[0]))))
        metrics = tuple(Metric("made up", "ms", "--max-latency-ms", space.pricer(each), each) for each in figures)
        problem = Problem(space, make_mlp(), metrics, (100.0, 100.0), PX)
        prices = problem.prices(everything(space))
        return problem, prices[:, undominated(prices[0], -prices[1])]

    return make


def between_neighbours(problem, front):
    """Yield problems with two limits that no network meets together."""
    for one, two in zip(front.T[:-1], front.T[1:], strict=True):
        yield problem.within(two[0] * (1 - 1e-9), one[1] * (1 - 1e-9))


def test_a_network_off_the_convex_hull_is_found_if_only_it_meets_the_limits(clashing):
    free, front = clashing(0)
    by_descent = 0
    for prices in front.T:
        problem = free.within(*prices)
        assert problem.prices(problem.smallest())[:, 0] == pytest.approx(prices)
        by_descent += not problem.fits(problem.prices(problem._weighed[-1]))[0]
        for method in ("exhaustive", "annealing"):
            assert search(problem, find_method(method), SHORT).best[0].prices[:, 0] == pytest.approx(prices)
    assert by_descent  # no weights find some of these networks


def test_unreachable_limits_are_reported_only_if_proven(clashing):
    free, front = clashing(1)
    for problem in between_neighbours(free, front):
        for method in ("annealing", "ofa", "random"):
            with pytest.raises(NoneFound, match=r"was found within .* may still exist"):
                search(problem, find_method(method), SHORT)
        with pytest.raises(LimitUnreachable, match="all networks were tried"):
            search(problem, find_method("exhaustive"))
    for method in ("annealing", "exhaustive"):
        with pytest.raises(LimitUnreachable, match="together, although each limit can be met separately"):
            search(free.within(*front.min(axis=1)), find_method(method), SHORT)


def test_a_front_under_unreachable_limits_depends_on_the_method(clashing):
    free, front = clashing(2)
    problem = next(between_neighbours(free, front))
    with pytest.raises(NoneFound):
        search_front(problem, find_method("annealing"), SHORT)
    with pytest.raises(LimitUnreachable, match="all networks were tried"):
        search_front(problem, find_method("exhaustive"))


@pytest.mark.parametrize("kind", ["macs", "parameters", "memory"])
@pytest.mark.parametrize("space", [FIXED, OFA])
def test_limits_on_other_metrics_are_met(to_problem, kind, space):
    free = to_problem(0.6, space=space)
    metric = {"macs": macs_metric, "parameters": parameters_metric, "memory": memory_metric}[kind](free.space)
    loose = search(free, find_method("annealing"), Budget(50, 20)).best[0]
    smallest = metric.smallest(free.space, PX)
    cap = smallest + 0.5 * (float(metric(loose.population)[0]) - smallest)
    problem = to_problem(0.6, space=space, caps={kind: cap})
    found = search(problem, find_method("annealing"), Budget(50, 20)).best[0]
    assert smallest <= metric(found.population)[0] <= cap
    if space == FIXED:
        best = search(problem, find_method("exhaustive")).best[0]
        assert found.accuracy == pytest.approx(best.accuracy, abs=1e-6)


@pytest.mark.parametrize("kind", ["macs", "parameters", "memory"])
def test_an_unreachable_limit_names_its_flag(to_problem, kind):
    flag = {"macs": "--max-macs-m", "parameters": "--max-parameters-m", "memory": "--max-memory-mb"}[kind]
    with pytest.raises(LimitUnreachable, match=f"raise {flag}"):
        search(to_problem(0.5, space=OFA, caps={kind: 0.01}), find_method("annealing"))


def test_peak_memory_matches_a_simulated_run():
    space = find_space(OFA)
    population = space.sample(30, np.random.default_rng(0))
    metric = memory_metric(space, "int8", batch=2)
    for figure, architecture in zip(metric(population), space.decode(population), strict=True):
        assert figure * 1e6 == pytest.approx(2 * simulated_peak(space.network(architecture)))


def simulated_peak(network):
    """Return int8 bytes. Each value is freed after its last use; other operators than convolutions run in place."""
    sizes = [int(np.prod(shape)) for shape in network.shapes]
    last_use = {value: value for value in range(len(network.operators))}
    last_use |= {operator.value: at for at, operator in enumerate(network.operators) if hasattr(operator, "value")}
    most = 0
    for at, operator in enumerate(network.operators):
        alive = sum(sizes[value] for value in range(at + 1) if last_use[value] >= at)
        most = max(most, alive + (sizes[at + 1] if isinstance(operator, Conv | Linear | Pool) else 0))
    return most


def test_with_confidence_the_upper_end_is_within_the_limit(make_latency):
    latency = make_latency(OFA, PX, trials=4)
    latency.calibration = Calibration(1.1, 20, 0.05, error=0.03)
    limit = 1.1 * between(latency, 0.4)
    question = Question(latency.space, MacsStandIn(latency.space), (limit,), resolutions_px=PX)
    plain = search(question.to_problem([latency]), find_method("annealing"), Budget(50, 20)).best[0]
    problem = replace(question, confidence=0.95).to_problem([latency])
    careful = search(problem, find_method("annealing"), Budget(50, 20)).best[0]
    half = latency.half_widths(careful.population)[0]
    assert latency.predict(careful.population)[0] * (1 + half) == pytest.approx(careful.prices[0, 0])
    assert careful.prices[0, 0] <= limit < latency.predict(plain.population)[0] * (1 + half)
    wider = latency.half_widths(careful.population, 0.99)[0]
    assert wider > half


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("confidence", [0.6, 0.95])
def test_with_confidence_the_best_network_is_found(make_latency, make_mlp, seed, confidence):
    latency = make_latency(FIXED, PX, seed, trials=4)
    every = everything(latency.space)
    upper = latency.upper(every, confidence)
    limit = float(np.quantile(upper, 0.3))
    problem = Question(latency.space, make_mlp(), (limit,), resolutions_px=PX, confidence=confidence).to_problem(
        [latency]
    )
    best = problem.accuracy(every[upper <= limit]).max()
    for method in ("exhaustive", "annealing"):
        found = search(problem, find_method(method), Budget(50, 40)).best[0]
        assert found.prices[0, 0] == latency.upper(found.population, confidence)[0] <= limit
        assert found.accuracy == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_smallest_and_the_largest_upper_end_are_found(make_latency, seed):
    latency = make_latency(FIXED, PX, seed, trials=4)
    upper = latency.upper(everything(latency.space), 0.95)
    metric = upper_metric(latency, 0.95, PX)
    assert metric.bound(latency.space, PX) <= upper.min() == pytest.approx(metric.smallest(latency.space, PX))
    assert upper.max() == pytest.approx(metric.largest(latency.space, PX))


def test_a_limit_below_the_upper_end_of_the_smallest_prediction_can_be_met(make_latency, make_mlp):
    latency = make_latency(OFA, PX, trials=4)
    smallest = upper_metric(latency, 0.95, PX).smallest(latency.space, PX)
    assert smallest < 0.9995 * latency.upper(latency.cheapest(PX)[1], 0.95)[0]
    question = Question(latency.space, make_mlp(OFA), (smallest,), resolutions_px=PX, confidence=0.95)
    assert search(question.to_problem([latency]), find_method("annealing"), SHORT).best[0].prices <= smallest


def test_with_confidence_unreachable_limits_are_reported_only_if_proven(make_latency, make_mlp):
    latency = make_latency(FIXED, PX, 0, trials=4)
    upper = latency.upper(everything(latency.space), 0.95)
    question = Question(latency.space, make_mlp(), (float(upper.min()) * 0.9999,), resolutions_px=PX, confidence=0.95)
    with pytest.raises(NoneFound, match=r"was found within .* at 1\.000 × a limit"):
        search(question.to_problem([latency]), find_method("annealing"))
    with pytest.raises(LimitUnreachable, match="all networks were tried"):
        search(question.to_problem([latency]), find_method("exhaustive"))
    with pytest.raises(LimitUnreachable, match=r"smallest latency, upper end at 95\.0% is"):
        search(replace(question, latency_ms=(0.01,)).to_problem([latency]), find_method("annealing"))


@pytest.mark.parametrize("method", ["annealing", "exhaustive"])
def test_of_several_limits_an_unmet_one_is_reported_separately(make_latency, make_mlp, method):
    latency = make_latency(FIXED, PX, 0, trials=4)
    smallest = float(latency.upper(everything(latency.space), 0.95).min())
    limits = (smallest * 0.9999, 1.2 * smallest)
    problem = Question(latency.space, make_mlp(), limits, resolutions_px=PX, confidence=0.95).to_problem([latency])
    found = search(problem, find_method(method), SHORT, limits=limits)
    assert found.limits == limits[1:]
    assert found.best[0].prices[0, 0] <= limits[1]
    assert list(found.unmet) == [limits[0]]
    expected = "all networks were tried" if method == "exhaustive" else "was found within"
    assert expected in found.unmet[limits[0]]


def test_confidence_needs_intervals(make_latency, make_mlp):
    latency = make_latency(FIXED, PX)
    question = Question(latency.space, make_mlp(), (5.0,), resolutions_px=PX, confidence=0.9)
    with pytest.raises(EntriesMissing, match=r"no interval for \d+ of \d+ entries"):
        question.to_problem([latency])


def test_confidence_needs_every_interval_at_the_searched_resolutions(make_latency, make_mlp):
    space = find_space(FIXED)
    once = [key for key in space.keys(192) if key not in space.keys(160)][3:8]
    assert "--resolutions 160,192 " in make_latency(FIXED, PX, seed=1).lack_of_intervals(PX)
    latency = make_latency(FIXED, PX, trials=4, once=once)
    question = Question(space, make_mlp(), (50.0,), confidence=0.9)
    named = ", ".join(once[:3])
    with pytest.raises(EntriesMissing, match=rf"no interval for 5 of \d+ entries \({named} and 2 more\)") as refused:
        question.to_problem([latency])
    assert "--resolutions 192" in str(refused.value)
    assert "--effort thorough" in str(refused.value)
    problem = replace(question, resolutions_px=(160,)).to_problem([latency])
    assert np.isfinite(search(problem, find_method("exhaustive")).best[0].prices).all()


def test_energy_needs_a_table_with_energy(to_problem):
    with pytest.raises(EntriesMissing, match=r"has no energy for \d+ of \d+ entries"):
        to_problem(0.5, caps={"energy": 3.0})


def test_energy_is_needed_only_at_the_searched_resolutions(make_table, make_mlp):
    space = find_space(FIXED)
    path = make_table(FIXED, (160,), condition=json.dumps({"power_w": 2.0}))
    with LatencyTable.open(path) as table:
        others = [key for key in space.keys(192) if key not in space.keys(160)]
        table.add([Measurement(key, key, **statistics([100_000])) for key in others])
        latency = LatencyModel(table, space)
    question = Question(space, make_mlp(), (50.0,), {"energy": 100.0}, resolutions_px=(160,))
    found = search(question.to_problem([latency]), find_method("exhaustive")).best[0]
    assert found.prices[1] == pytest.approx(2 * found.prices[0])
    with pytest.raises(EntriesMissing, match="has no energy for"):
        replace(question, resolutions_px=None).to_problem([latency])


def test_energies_of_different_power_rails_are_not_added(make_table, make_mlp):
    space = find_space(FIXED)
    path = make_table(FIXED, (160,), condition=json.dumps({"power_w": 2.0, "power_of": "VDD_IN"}))
    question = Question(space, make_mlp(), (50.0,), {"energy": 100.0}, resolutions_px=(160,))
    with LatencyTable.open(path) as table:
        question.to_problem([LatencyModel(table, space)])
        key = space.keys(160)[0]
        mixed = json.dumps({"power_w": 2.0, "power_of": "VDD_GPU_SOC"})
        trials = [Measurement(f"mixed-{n}", key, condition=mixed, **statistics([100_000])) for n in range(2)]
        table.add(trials)
        latency = LatencyModel(table, space)
    with pytest.raises(EntriesMissing, match=r"different power rails \(VDD_GPU_SOC; VDD_IN\)"):
        question.to_problem([latency])


def test_with_several_tables_the_memory_metric_names_its_table(to_problem):
    names = [metric.name for metric in to_problem(0.5, 0.5, caps={"memory": 50.0, "macs": 500.0}).metrics]
    assert names[2:] == ["peak memory of activations on compofa-fixed-w1.0-0-160-192.lut", "MACs"]


def test_several_tables_need_one_limit_each(make_latency, make_mlp):
    latency = make_latency(FIXED, PX)
    with pytest.raises(UsageError, match="2 tables need 2 latency limits"):
        Question(latency.space, make_mlp(), (5.0,)).to_problem([latency, latency])


# Several limits, and fronts.


@pytest.mark.parametrize("method", ["annealing", "ofa", "random", "exhaustive"])
def test_several_limits_are_searched_in_one_call(to_problem, method):
    problem = to_problem(0.5)
    limits = [problem.limits[0] * share for share in (1.0, 0.6, 0.8)]
    found = search(problem, find_method(method), Budget(50, 30), limits=limits)
    for limit, best in zip(limits, found.best, strict=True):
        alone = search(problem.within(limit), find_method("exhaustive")).best[0]
        assert best.prices[0, 0] <= limit
        assert best.accuracy == pytest.approx(alone.accuracy, abs=1e-6)


def test_the_budget_of_several_limits_is_bounded(to_problem):
    problem = to_problem(0.5)
    with pytest.raises(UsageError, match=r"for each of 3 limits, are more than the 10,000,000 networks"):
        search(problem, find_method("random"), Budget(1000, 4999), limits=[problem.limits[0]] * 3)


def test_networks_found_for_one_limit_count_for_the_others(to_problem):
    problem = to_problem(0.5, space=OFA)
    limits = [problem.limits[0] * share for share in (0.7, 0.8, 0.9, 1.0)]
    together = search(problem, find_method("annealing"), Budget(50, 40), limits=limits)
    scores = [float(best.accuracy[0]) for best in together.best]
    assert scores == sorted(scores)


def test_the_front_of_a_small_space_is_exact(to_problem):
    problem = to_problem(1.01)
    every = search(problem, find_method("exhaustive"))
    assert every.evaluated == 486
    true = search_front(problem, find_method("exhaustive"))
    found = search_front(problem, find_method("annealing"), Budget(50, 200))
    assert [float(best.accuracy[0]) for best in found.best] == pytest.approx([float(b.accuracy[0]) for b in true.best])


def test_a_front_rises_in_latency_and_accuracy(to_problem):
    found = search_front(to_problem(0.8, space=OFA), find_method("annealing"), Budget(50, 100))
    prices, scores = [float(b.prices[0, 0]) for b in found.best], [float(b.accuracy[0]) for b in found.best]
    assert prices == sorted(prices)
    assert scores == sorted(set(scores))
    assert found.evaluated <= 50 * 101 * 1.05


def test_a_front_has_no_dominated_network():
    price, accuracy = np.array([3.0, 1.0, 2.0, 2.0, 4.0]), np.array([0.7, 0.5, 0.6, 0.65, 0.7])
    assert list(undominated(price, accuracy)) == [1, 3, 0]


# Repair.


@pytest.mark.parametrize("shares", [(0.1,), (0.4,), (0.2, 0.3)])
def test_repaired_children_are_feasible_and_keep_most_genes(to_problem, shares):
    problem = to_problem(*shares, space=OFA)
    rng = np.random.default_rng(0)
    variation = Variation(problem, rng)
    parents = Population(np.repeat(problem.smallest().genes, 300, axis=1))
    children = variation.newcomers(300)
    limits = np.repeat(np.array(problem.limits)[:, None], 300, axis=1)
    repaired = variation.repaired(children, parents, limits)
    assert problem.fits(problem.prices(repaired)).all()
    of_either = (repaired.genes == children.genes) | (repaired.genes == parents.genes)
    assert of_either.all()
    fitted = problem.fits(problem.prices(children))
    assert (repaired.genes[:, fitted] == children.genes[:, fitted]).all()
    prices = problem.prices(repaired)[0]
    assert np.median(prices) > problem.limits[0] * 0.8  # repair takes few genes
