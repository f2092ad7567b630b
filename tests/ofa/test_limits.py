"""Limits on several devices at once, and on other things than latency; each is kept, and the optimum is still found."""

from dataclasses import replace

import numpy as np
import pytest

from ofa_agent.operators import Conv, Linear, Pool
from ofa_nas.accuracy import MacsStandIn
from ofa_nas.errors import LimitUnreachable
from ofa_nas.search import (
    Budget,
    Question,
    find_method,
    macs_meter,
    memory_meter,
    parameters_meter,
    search,
    search_front,
)
from ofa_nas.search.front import undominated
from ofa_nas.search.variation import Variation
from ofa_nas.spaces import Population, find_space
from ofa_tables.calibration import Calibration
from ofa_tables.errors import UsageError

FIXED, OFA = "compofa-fixed-w1.0", "ofa-mbv3-w1.0"
PX = (160, 192)


def between(latency, share):
    smallest, largest = latency.cheapest(PX)[0], latency.dearest(PX)[0]
    return smallest + share * (largest - smallest)


@pytest.fixture
def pose(make_latency, make_mlp):
    """A Problem on as many devices as there are shares, each limited to one of its range."""

    def make(*shares, space=FIXED, **others):
        latencies = [make_latency(space, PX, seed) for seed in range(len(shares))]
        limits = tuple(between(latency, share) for latency, share in zip(latencies, shares, strict=True))
        question = Question(find_space(space), make_mlp(space), limits, resolutions_px=PX, **others)
        return question.pose(latencies)

    return make


@pytest.mark.parametrize("method", ["annealing", "ofa"])
@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.2, 0.6), (0.5, 0.1), (0.4, 0.4, 0.4)])
def test_two_devices_are_searched_together(pose, method, shares):
    problem = pose(*shares)
    best = search(problem, find_method("exhaustive")).best[0]
    found = search(problem, find_method(method), Budget(50, 40)).best[0]
    assert (found.prices[:, 0] <= problem.limits).all()
    assert found.accuracy == pytest.approx(best.accuracy, abs=1e-6)


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.02, 0.5), (0.01, 0.01, 0.01)])
def test_a_network_within_all_limits_is_found_where_there_is_one(pose, shares):
    problem = pose(*shares, space=OFA)
    assert problem.fits(problem.prices(problem.smallest())).all()


def test_limits_that_only_clash_together_are_said(pose):
    problem = pose(0.0, 0.0, space=OFA)
    with pytest.raises(LimitUnreachable, match="together, though each alone can be met"):
        problem.smallest()


@pytest.mark.parametrize("kind", ["macs", "parameters", "memory"])
@pytest.mark.parametrize("space", [FIXED, OFA])
def test_other_limits_are_kept(pose, kind, space):
    free = pose(0.6, space=space)
    meter = {"macs": macs_meter, "parameters": parameters_meter, "memory": memory_meter}[kind](free.space)
    loose = search(free, find_method("annealing"), Budget(50, 20)).best[0]
    smallest = meter.smallest(free.space, PX)
    cap = smallest + 0.5 * (float(meter(loose.population)[0]) - smallest)
    problem = pose(0.6, space=space, caps={kind: cap})
    found = search(problem, find_method("annealing"), Budget(50, 20)).best[0]
    assert smallest <= meter(found.population)[0] <= cap
    if space == FIXED:
        best = search(problem, find_method("exhaustive")).best[0]
        assert found.accuracy == pytest.approx(best.accuracy, abs=1e-6)


@pytest.mark.parametrize("kind", ["macs", "parameters", "memory"])
def test_the_smallest_figure_there_is_is_named(pose, kind):
    flag = {"macs": "--max-macs-m", "parameters": "--max-parameters-m", "memory": "--max-memory-mb"}[kind]
    with pytest.raises(LimitUnreachable, match=f"raise {flag}"):
        search(pose(0.5, space=OFA, caps={kind: 0.01}), find_method("annealing"))


def test_peak_memory_is_that_of_running_operator_by_operator():
    space = find_space(OFA)
    population = space.sample(30, np.random.default_rng(0))
    meter = memory_meter(space, "int8", batch=2)
    for figure, architecture in zip(meter(population), space.decode(population), strict=True):
        assert figure * 1e6 == pytest.approx(2 * simulated_peak(space.network(architecture)))


