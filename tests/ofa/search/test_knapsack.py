"""Knapsacks over the options of a space give the best networks, which exhaustive search confirms on small spaces."""

from dataclasses import replace

import numpy as np
import pytest

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.search import Metric, Problem, memory_metric
from ofa_nas.search.exact import solve_exactly
from ofa_nas.search.knapsack import Knapsacks
from ofa_nas.search.options import Options
from ofa_nas.spaces import Population, find_space
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace

SPACES = ["tiny", "compofa-tiny", "compofa-fixed-w1.0", "compofa-elastic-w1.0", "ofa-mbv3-w1.0", "ofa-resnet50d"]
LAYOUT = find_space("tiny").layout
TWO_STAGES = tuple(replace(stage, blocks=2) for stage in LAYOUT.stages[:2])
SMALL = InvertedResidualSpace("small", replace(LAYOUT, stages=TWO_STAGES, depths=(1, 2), resolutions_px=(20,)))


@pytest.fixture(scope="module")
def every():
    """All 26,244 combinations of genes of the small space."""
    shape = tuple(map(int, SMALL.radices))
    return Population(np.stack(np.unravel_index(np.arange(np.prod(shape)), shape)).astype(np.uint8))


def made_up(space, seed, count=1):
    """Random sums (count, resolutions, entries)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 2.0, size=(count, len(space.resolutions_px), len(space.keys(space.resolutions_px[0]))))


def made_up_problem(space, model, seed, *shares):
    """Limits at these shares of the ranges of random metrics."""
    figures = made_up(space, seed, len(shares))
    metrics = [Metric("made up", "ms", "--max-latency-ms", space.pricer(each), each) for each in figures]
    ends = [(m.smallest(space, space.resolutions_px), m.largest(space, space.resolutions_px)) for m in metrics]
    limits = [low + share * (high - low) for (low, high), share in zip(ends, shares, strict=True)]
    return Problem(space, model, tuple(metrics), tuple(limits), space.resolutions_px)


class Worths:
    """An accuracy model with a random worth for each entry."""

    is_accuracy, name = True, "random worths"

    def __init__(self, space, seed):
        self.space, self.resolutions_px = space, space.resolutions_px
        self.figures = made_up(space, 1000 + seed)[0]
        self.features = MacsStandIn(space).features

    def __call__(self, population):
        return self.space.pricer(self.figures)(population)

    def worths(self, population):
        padded = np.concatenate([self.figures, np.zeros((len(self.figures), 1))], axis=1)
        return self(population), padded[population.genes[-1]]


@pytest.mark.parametrize("name", SPACES)
def test_the_options_of_a_network_have_its_worths_and_costs(name):
    space = find_space(name)
    model, rng = Worths(space, 0), np.random.default_rng(0)
    knapsacks = Knapsacks(made_up_problem(space, model, 1, 0.5), model)
    options, population = knapsacks.options, space.sample(50, rng)
    chosen, at = options.chosen(population), population.genes[-1]
    values, worths = model.worths(population)
    summed = np.take_along_axis(options.summed(worths, options.features), chosen, axis=0).sum(axis=0)
    fixed = sum(worths[:, place.entries[0]] for place in space.positions if not place.genes)
    assert summed + fixed == pytest.approx(values)
    metric = made_up_problem(space, model, 1, 0.5).metrics[0]
    costs = np.take_along_axis(knapsacks.costs[0][at].T, chosen, axis=0).sum(axis=0) + knapsacks.bases[0][at]
    assert costs == pytest.approx(metric(population), rel=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_without_limits_the_best_options_are_the_exact_maximum(name):
    space = find_space(name)
    model = Worths(space, 0)
    options = Options(space, model.features)
    population = space.sample(7, np.random.default_rng(1))
    worths = options.summed(model.worths(population)[1], options.features)
    _, chosen, shared = options.best(worths)
    found = options.networks(chosen, shared, population.genes[-1])
    assert (options.chosen(found) == chosen).all()
    for at, network in enumerate(found.genes.T):
        px = space.resolutions_px[network[-1]]
        most = -space.pricer(-model.figures).cheapest([px])[0]
        assert model(found[[at]]) == pytest.approx(most)


def solved(problem, model, resolution=0):
    """The network that the multipliers find at one resolution."""
    knapsacks = Knapsacks(problem, model)
    options = knapsacks.options
    _, worths = model.worths(problem.smallest())
    summed = options.summed(worths, options.features).astype(np.float32)
    return knapsacks, summed, knapsacks.solve(summed, np.array([resolution]), np.array([problem.limits]).T)


@pytest.mark.parametrize("seed", range(20))
def test_the_exact_solution_is_that_of_exhaustive_search(every, seed):
    model = Worths(SMALL, seed)
    problem = made_up_problem(SMALL, model, seed, 0.05 + 0.04 * seed)
    knapsacks, worths, by_price = solved(problem, model)
    room = problem.limits[0] - knapsacks.bases[0, 0]
    _, network = solve_exactly(
        knapsacks.options,
        worths[:, 0].astype(float),
        made_up_costs(knapsacks, problem),
        room,
        0,
        float(by_price.prices[0]) / room,
        known=float(np.take_along_axis(worths, by_price.chosen, axis=0).sum()) * (1 - 1e-6),
    )
    within = every[problem.metrics[0](every) <= problem.limits[0]]
    best = model(within).max()
    assert model(network) == pytest.approx(best)
    assert problem.metrics[0](network) <= problem.limits[0] * (1 + 1e-9)
    assert model(by_price.population) >= best - 0.25 * np.ptp(model(within))  # of only four blocks
    assert problem.metrics[0](by_price.population) <= problem.limits[0]


def made_up_costs(knapsacks, problem):
    padded = np.concatenate([problem.metrics[0].figures[0], [0.0]])
    return padded[knapsacks.options.entries].sum(axis=0)


def test_an_exact_search_above_the_optimum_finds_nothing():
    model = Worths(SMALL, 0)
    problem = made_up_problem(SMALL, model, 0, 0.5)
    knapsacks, worths, by_price = solved(problem, model)
    costs, room = made_up_costs(knapsacks, problem), problem.limits[0] - knapsacks.bases[0, 0]
    arguments = (knapsacks.options, worths[:, 0].astype(float), costs, room, 0, float(by_price.prices[0]) / room)
    value, _ = solve_exactly(*arguments, known=0.0)
    assert solve_exactly(*arguments, known=value + 1e-6)[0] == -np.inf


@pytest.mark.parametrize("seed", range(5))
def test_several_limits_are_met_together(every, seed):
    model = Worths(SMALL, seed)
    problem = made_up_problem(SMALL, model, seed, 0.4, 0.3)
    _, _, found = solved(problem, model)
    assert problem.fits(problem.prices(found.population)).all()
    within = every[problem.fits(problem.prices(every))]
    accuracies = model(within)
    assert model(found.population) >= accuracies.max() - 0.4 * np.ptp(accuracies)


def test_an_entry_above_a_peak_limit_is_not_chosen():
    space = find_space("ofa-mbv3-w1.0")
    model = MacsStandIn(space)
    memory = memory_metric(space)
    problem = made_up_problem(space, model, 0, 0.9)
    cap = 1.2 * memory.smallest(space, space.resolutions_px[:1])
    problem = replace(problem, metrics=(*problem.metrics, memory), limits=(*problem.limits, cap))
    _, _, found = solved(problem, model)
    assert problem.fits(problem.prices(found.population)).all()
