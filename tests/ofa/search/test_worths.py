"""Worths are the gradient of the accuracy model, and a search that uses them needs fewer evaluations."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.accuracy.layers import forward, gradient
from ofa_nas.search import Budget, Question, find_method, search
from ofa_nas.spaces import find_space

OFA, PX = "ofa-mbv3-w1.0", (160, 192)
LANDSCAPE = Path(__file__).parents[3] / "scripts" / "landscape.py"


class Called:
    """An accuracy model that has no worths."""

    is_accuracy = True

    def __init__(self, model):
        self.model, self.name, self.resolutions_px = model, model.name, model.resolutions_px

    def __call__(self, population):
        return self.model(population)


@pytest.fixture
def to_problem(make_latency, make_mlp):
    """A Problem with its limit at a share of the latency range."""

    def make(share, accuracy=None, space=OFA):
        latency = make_latency(space, PX)
        smallest, largest = latency.cheapest(PX)[0], latency.dearest(PX)[0]
        limit = smallest + share * (largest - smallest)
        question = Question(latency.space, accuracy or make_mlp(space), (limit,), resolutions_px=PX)
        return question.to_problem([latency])

    return make


@pytest.fixture(scope="module")
def rugged():
    """The accuracy model of the search benchmark."""
    return runpy.run_path(str(LANDSCAPE))["landscape"](find_space(OFA))


@pytest.mark.parametrize("hidden", [(), (16,), (16, 16, 8)])
def test_the_gradient_is_that_of_small_differences(make_layers, hidden):
    layers = make_layers(*hidden, inputs=12)
    inputs = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    active = [np.empty((5, len(layer.bias)), dtype=bool) for layer in layers[:-1]]
    assert forward(layers, inputs, active) == pytest.approx(forward(layers, inputs), abs=1e-6)
    slopes = np.broadcast_to(gradient(layers, active), inputs.shape)
    for at in range(12):
        step = np.zeros(12, dtype=np.float32)
        step[at] = 1e-3
        expected = (forward(layers, inputs + step) - forward(layers, inputs - step)) / 2e-3
        assert slopes[:, at] == pytest.approx(expected, abs=2e-3)


def test_the_worths_of_an_ensemble_are_the_mean_of_its_members(make_layers, make_mlp):
    model = make_mlp(OFA)
    both = replace_members(model, [make_layers(16, seed=1), make_layers(8, seed=2)])
    population = find_space(OFA).sample(5, np.random.default_rng(0), PX)
    alone = [replace_members(model, [layers]).worths(population)[1] for layers in both.members]
    assert both.worths(population)[1] == pytest.approx(np.mean(alone, axis=0), abs=1e-6)


def test_the_worths_of_networks_of_the_last_call_are_the_same(make_mlp):
    model = make_mlp(OFA)
    population = find_space(OFA).sample(30, np.random.default_rng(0), PX)
    expected = [model.worths(population[[at]]) for at in range(30)]
    model(population[np.arange(20)])
    values, worths = model.worths(population[np.arange(29, -1, -1)])
    for at, (value, worth) in enumerate(reversed(expected)):
        assert values[at] == pytest.approx(value[0], abs=1e-6)
        assert worths[at] == pytest.approx(worth[0], abs=1e-6)


def replace_members(model, members):
    return type(model)(find_space(OFA), members, model.name)


def test_the_worths_of_macs_are_exact():
    space = find_space(OFA)
    model, rng = MacsStandIn(space), np.random.default_rng(0)
    population = space.sample(20, rng, (160,))
    worths = model.worths(population)[1]
    entries = space.entry_indices(population)
    assert worths[np.arange(20), entries].sum(axis=0) == pytest.approx(model(population))


def test_only_sums_and_peaks_are_searched_by_worths(to_problem, rugged):
    problem = to_problem(0.3, rugged)
    assert problem.is_additive
    assert not replace(problem, accuracy=Called(rugged)).is_additive
    assert not replace(problem, metrics=(replace(problem.metrics[0], exact=False),)).is_additive
    peak = replace(problem.metrics[0], is_peak=True)
    assert replace(problem, metrics=(peak,)).is_additive


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_worths_save_evaluations(to_problem, rugged, share):
    with_worths, without = to_problem(share, rugged), to_problem(share, Called(rugged))
    for seed in range(2):
        few = search(with_worths, find_method("annealing"), Budget(50, 39), seed)
        more = search(without, find_method("annealing"), Budget(50, 99), seed)
        assert few.evaluated <= 2000 < more.evaluated
        assert few.best[0].accuracy > more.best[0].accuracy


@pytest.mark.parametrize(("has_worths", "threads"), [(True, 1), (False, 2)])
def test_only_our_models_are_limited_to_one_thread_of_numpy(to_problem, rugged, monkeypatch, has_worths, threads):
    seen, call = set(), type(rugged).__call__

    def watched(self, population):
        seen.update(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return call(self, population)

    monkeypatch.setattr(type(rugged), "__call__", watched)
    with threadpool_limits(2, "blas"):
        problem = to_problem(0.3, rugged if has_worths else Called(rugged))
        found = search(problem, find_method("random"), Budget(50, 1))
    assert found.evaluated == 100
    assert seen == {threads}


def test_a_bound_is_reported_for_each_limit(to_problem):
    space = find_space(OFA)
    problem = to_problem(0.5, MacsStandIn(space))
    limits = [0.6 * problem.limits[0], problem.limits[0]]
    found = search(problem, find_method("annealing"), Budget(50, 19), limits=limits, bound_seconds=1.0)
    for best, bound in zip(found.best, found.bounds, strict=True):
        assert best.accuracy[0] <= bound <= 1.05 * best.accuracy[0]


def test_the_bound_is_unknown_where_it_is_far_from_the_answer(to_problem, rugged):
    found = search(to_problem(0.3, rugged), find_method("annealing"), Budget(50, 3), bound_seconds=0.001)
    assert found.bounds == (None,)


@pytest.mark.parametrize("seconds", [1e-9, 0.02])
def test_a_search_by_worths_stops_at_its_time_limit(to_problem, rugged, seconds):
    problem = to_problem(0.3, rugged)
    found = search(problem, find_method("annealing"), Budget(100, 90_000, seconds=seconds))
    assert problem.fits(problem.prices(found.best[0].population)).all()
    assert found.seconds < 2.0
