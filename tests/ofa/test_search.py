"""A search finds the best network within its limit, gives the same answer for the same seed, and always ends."""

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.errors import LimitUnreachable
from ofa_nas.search import METHODS, Budget, Question, find_method, search, usable_resolutions
from ofa_nas.search.resolutions import in_words
from ofa_nas.spaces import Architecture, find_space
from ofa_tables.errors import EntriesMissing, UnknownName, UsageError

FIXED, OFA = "compofa-fixed-w1.0", "ofa-mbv3-w1.0"
RESOLUTIONS = (160, 192)
LANDSCAPE = Path(__file__).parents[2] / "scripts" / "landscape.py"
SHORT = Budget(20, 10)
SEEDED = ["annealing", "ofa", "random"]
EXPAND = {2: 3, 3: 4, 4: 6}  # by depth


@pytest.fixture
def to_problem(make_latency, make_mlp):
    """A Problem with its limit at a share of the latency range."""

    def make(share, space=FIXED, seed=0, accuracy=None):
        latency = make_latency(space, RESOLUTIONS, seed)
        smallest, largest = latency.cheapest(RESOLUTIONS)[0], latency.dearest(RESOLUTIONS)[0]
        limit = smallest + share * (largest - smallest)
        return problem_of(latency, accuracy or make_mlp(space, seed), limit)

    return make


def problem_of(latency, accuracy, limit_ms, **others):
    return Question(latency.space, accuracy, (limit_ms,), resolutions_px=RESOLUTIONS, **others).to_problem([latency])


def best_of(*arguments, **options):
    """Return the network that a search with one limit finds."""
    (best,) = search(*arguments, **options).best
    return best


class Watched:
    """An accuracy model that records its calls, and is interrupted once after ``interrupted_after`` networks."""

    is_accuracy = True

    def __init__(self, model, space, interrupted_after=None):
        self.model, self.space, self.left = model, space, interrupted_after
        self.name, self.resolutions_px = model.name, model.resolutions_px
        self.asked = []

    def __call__(self, population):
        if self.left is not None and len(self.asked) >= self.left:
            self.left = None
            raise KeyboardInterrupt
        self.asked += [bytes(column) for column in self.space.canonical(population).genes.T]
        return self.model(population)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_annealing_finds_the_optimum_of_a_small_space(to_problem, share, seed):
    problem = to_problem(share, seed=seed)
    best = best_of(problem, find_method("exhaustive"))
    found = best_of(problem, find_method("annealing"), seed=seed)
    assert found.accuracy == pytest.approx(best.accuracy, abs=1e-6)


