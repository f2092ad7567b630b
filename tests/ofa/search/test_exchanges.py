"""Exchanges cost and add what a linear accuracy model says, and are drawn by their weights."""

from dataclasses import replace

import numpy as np
import pytest

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.search import EvaluationCache, Metric, Problem, Run, memory_metric
from ofa_nas.search.exchanges import Exchanger, Guide
from ofa_nas.search.guided import guided
from ofa_nas.search.knapsack import Knapsacks
from ofa_nas.search.run import silent
from ofa_nas.spaces import find_space

SPACES = ["tiny", "compofa-tiny", "compofa-fixed-w1.0", "compofa-elastic-w1.0", "ofa-mbv3-w1.0", "ofa-resnet50d"]


def made_up_problem(space, *shares):
    """Limits at these shares of the ranges of random metrics."""
    entries = len(space.keys(space.resolutions_px[0]))
    figures = np.random.default_rng(0).uniform(0.1, 2.0, size=(len(shares), len(space.resolutions_px), entries))
    metrics = [Metric("made up", "ms", "--max-latency-ms", space.pricer(each), each) for each in figures]
    ends = [(m.smallest(space, space.resolutions_px), m.largest(space, space.resolutions_px)) for m in metrics]
    limits = [low + share * (high - low) for (low, high), share in zip(ends, shares, strict=True)]
    return Problem(space, MacsStandIn(space), tuple(metrics), tuple(limits), space.resolutions_px)


def exchanges_of(problem, population, priced=False):
    """Return the Exchanger, the exchanges of networks, with prices of the limits or at price 0, and the temperature."""
    knapsacks, count = Knapsacks(problem, problem.accuracy), len(population)
    exchanger = Exchanger(knapsacks, np.random.default_rng(0))
    options = knapsacks.options
    worths = options.summed(problem.accuracy.worths(population)[1].astype(np.float32), options.features)
    limits = np.repeat(np.array(problem.limits)[:, None], count, axis=1)
    solved = knapsacks.solve(worths, population.genes[-1], limits)
    guide = Guide(worths, limits, priced * solved.prices, solved.ratios)
    temperature = exchanger.typical_score(population, guide)
    return exchanger, exchanger.of(population, guide, temperature), temperature


def within(problem, count):
    """Return networks within the limits."""
    sample = problem.space.sample(4000, np.random.default_rng(1))
    return sample[np.flatnonzero(problem.fits(problem.prices(sample)))[:count]]


def changed_by(exchanger, exchanges, population, row):
    which = np.arange(len(population))
    return exchanger.applied(exchanges, population, [(which, np.full(len(population), row))])


@pytest.mark.parametrize("shares", [(0.5,), (0.4, 0.6)])
@pytest.mark.parametrize("name", SPACES)
def test_an_exchange_costs_and_adds_what_it_says(name, shares):
    space = find_space(name)
    problem = made_up_problem(space, *shares)
    population = within(problem, 3)
    exchanger, exchanges, temperature = exchanges_of(problem, population)
    prices, values = problem.prices(population), problem.accuracy(population)
    limits = np.array(problem.limits)[:, None]
    possible = np.flatnonzero((exchanges.weights > 0).any(axis=1))
    assert len(possible) > 3
    gains = temperature * np.log(np.maximum(exchanges.weights, 1e-30) / exchanges.none)
    rooms = (limits - prices) / exchanges.slack
    for row in possible:
        there = changed_by(exchanger, exchanges, population, row)
        own = np.flatnonzero(exchanges.weights[row] > 1e-20)
        differs = (space.digests(there) != space.digests(population))[own]
        assert differs.all()
        assert (there.genes[-1] == population.genes[-1]).all()
        paid = (problem.prices(there) - prices)[:, own]
        assert paid == pytest.approx((exchanges.costs[:, row] * rooms)[:, own], rel=1e-2, abs=1e-2)
        added = (problem.accuracy(there) - values)[own]
        assert added == pytest.approx(gains[row, own], rel=1e-2, abs=0.01 * temperature)


@pytest.mark.parametrize("name", SPACES)
def test_proposals_are_within_the_limits_or_nearly_so(name):
    space = find_space(name)
    problem = made_up_problem(space, 0.4, 0.5)
    population = within(problem, 500)
    exchanger, exchanges, _ = exchanges_of(problem, population, priced=True)
    there = exchanger.proposed(exchanges, population)
    assert problem.fits(problem.prices(there)).mean() > 0.9
    assert (space.digests(there) != space.digests(population)).mean() > 0.9


def test_exchanges_are_drawn_by_their_weights():
    space = find_space("tiny")
    problem = made_up_problem(space, 1.0)
    problem = replace(problem, limits=(2 * problem.limits[0],))  # nothing exceeds it
    network = space.sample(1, np.random.default_rng(2))
    population = network[np.zeros(20_000, dtype=int)]
    exchanger, exchanges, _ = exchanges_of(problem, population)
    alone = exchanges_of(problem, network)[1]
    exchanges = replace(exchanges, none=np.full(len(population), np.float32(1e9)))  # only one exchange each
    found = space.digests(exchanger.proposed(exchanges, population))
    weights = exchanges.weights[:, 0] / exchanges.weights[:, 0].sum()
    expected: dict[int, float] = {}
    for row in np.flatnonzero(weights):
        digest = int(space.digests(changed_by(exchanger, alone, network, row))[0])
        expected[digest] = expected.get(digest, 0.0) + float(weights[row])
    for digest, share in expected.items():
        assert (found == digest).mean() == pytest.approx(share, abs=0.015)


def test_options_beyond_the_limit_of_a_peak_are_never_proposed():
    space = find_space("ofa-mbv3-w1.0")
    memory = memory_metric(space)
    sample = space.sample(300, np.random.default_rng(0), (160,))
    limit = float(np.median(memory(sample)))
    problem = made_up_problem(space, 1.0)
    problem = replace(problem, metrics=(*problem.metrics, memory), limits=(*problem.limits, limit))
    population = sample[problem.fits(problem.prices(sample))]
    exchanger, exchanges, _ = exchanges_of(problem, population)
    for _ in range(5):
        assert problem.fits(problem.prices(exchanger.proposed(exchanges, population))).all()


@pytest.mark.parametrize("name", SPACES)
def test_the_annealing_ends_at_better_networks_within_each_limit(name):
    space = find_space(name)
    problem = made_up_problem(space, 0.5)
    low = problem.metrics[0].smallest(space, space.resolutions_px)
    problems = [problem.within(low + share * (problem.limits[0] - low)) for share in (0.4, 1.0)]
    run = Run(problems, EvaluationCache(problem), 20, 2000, np.random.default_rng(0), silent)
    ends = guided(run, problem.accuracy, 2000)
    for each, own in zip(problems, ends, strict=True):
        sample = space.sample(4000, np.random.default_rng(1))
        drawn = sample[each.fits(each.prices(sample))]
        assert each.fits(own.prices).all()
        assert own.prices == pytest.approx(each.prices(own.population))
        assert own.accuracy == pytest.approx(each.accuracy(own.population))
        assert len(drawn)
        assert own.accuracy.max() >= each.accuracy(drawn).max()
