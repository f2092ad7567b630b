"""A search finds the best network within its limit, gives the same answer for the same seed, and always ends."""

import itertools

import numpy as np
import pytest

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.errors import LimitUnreachable
from ofa_nas.search import METHODS, Budget, Question, find_method, search, usable_resolutions
from ofa_nas.spaces import Architecture, find_space
from ofa_tables.errors import EntriesMissing, UnknownName, UsageError

FIXED, OFA = "compofa-fixed-w1.0", "ofa-mbv3-w1.0"
RESOLUTIONS = (160, 192)
SHORT = Budget(20, 10)
SEEDED = ["annealing", "ofa", "random"]
EXPAND = {2: 3, 3: 4, 4: 6}  # by depth


@pytest.fixture
def pose(make_latency, make_mlp):
    """A Problem whose limit lies at a share of the range of latencies."""

    def make(share, space=FIXED, seed=0, accuracy=None):
        latency = make_latency(space, RESOLUTIONS, seed)
        smallest, largest = latency.cheapest(RESOLUTIONS)[0], latency.dearest(RESOLUTIONS)[0]
        limit = smallest + share * (largest - smallest)
        return problem_of(latency, accuracy or make_mlp(space, seed), limit)

    return make


def problem_of(latency, accuracy, limit_ms, **others):
    return Question(latency.space, accuracy, (limit_ms,), resolutions_px=RESOLUTIONS, **others).pose([latency])


def best_of(*arguments, **options):
    """The one network that a search of one limit finds."""
    (best,) = search(*arguments, **options).best
    return best


class Watched:
    """An accuracy model that keeps what it was asked, and is interrupted once after so many networks."""

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
def test_evolution_finds_the_optimum_of_a_small_space(pose, share, seed):
    problem = pose(share, seed=seed)
    best = best_of(problem, find_method("exhaustive"))
    found = best_of(problem, find_method("annealing"), seed=seed)
    assert found.accuracy == pytest.approx(best.accuracy, abs=1e-6)


def test_exhaustive_evaluates_every_network_within_the_limit(pose):
    problem = pose(0.5)
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
def test_what_is_found_is_within_the_limit(pose, method, share):
    problem = pose(share)
    best = best_of(problem, find_method(method), SHORT)
    assert best.prices[0, 0] <= problem.limits[0]
    assert problem.predicted_ms(best.population) == best.prices[0]
    assert problem.space.resolutions_px[best.population.genes[-1, 0]] in RESOLUTIONS


@pytest.mark.parametrize("method", SEEDED)
def test_the_same_seed_gives_the_same_answer(pose, method):
    problem = pose(0.3, OFA)
    one, two, other = (search(problem, find_method(method), SHORT, seed) for seed in (1, 1, 2))
    assert (one.best[0].population.genes == two.best[0].population.genes).all()
    assert (one.best[0].accuracy, one.evaluated) == (two.best[0].accuracy, two.evaluated)
    assert (one.best[0].population.genes != other.best[0].population.genes).any()


@pytest.mark.parametrize("method", METHODS)
def test_no_network_is_evaluated_twice_and_all_are_counted(pose, make_mlp, method):
    watched = Watched(make_mlp(FIXED), find_space(FIXED))
    found = search(pose(0.6, accuracy=watched), find_method(method))
    *searched, reported = watched.asked
    assert found.evaluated == len(searched) == len(set(searched))
    assert reported in searched


def test_evolution_beats_random_with_as_many_evaluations(pose):
    problem = pose(0.3, OFA)
    budget = Budget(50, 40)
    evolved, drawn = (search(problem, find_method(method), budget) for method in ("annealing", "random"))
    assert evolved.evaluated <= budget.evaluations
    assert drawn.evaluated == budget.evaluations
    assert evolved.best[0].accuracy > drawn.best[0].accuracy


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_with_as_many_evaluations_the_default_is_no_worse_than_the_published_method(pose, share):
    problem = pose(share, OFA)
    budget = Budget(100, 200)

    def median(method):
        found = [search(problem, find_method(method), budget, seed) for seed in range(5)]
        assert all(one.evaluated <= budget.evaluations for one in found)
        return np.median([one.best[0].accuracy for one in found])

    assert median("annealing") >= median("ofa") > median("random")


