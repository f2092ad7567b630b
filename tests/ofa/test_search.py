"""A search finds the best network within its limit, gives the same answer for the same seed, and always ends."""

import itertools
import time

import pytest

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.errors import LimitUnreachable
from ofa_nas.search import METHODS, Budget, Problem, find_method, search, usable_resolutions
from ofa_nas.spaces import Architecture, find_space
from ofa_tables.errors import EntriesMissing, UnknownName, UsageError

FIXED, OFA = "compofa-fixed-w1.0", "ofa-mbv3-w1.0"
RESOLUTIONS = (160, 192)
SHORT = Budget(20, 10)
EXPAND = {2: 3, 3: 4, 4: 6}  # by depth


@pytest.fixture
def pose(make_latency, make_mlp):
    """A Problem whose limit lies at a share of the range of latencies."""

    def make(share, space=FIXED, seed=0, accuracy=None):
        latency = make_latency(space, RESOLUTIONS, seed)
        smallest, largest = latency.cheapest(RESOLUTIONS)[0], latency.dearest(RESOLUTIONS)[0]
        limit = smallest + share * (largest - smallest)
        return Problem(latency.space, latency, accuracy or make_mlp(space, seed), limit, RESOLUTIONS)

    return make


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
    best = search(problem, find_method("exhaustive")).best
    found = search(problem, find_method("evolution"), seed=seed).best
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
    fast = every[problem.latency.predict(every) <= problem.limit_ms]
    found = search(problem, find_method("exhaustive"))
    assert 0 < found.evaluated == len(fast) < len(every) == 486
    assert found.best.accuracy == pytest.approx(problem.accuracy(fast).max(), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_what_is_found_is_within_the_limit(pose, method, share):
    problem = pose(share)
    best = search(problem, find_method(method), SHORT).best
    assert best.latency_ms <= problem.limit_ms
    assert problem.latency.predict(best.network)[0] == best.latency_ms
    assert problem.space.resolutions_px[best.network.genes[-1, 0]] in RESOLUTIONS


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_the_same_seed_gives_the_same_answer(pose, method):
    problem = pose(0.3, OFA)
    one, two, other = (search(problem, find_method(method), SHORT, seed) for seed in (1, 1, 2))
    assert (one.best.network.genes == two.best.network.genes).all()
    assert (one.best.accuracy, one.evaluated) == (two.best.accuracy, two.evaluated)
    assert (one.best.network.genes != other.best.network.genes).any()


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
    evolved, drawn = (search(problem, find_method(method), budget) for method in ("evolution", "random"))
    assert evolved.evaluated <= budget.evaluations
    assert drawn.evaluated == budget.evaluations
    assert evolved.best.accuracy > drawn.best.accuracy


@pytest.mark.parametrize("population", [1, 2, 3])
@pytest.mark.parametrize("generations", [0, 1])
def test_the_smallest_budgets_give_an_answer(pose, population, generations):
    found = search(pose(0.3, OFA), find_method("evolution"), Budget(population, generations))
    assert 1 <= found.evaluated <= population * (generations + 1)


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_a_limit_at_the_smallest_latency_gives_the_fastest_network(pose, method):
    problem = pose(0.0, OFA)
    assert search(problem, find_method(method)).best.latency_ms == pytest.approx(problem.limit_ms)


def test_a_limit_just_above_the_smallest_latency_is_made_use_of(pose):
    problem = pose(0.01, OFA, accuracy=MacsStandIn(find_space(OFA)))
    fastest = problem.accuracy(problem.fastest())[0]
    found = search(problem, find_method("evolution"), Budget(100, 50))
    assert found.evaluated > 10
    assert found.best.accuracy > fastest


@pytest.mark.parametrize("method", METHODS)
def test_a_limit_that_no_network_meets_is_said_at_once(pose, make_latency, make_mlp, method):
    latency = make_latency(OFA)
    problem = Problem(latency.space, latency, make_mlp(OFA), 0.001, RESOLUTIONS)
    started = time.perf_counter()
    with pytest.raises(LimitUnreachable) as refused:
        search(problem, find_method(method))
    assert time.perf_counter() - started < 1
    assert refused.value.smallest_ms == pytest.approx(latency.cheapest(RESOLUTIONS)[0])


def test_the_smallest_latency_that_is_said_can_be_met(make_latency, make_mlp):
    latency = make_latency(OFA)
    with pytest.raises(LimitUnreachable) as refused:
        search(Problem(latency.space, latency, make_mlp(OFA), 0.001, RESOLUTIONS), find_method("evolution"))
    said = float(str(refused.value).split(" is ")[-1].split(" ms")[0])
    again = Problem(latency.space, latency, make_mlp(OFA), said, RESOLUTIONS)
    assert search(again, find_method("evolution"), SHORT).best.latency_ms <= said


def test_a_space_too_large_for_exhaustive_is_said(pose):
    with pytest.raises(UsageError, match="use --method evolution"):
        search(pose(0.5, OFA), find_method("exhaustive"))


def test_an_interrupted_search_gives_the_best_so_far(pose, make_mlp):
    watched = Watched(make_mlp(OFA), find_space(OFA), interrupted_after=300)
    found = search(pose(0.5, OFA, accuracy=watched), find_method("evolution"))
    assert found.interrupted
    assert found.evaluated == 300
    assert bytes(find_space(OFA).canonical(found.best.network).genes[:, 0]) in watched.asked


def test_progress_ends_at_its_total(pose):
    told = []
    search(pose(0.5), find_method("exhaustive"), SHORT, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (486, 486)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number(make_latency, make_mlp, limit):
    latency = make_latency()
    with pytest.raises(UsageError, match="positive"):
        Problem(latency.space, latency, make_mlp(), limit, RESOLUTIONS)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UnknownName, match="evolution"):
        find_method("evolutoin")


# Which resolutions can be searched.


def test_all_that_the_table_has_whole_and_the_model_knows(make_latency, make_mlp):
    latency = make_latency(resolutions=(160, 164, 192))
    assert usable_resolutions(latency, make_mlp()) == (160, 192)
    assert usable_resolutions(latency, MacsStandIn(latency.space)) == (160, 164, 192)


def test_a_resolution_that_the_table_lacks_is_said(make_latency, make_mlp):
    with pytest.raises(EntriesMissing, match=r"lacks .* at 176 px"):
        usable_resolutions(make_latency(), make_mlp(), (160, 176))


@pytest.mark.parametrize("wanted", [None, (164,)])
def test_a_resolution_that_the_model_does_not_know_is_said(make_latency, make_mlp, wanted):
    with pytest.raises(UsageError, match="does not know the resolution 164; it knows 128, 144, 160"):
        usable_resolutions(make_latency(resolutions=(164,)), make_mlp(), wanted)
