"""A function of the user drives a search: batched, kept, and with one line for every mistake."""

import numpy as np
import pytest

from ofa_nas.accuracy import FunctionAccuracy, open_accuracy
from ofa_nas.accuracy.loading import Loaded
from ofa_nas.accuracy.pairs import read_pairs
from ofa_nas.errors import FunctionFailed
from ofa_nas.search import Budget, Question, find_method, search
from ofa_nas.spaces import find_space
from ofa_tables.errors import UsageError

OFA = "ofa-mbv3-w1.0"
MINE = """
from dataclasses import dataclass

@dataclass
class Weights:
    resolution: float = 0.001

def evaluate(architectures):
    weights = Weights()
    return [0.5 + sum(one.genes["e"]) / 1000 + weights.resolution * one.resolution_px for one in architectures]

def broken(architectures):
    raise RuntimeError("out\\nof memory")

not_a_function = 3
"""


def evaluate(architectures):
    return [0.5 + sum(one.genes["e"]) / 1000 + one.resolution_px / 1000 for one in architectures]


class Calls:
    """Counts networks; raises ``error`` when more than ``most`` would be evaluated."""

    def __init__(self, most=10**9, error=None):
        self.networks, self.most, self.error = [], most, error

    def __call__(self, architectures):
        if len(self.networks) + len(architectures) > self.most:
            raise self.error
        self.networks += architectures
        return evaluate(architectures)


def model_of(function, evaluated=None, workers=1):
    return FunctionAccuracy(find_space(OFA), Loaded("mine", function, by_name=False), evaluated, workers)


@pytest.fixture
def networks():
    return find_space(OFA).sample(40, np.random.default_rng(0), (160,))


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def searched(make_latency):
    def make(model):
        latency = make_latency(OFA, (160,))
        limit = (latency.cheapest((160,))[0] + latency.dearest((160,))[0]) / 2
        problem = Question(latency.space, model, (limit,), resolutions_px=(160,)).to_problem([latency])
        return problem, search(problem, find_method("annealing"), Budget(20, 9))

    return make


def test_every_network_is_evaluated_once(networks):
    calls = Calls()
    model = model_of(calls)
    twice = networks[np.r_[np.arange(40), np.arange(40)]]
    assert model(twice) == pytest.approx(evaluate(find_space(OFA).decode(find_space(OFA).canonical(twice))))
    assert model(networks)[::-1] == pytest.approx(model(networks[np.arange(39, -1, -1)]))
    assert len(calls.networks) == 40


def test_what_the_function_returned_is_read_back(networks, tmp_path):
    first, second = Calls(), Calls()
    expected = model_of(first, tmp_path / "kept.jsonl")(networks[np.arange(25)])
    again = model_of(second, tmp_path / "kept.jsonl")(networks)
    assert again[:25] == pytest.approx(expected)
    assert (len(first.networks), len(second.networks)) == (25, 15)
    assert len(read_pairs(tmp_path / "kept.jsonl").pairs) == 40


def test_a_file_of_another_function_is_refused(mine, tmp_path):
    open_accuracy(f"{mine}:evaluate", find_space(OFA), tmp_path / "kept.jsonl")
    with pytest.raises(UsageError, match="another --evaluated"):
        open_accuracy(f"{mine}:broken", find_space(OFA), tmp_path / "kept.jsonl")


def test_a_search_by_a_function_finds_better_networks_than_random_ones(searched):
    problem, found = searched(model_of(evaluate))
    drawn = problem.space.sample(500, np.random.default_rng(1), (160,))
    fits = drawn[problem.fits(problem.prices(drawn))]
    assert found.evaluated == 200
    assert found.best[0].accuracy[0] > problem.accuracy(fits).max()


@pytest.mark.parametrize("error", [RuntimeError("no more"), KeyboardInterrupt()])
def test_a_search_keeps_what_was_evaluated_before_the_function_stopped(searched, tmp_path, error):
    calls = Calls(most=70, error=error)
    problem, found = searched(model_of(calls, tmp_path / "kept.jsonl"))
    assert found.interrupted
    assert found.failed == ("mine failed: RuntimeError: no more" if isinstance(error, RuntimeError) else "")
    kept = read_pairs(tmp_path / "kept.jsonl")
    evaluated = problem.space.encode(kept.architectures)
    fits = problem.fits(problem.prices(evaluated))
    assert len(kept.pairs) == len(calls.networks) >= 50
    assert found.evaluated == len(kept.pairs)
    assert found.best[0].accuracy[0] == pytest.approx(kept.accuracies[fits].max())


def test_a_search_whose_function_never_works_raises(searched):
    with pytest.raises(FunctionFailed, match=r"^mine failed: ValueError: never$"):
        searched(model_of(Calls(most=0, error=ValueError("never"))))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda count: [0.5] * (count + 1), "returned 2 values for 1 network"),
        (lambda count: [[0.5]] * count, r"returned an array of shape \(1, 1\)"),
        (lambda count: [75.0] * count, "returned 75; an accuracy is a number, 0…1; divide percentages by 100"),
        (lambda count: [float("nan")] * count, "returned nan"),
        (lambda count: None, "returned nan|returned an array"),
        (lambda count: ["good"] * count, r"returned \['good'\]; it must return one accuracy"),
    ],
)
def test_what_is_not_an_accuracy_is_refused(networks, returned, said):
    with pytest.raises(FunctionFailed, match=said):
        model_of(lambda architectures: returned(len(architectures)))(networks[[0]])


def test_a_function_is_found_in_a_file_and_in_a_module(mine, networks, monkeypatch):
    monkeypatch.chdir(mine.parent)
    by_file, by_module = (open_accuracy(f"{place}:evaluate", find_space(OFA)) for place in (mine, "mine"))
    assert by_file(networks) == pytest.approx(by_module(networks))
    assert (by_file.name, by_module.name) == (f"{mine}:evaluate", "mine:evaluate")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mine.py:nothing", "nothing does not exist; mine.py has .*evaluate"),
        ("mine.py:not_a_function", "not_a_function is not a function"),
        ("no_such_module:evaluate", "no_such_module does not import: ModuleNotFoundError"),
        ("wrong.py:evaluate", "wrong.py does not run: SyntaxError"),
        ("leaves.py:evaluate", "leaves.py does not run: SystemExit: 3"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_refused(mine, monkeypatch, source, said):
    monkeypatch.chdir(mine.parent)
    (mine.parent / "wrong.py").write_text("def evaluate(:\n")
    (mine.parent / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UsageError, match=said):
        open_accuracy(source, find_space(OFA))


def test_several_workers_return_the_same_and_report_errors(mine, networks):
    space = find_space(OFA)
    alone, together = (open_accuracy(f"{mine}:evaluate", space, workers=count) for count in (1, 2))
    assert together(networks) == pytest.approx(alone(networks))
    with pytest.raises(FunctionFailed, match=r"mine.py:broken failed: RuntimeError: out of memory$"):
        open_accuracy(f"{mine}:broken", space, workers=2)(networks)


def test_a_function_that_other_processes_cannot_have_needs_one_worker():
    with pytest.raises(UsageError, match="cannot be sent to other processes"):
        model_of(lambda architectures: [], workers=2)


def test_flags_of_functions_are_refused_for_models(tmp_path):
    with pytest.raises(UsageError, match="apply to a function"):
        open_accuracy("macs", find_space(OFA), workers=2)
    with pytest.raises(UsageError, match="apply to a function"):
        open_accuracy("predictor.npz", find_space(OFA), tmp_path / "kept.jsonl")
