"""No network exceeds the upper bound, and branching lowers it to the optimum of a small space."""

from dataclasses import replace

import numpy as np
import pytest

from ofa_nas.accuracy import MacsStandIn, Mlp
from ofa_nas.accuracy.encoding import inputs_of
from ofa_nas.search import Metric, Problem, parameters_metric
from ofa_nas.search.bound import upper_bound
from ofa_nas.spaces import Population, find_space
from ofa_nas.spaces.inverted_residuals import InvertedResidualSpace

LAYOUT = find_space("tiny").layout
SMALL = InvertedResidualSpace(
    "small",
    replace(
        LAYOUT,
        stages=tuple(replace(stage, blocks=2) for stage in LAYOUT.stages[:2]),
        kernel_sizes=(3, 5),
        expand_ratios=(2, 4),
        depths=(1, 2),
        resolutions_px=(20, 24),
    ),
)


@pytest.fixture(scope="module")
def every():
    """All 2,048 combinations of genes of the small space."""
    shape = tuple(map(int, SMALL.radices))
    return Population(np.stack(np.unravel_index(np.arange(np.prod(shape)), shape)).astype(np.uint8))


@pytest.fixture
def made_up(make_layers):
    """A random MLP, and one or two random limits that some networks meet."""

    def make(seed, every):
        rng = np.random.default_rng(seed)
        hidden = ((8,), (16, 16), (12, 12, 12))[seed % 3]
        members = [
            make_layers(*hidden, seed=each, inputs=inputs_of(SMALL, SMALL.resolutions_px))
            for each in (seed, 1000 + seed)
        ]
        model = Mlp(SMALL, members[: 1 + seed % 2], "random.npz")
        figures = rng.uniform(0.1, 2.0, size=(1 + seed % 2, 2, len(SMALL.keys(20))))
        metrics = tuple(Metric("made up", "ms", "--max-latency-ms", SMALL.pricer(each), each) for each in figures)
        limits = tuple(float(np.quantile(metric(every), rng.uniform(0.3, 0.9))) for metric in metrics)
        return Problem(SMALL, model, metrics, limits, SMALL.resolutions_px)

    return make


def best_of(problem, every):
    return float(problem.accuracy(every[problem.fits(problem.prices(every))]).max())


@pytest.mark.parametrize("tens", range(20))
def test_no_network_exceeds_the_bound(made_up, every, tens):
    for seed in range(10 * tens, 10 * tens + 10):
        problem = made_up(seed, every)
        best = best_of(problem, every)
        known = best - 0.1 * (seed % 3)
        bound = upper_bound(problem, known, seconds=0.02)
        assert best <= bound, f"seed {seed}"


def test_branching_lowers_the_bound_to_the_optimum(made_up, every):
    problem = made_up(0, every)
    best = best_of(problem, every)
    first = upper_bound(problem, best, seconds=0.0)
    assert first > best + 0.01
    assert best <= upper_bound(problem, best, seconds=10.0, enough=0.001) <= best + 0.001


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_the_bound_of_macs_is_the_optimum(made_up, every, seed):
    problem = replace(made_up(seed, every), accuracy=MacsStandIn(SMALL))
    best = best_of(problem, every)
    assert upper_bound(problem, 0.9 * best, seconds=0.0) == pytest.approx(best, rel=2e-5)


def test_macs_are_bounded_closely_in_a_large_space():
    space = find_space("ofa-mbv3-w1.0")
    metric = parameters_metric(space)
    px = space.resolutions_px[:2]
    limit = 1.5 * metric.smallest(space, px)
    problem = Problem(space, MacsStandIn(space), (metric,), (limit,), px)
    bound = upper_bound(problem, known=0.0, seconds=0.0)
    rng = np.random.default_rng(0)
    drawn = space.sample_spread(20_000, rng, px)
    best = best_of(problem, drawn)
    assert best < bound < 1.2 * best


def test_a_model_that_is_only_called_has_no_bound(made_up, every):
    problem = made_up(0, every)
    model = problem.accuracy

    class Called:
        name, is_accuracy, resolutions_px = "called", True, model.resolutions_px

        def __call__(self, population):
            return model(population)

    assert upper_bound(replace(problem, accuracy=Called()), 0.0, 1.0) is None


def test_a_metric_that_is_not_a_sum_has_no_bound(made_up, every):
    problem = made_up(0, every)
    metrics = (replace(problem.metrics[0], exact=False), *problem.metrics[1:])
    assert upper_bound(replace(problem, metrics=metrics), 0.0, 1.0) is None