def simulated_peak(network):
    """Bytes of int8, each value freed after its last use; what is no convolution writes over what it reads."""
    sizes = [int(np.prod(shape)) for shape in network.shapes]
    last_use = {value: value for value in range(len(network.operators))}
    last_use |= {operator.value: at for at, operator in enumerate(network.operators) if hasattr(operator, "value")}
    most = 0
    for at, operator in enumerate(network.operators):
        alive = sum(sizes[value] for value in range(at + 1) if last_use[value] >= at)
        most = max(most, alive + (sizes[at + 1] if isinstance(operator, Conv | Linear | Pool) else 0))
    return most


def test_with_confidence_the_upper_end_is_within(make_latency):
    latency = make_latency(OFA, PX)
    latency.calibration = Calibration(1.1, 20, 0.05, error=0.03)
    limit = 1.1 * between(latency, 0.4)
    question = Question(latency.space, MacsStandIn(latency.space), (limit,), resolutions_px=PX)
    plain = search(question.pose([latency]), find_method("annealing"), Budget(50, 20)).best[0]
    latency._standard_errors_ms = lambda population: 0.001 * np.ones(len(population))
    posed = replace(question, confidence=0.95).pose([latency])
    careful = search(posed, find_method("annealing"), Budget(50, 20)).best[0]
    half = latency.half_widths(careful.population)[0]
    assert latency.predict(careful.population)[0] * (1 + half) == pytest.approx(careful.prices[0, 0])
    assert careful.prices[0, 0] <= limit < latency.predict(plain.population)[0] * (1 + half)
    wider = latency.half_widths(careful.population, 0.99)[0]
    assert wider > half


def test_confidence_needs_intervals(make_latency, make_mlp):
    latency = make_latency(FIXED, PX)
    question = Question(latency.space, make_mlp(), (5.0,), resolutions_px=PX, confidence=0.9)
    with pytest.raises(UsageError, match="no intervals"):
        question.pose([latency])


def test_energy_needs_a_table_that_knows_it(pose):
    with pytest.raises(UsageError, match=r"has no energy of \d+ of \d+ entries"):
        pose(0.5, caps={"energy": 3.0})


def test_as_many_limits_as_tables(make_latency, make_mlp):
    latency = make_latency(FIXED, PX)
    with pytest.raises(UsageError, match="2 tables take as many latency limits"):
        Question(latency.space, make_mlp(), (5.0,)).pose([latency, latency])


# Several limits, and all of them.


@pytest.mark.parametrize("method", ["annealing", "ofa", "random", "exhaustive"])
def test_several_limits_are_searched_in_one_call(pose, method):
    problem = pose(0.5)
    limits = [problem.limits[0] * share for share in (1.0, 0.6, 0.8)]
    found = search(problem, find_method(method), Budget(50, 30), limits=limits)
    for limit, best in zip(limits, found.best, strict=True):
        alone = search(problem.within(limit), find_method("exhaustive")).best[0]
        assert best.prices[0, 0] <= limit
        assert best.accuracy == pytest.approx(alone.accuracy, abs=1e-6)


def test_what_is_found_for_one_limit_counts_for_the_others(pose):
    problem = pose(0.5, space=OFA)
    limits = [problem.limits[0] * share for share in (0.7, 0.8, 0.9, 1.0)]
    together = search(problem, find_method("annealing"), Budget(50, 40), limits=limits)
    scores = [float(best.accuracy[0]) for best in together.best]
    assert scores == sorted(scores)


def test_the_front_of_a_small_space_is_the_true_one(pose):
    problem = pose(1.01)
    every = search(problem, find_method("exhaustive"))
    assert every.evaluated == 486
    true = search_front(problem, find_method("exhaustive"))
    found = search_front(problem, find_method("annealing"), Budget(50, 200))
    assert [float(best.accuracy[0]) for best in found.best] == pytest.approx([float(b.accuracy[0]) for b in true.best])


def test_a_front_rises(pose):
    found = search_front(pose(0.8, space=OFA), find_method("annealing"), Budget(50, 100))
    prices, scores = [float(b.prices[0, 0]) for b in found.best], [float(b.accuracy[0]) for b in found.best]
    assert prices == sorted(prices)
    assert scores == sorted(set(scores))
    assert found.evaluated <= 50 * 101 * 1.05


def test_what_another_beats_is_not_in_a_front():
    price, accuracy = np.array([3.0, 1.0, 2.0, 2.0, 4.0]), np.array([0.7, 0.5, 0.6, 0.65, 0.7])
    assert list(undominated(price, accuracy)) == [1, 3, 0]


# Repair.


@pytest.mark.parametrize("shares", [(0.1,), (0.4,), (0.2, 0.3)])
def test_repaired_children_fit_and_keep_what_they_can(pose, shares):
    problem = pose(*shares, space=OFA)
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
    assert np.median(prices) > problem.limits[0] * 0.8  # not more than it takes