@pytest.mark.parametrize("population", [1, 2, 3])
@pytest.mark.parametrize("generations", [0, 1])
def test_the_smallest_budgets_give_an_answer(pose, population, generations):
    found = search(pose(0.3, OFA), find_method("annealing"), Budget(population, generations))
    assert 1 <= found.evaluated <= population * (generations + 1)


@pytest.mark.parametrize("method", SEEDED)
def test_a_limit_at_the_smallest_latency_gives_the_fastest_network(pose, method):
    problem = pose(0.0, OFA)
    assert best_of(problem, find_method(method)).prices[0] == pytest.approx(problem.limits[0])


def test_a_limit_just_above_the_smallest_latency_is_made_use_of(pose):
    problem = pose(0.01, OFA, accuracy=MacsStandIn(find_space(OFA)))
    fastest = problem.accuracy(problem.smallest())[0]
    found = search(problem, find_method("annealing"), Budget(100, 50))
    assert found.evaluated > 10
    assert found.best[0].accuracy > fastest


@pytest.mark.parametrize("method", METHODS)
def test_a_limit_that_no_network_meets_is_said_at_once(pose, make_latency, make_mlp, method):
    latency = make_latency(OFA)
    problem = problem_of(latency, make_mlp(OFA), 0.001)
    with pytest.raises(LimitUnreachable, match="the smallest latency there is"):
        search(problem, find_method(method))


def test_the_smallest_latency_that_is_said_can_be_met(make_latency, make_mlp):
    latency = make_latency(OFA)
    with pytest.raises(LimitUnreachable) as refused:
        search(problem_of(latency, make_mlp(OFA), 0.001), find_method("annealing"))
    said = float(str(refused.value).split(" is ")[-1].split(" ms")[0])
    again = problem_of(latency, make_mlp(OFA), said)
    assert best_of(again, find_method("annealing"), SHORT).prices[0] <= said


def test_a_space_too_large_for_exhaustive_is_said(pose):
    with pytest.raises(UsageError, match="use --method annealing"):
        search(pose(0.5, OFA), find_method("exhaustive"))


def test_an_interrupted_search_gives_the_best_so_far(pose, make_mlp):
    watched = Watched(make_mlp(OFA), find_space(OFA), interrupted_after=300)
    found = search(pose(0.5, OFA, accuracy=watched), find_method("annealing"))
    assert found.interrupted
    assert 0 < found.evaluated <= 400
    assert bytes(find_space(OFA).canonical(found.best[0].population).genes[:, 0]) in watched.asked


def test_progress_ends_at_its_total(pose):
    told = []
    search(pose(0.5), find_method("exhaustive"), SHORT, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (486, 486)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number(make_latency, make_mlp, limit):
    latency = make_latency()
    with pytest.raises(UsageError, match="positive"):
        problem_of(latency, make_mlp(), limit)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UnknownName, match="evolution"):
        find_method("evolutoin")


# Which resolutions can be searched.


def test_all_that_the_table_has_whole_and_the_model_knows(make_latency, make_mlp):
    latency = make_latency(resolutions=(160, 164, 192))
    assert usable_resolutions([latency], make_mlp()) == (160, 192)
    assert usable_resolutions([latency], MacsStandIn(latency.space)) == (160, 164, 192)


def test_a_resolution_that_the_table_lacks_is_said(make_latency, make_mlp):
    with pytest.raises(EntriesMissing, match=r"lacks .* at 176 px"):
        usable_resolutions([make_latency()], make_mlp(), (160, 176))


@pytest.mark.parametrize("wanted", [None, (164,)])
def test_a_resolution_that_the_model_does_not_know_is_said(make_latency, make_mlp, wanted):
    with pytest.raises(UsageError, match="does not know the resolution 164; it knows 128, 144, 160"):
        usable_resolutions([make_latency(resolutions=(164,))], make_mlp(), wanted)