def test_exhaustive_evaluates_every_network_within_the_limit(to_problem):
    problem = to_problem(0.5)
    kernels = tuple(kernel for kernel in (3, 5, 3, 3, 5) for _ in range(4))
    every = problem.space.encode(
        [
            Architecture({"ks": kernels, "e": tuple(EXPAND[d] for d in depths for _ in range(4)), "d": depths}, px)
            for depths in itertools.product((2, 3, 4), repeat=5)
            for px in RESOLUTIONS
        ]
    )
    fast = every[problem.predicted_ms(every) <= problem.limits[0]]
    found = search(problem, find_method("exhaustive"))
    assert 0 < found.evaluated == len(fast) < len(every) == 486
    assert found.best[0].accuracy == pytest.approx(problem.accuracy(fast).max(), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_the_result_is_within_the_limit(to_problem, method, share):
    problem = to_problem(share)
    best = best_of(problem, find_method(method), SHORT)
    assert best.prices[0, 0] <= problem.limits[0]
    assert problem.predicted_ms(best.population) == best.prices[0]
    assert problem.space.resolutions_px[best.population.genes[-1, 0]] in RESOLUTIONS


@pytest.mark.parametrize("method", SEEDED)
def test_the_same_seed_gives_the_same_answer(to_problem, method):
    problem = to_problem(0.3, OFA)
    one, two, other = (search(problem, find_method(method), SHORT, seed) for seed in (1, 1, 2))
    assert (one.best[0].population.genes == two.best[0].population.genes).all()
    assert (one.best[0].accuracy, one.evaluated) == (two.best[0].accuracy, two.evaluated)
    assert (one.best[0].population.genes != other.best[0].population.genes).any()


@pytest.mark.parametrize("method", METHODS)
def test_no_network_is_evaluated_twice_and_all_are_counted(to_problem, make_mlp, method):
    watched = Watched(make_mlp(FIXED), find_space(FIXED))
    found = search(to_problem(0.6, accuracy=watched), find_method(method))
    *searched, reported = watched.asked
    assert found.evaluated == len(searched) == len(set(searched))
    assert reported in searched


def test_annealing_beats_random_with_the_same_budget(to_problem):
    problem = to_problem(0.3, OFA)
    budget = Budget(50, 40)
    evolved, drawn = (search(problem, find_method(method), budget) for method in ("annealing", "random"))
    assert evolved.evaluated <= budget.evaluations
    assert drawn.evaluated == budget.evaluations
    assert evolved.best[0].accuracy > drawn.best[0].accuracy


@pytest.mark.slow  # shows it on the published budget; others compare the methods on small ones
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_with_the_same_budget_the_default_is_not_worse_than_the_published_method(to_problem, share):
    """Uses the published budget, and the landscape of the search benchmark."""
    landscape = runpy.run_path(str(LANDSCAPE))["landscape"]
    problem = to_problem(share, OFA, accuracy=landscape(find_space(OFA)))

    def median(method):
        found = [search(problem, find_method(method), seed=seed) for seed in range(3)]
        assert all(one.evaluated <= Budget().evaluations for one in found)
        return np.median([one.best[0].accuracy for one in found])

    assert median("annealing") >= median("ofa") > median("random")


@pytest.mark.parametrize("population", [1, 2, 3])
@pytest.mark.parametrize("generations", [0, 1])
def test_the_smallest_budgets_give_an_answer(to_problem, population, generations):
    found = search(to_problem(0.3, OFA), find_method("annealing"), Budget(population, generations))
    assert 1 <= found.evaluated <= population * (generations + 1)


@pytest.mark.parametrize("method", SEEDED)
def test_a_limit_at_the_smallest_latency_gives_the_fastest_network(to_problem, method):
    problem = to_problem(0.0, OFA)
    assert best_of(problem, find_method(method)).prices[0] == pytest.approx(problem.limits[0])


def test_a_limit_just_above_the_smallest_latency_improves_the_result(to_problem):
    problem = to_problem(0.01, OFA, accuracy=MacsStandIn(find_space(OFA)))
    fastest = problem.accuracy(problem.smallest())[0]
    found = search(problem, find_method("annealing"), Budget(100, 50))
    assert found.evaluated > 10
    assert found.best[0].accuracy > fastest


@pytest.mark.parametrize("method", METHODS)
def test_a_limit_that_no_network_meets_is_reported_first(to_problem, make_latency, make_mlp, method):
    latency = make_latency(OFA)
    problem = problem_of(latency, make_mlp(OFA), 0.001)
    with pytest.raises(LimitUnreachable, match="the smallest latency is"):
        search(problem, find_method(method))


def test_the_reported_smallest_latency_can_be_met(make_latency, make_mlp):
    latency = make_latency(OFA)
    with pytest.raises(LimitUnreachable) as refused:
        search(problem_of(latency, make_mlp(OFA), 0.001), find_method("annealing"))
    reported = float(str(refused.value).split(" is ")[-1].split(" ms")[0])
    again = problem_of(latency, make_mlp(OFA), reported)
    assert best_of(again, find_method("annealing"), SHORT).prices[0] <= reported


def test_a_space_too_large_for_exhaustive_is_reported(to_problem):
    with pytest.raises(UsageError, match="use --method annealing"):
        search(to_problem(0.5, OFA), find_method("exhaustive"))


def test_an_interrupted_search_returns_the_best_so_far(to_problem, make_mlp):
    watched = Watched(make_mlp(OFA), find_space(OFA), interrupted_after=300)
    found = search(to_problem(0.5, OFA, accuracy=watched), find_method("annealing"))
    assert found.interrupted
    assert 0 < found.evaluated <= 400
    assert bytes(find_space(OFA).canonical(found.best[0].population).genes[:, 0]) in watched.asked


@pytest.mark.parametrize("method", ["annealing", "ofa", "random", "exhaustive"])
def test_a_search_interrupted_before_any_evaluation_returns_the_smallest_network(to_problem, make_mlp, method):
    watched = Watched(make_mlp(FIXED), find_space(FIXED), interrupted_after=0)
    problem = to_problem(0.5, accuracy=watched)
    found = search(problem, find_method(method))
    assert (found.interrupted, found.proven, found.evaluated) == (True, False, 1)
    assert (found.best[0].population.genes == problem.smallest().genes).all()


class Ticking:
    """An accuracy model that advances its clock ``now``, in seconds, by 1 ms per network."""

    is_accuracy = True

    def __init__(self, model):
        self.model, self.now = model, 0.0
        self.name, self.resolutions_px = model.name, model.resolutions_px

    def __call__(self, population):
        self.now += len(population) / 1000
        return self.model(population)


@pytest.fixture
def ticking(monkeypatch, make_mlp):
    """Replace the clock of searches by that of the accuracy model."""

    def make(space=OFA):
        model = Ticking(make_mlp(space))
        monkeypatch.setattr("ofa_nas.search.run.monotonic", lambda: model.now)
        return model

    return make


def test_a_time_limit_is_as_good_as_the_same_number_of_evaluations(to_problem, ticking):
    model = ticking()
    problem = to_problem(0.3, OFA, accuracy=model)

    def median(method, budget):
        found = [search(problem, find_method(method), budget, seed) for seed in range(5)]
        assert all(9000 < each.evaluated < 11_500 for each in found)
        return float(np.median([each.best[0].accuracy for each in found]))

    timed = median("annealing", Budget(100, 90_000, seconds=10.0))
    counted, drawn = (median(method, Budget(100, 99)) for method in ("annealing", "random"))
    assert counted - timed < 0.1 * (counted - drawn)


@pytest.mark.parametrize("method", METHODS)
def test_with_almost_no_time_a_network_within_the_limit_is_found(to_problem, monkeypatch, method):
    monkeypatch.setattr("ofa_nas.search.run.monotonic", itertools.count().__next__)
    problem = to_problem(0.5)
    found = search(problem, find_method(method), Budget(seconds=1e-6))
    assert not found.interrupted
    assert found.evaluated >= 1
    assert found.best[0].prices[0, 0] <= problem.limits[0]


def test_exhaustive_stops_at_the_time_limit_without_a_proof(to_problem, ticking, monkeypatch):
    monkeypatch.setitem(find_method("exhaustive").__globals__, "CHUNK", 50)
    problem = to_problem(1.01, accuracy=ticking(FIXED))
    part = search(problem, find_method("exhaustive"), Budget(seconds=0.12))
    assert 100 < part.evaluated < 486
    assert not part.proven
    whole = search(problem, find_method("exhaustive"), Budget(seconds=10.0))
    assert whole.evaluated == 486
    assert whole.proven


def test_progress_ends_at_its_total(to_problem):
    reported = []
    search(
        to_problem(0.5), find_method("exhaustive"), SHORT, progress=lambda done, total: reported.append((done, total))
    )
    assert reported[-1] == (486, 486)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number(make_latency, make_mlp, limit):
    latency = make_latency()
    with pytest.raises(UsageError, match="positive"):
        problem_of(latency, make_mlp(), limit)


def test_an_unknown_method_names_the_closest():
    with pytest.raises(UnknownName, match="evolution"):
        find_method("evolutoin")


# Which resolutions can be searched.


def test_usable_resolutions_are_complete_and_supported(make_latency, make_mlp):
    latency = make_latency(resolutions=(160, 164, 192))
    assert usable_resolutions([latency], make_mlp()) == (160, 192)
    assert usable_resolutions([latency], MacsStandIn(latency.space)) == (160, 164, 192)


def test_left_out_resolutions_are_reported_with_the_reason(make_latency, make_mlp):
    space = find_space(FIXED)
    lacking = [key for key in space.keys(192) if key not in space.keys(160)][:5]
    latency = make_latency(FIXED, (160, 164, 192), lacking=lacking)
    problem = Question(space, make_mlp(), (50.0,)).to_problem([latency])
    assert problem.resolutions_px == (160,)
    odd, partial = problem.left_out
    assert (odd.resolution_px, odd.missing) == (164, ())
    assert odd.reason == "random.npz does not support it"
    assert (partial.resolution_px, partial.missing) == (192, tuple(lacking))
    first = ", ".join(lacking[:3])
    assert f"lacks 5 of its 36 entries ({first} and 2 more); measure them with" in partial.reason
    assert next(iter(in_words(problem.left_out))) == "164 px is left out: random.npz does not support it"


@pytest.mark.parametrize("name", [FIXED, OFA])
@pytest.mark.parametrize("resolutions", [(160,), (128, 160, 224)])
def test_resolutions_without_entries_are_not_reported(make_latency, name, resolutions):
    latency = make_latency(name, resolutions)
    assert Question(latency.space, MacsStandIn(latency.space), (50.0,)).to_problem([latency]).left_out == ()


def test_resolutions_missing_in_another_table_are_reported_in_one_line(make_latency):
    one, two = make_latency(FIXED, (160, 176, 192)), make_latency(FIXED, (160,), 1)
    problem = Question(one.space, MacsStandIn(one.space), (50.0, 50.0)).to_problem([one, two])
    (line,) = in_words(problem.left_out)
    assert line.startswith("176, 192 px are left out: ")
    assert line.endswith("160.lut has no entries there")


def test_a_resolution_that_the_table_lacks_is_reported(make_latency, make_mlp):
    with pytest.raises(EntriesMissing, match=r"lacks .* at 176 px"):
        usable_resolutions([make_latency()], make_mlp(), (160, 176))


@pytest.mark.parametrize("wanted", [None, (164,)])
def test_an_unsupported_resolution_is_reported(make_latency, make_mlp, wanted):
    with pytest.raises(UsageError, match="does not support resolution 164; it supports 128, 144, 160"):
        usable_resolutions([make_latency(resolutions=(164,))], make_mlp(), wanted)
