"""How networks are drawn for a comparison, and what the rounds of two passes give."""

import contextlib
import json
import sys
from dataclasses import replace

import pytest

from ofa_nas.accuracy import MacsStandIn
from ofa_nas.search import Question, find_method, search
from ofa_nas.selection import read_names
from ofa_nas.spaces import find_space
from ofa_profiler import library
from ofa_profiler.campaign.campaign import Campaign
from ofa_profiler.campaign.effort import EFFORTS
from ofa_profiler.campaign.jobs import OTHERS_BYTES, lower_jobs
from ofa_profiler.commands import compare
from ofa_profiler.comparison import compare as comparing
from ofa_profiler.comparison.compare import MORE_ROUNDS, ROUNDS, Comparer, Drawn, draw
from ofa_profiler.comparison.verify import NotFastEnough, verify
from ofa_tables.errors import EntriesMissing, UsageError
from ofa_tables.identity import Identity
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import LatencyModel, read_calibration, write_calibration
from ofa_tables.model.passes import FEWEST_TRIALS, passes_ms
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import CALIBRATION, TEST, LatencyTable

SPACE = find_space("compofa-fixed-w1.0")


@pytest.fixture
def model(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        table.add([Measurement(b.key, b.key, **statistics([b.macs])) for b in SPACE.blocks(160)])
        yield LatencyModel(table, SPACE)


def keys(architectures):
    return {SPACE.network(architecture).key for architecture in architectures}


def test_networks_are_drawn_over_the_whole_range_of_predicted_latency(model):
    drawn = draw(model, SPACE, 20, 5, seed=0)
    latencies = model.raw(SPACE.encode(drawn.tested))
    smallest, largest = model.cheapest()[0], model.dearest()[0]
    thirds = [smallest + (largest - smallest) * part for part in (1 / 3, 2 / 3)]
    assert min((latencies < thirds[0]).sum(), (latencies > thirds[1]).sum()) >= 5


def test_the_same_seed_draws_the_same_and_none_twice(model):
    first, second, other = (draw(model, SPACE, 20, 10, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert len(keys(first.tested) | keys(first.calibration_networks)) == 30


def test_roles_do_not_depend_on_the_seed(model):
    first = draw(model, SPACE, 40, 40, seed=1)
    for role, architectures in ((TEST, first.tested), (CALIBRATION, first.calibration_networks)):
        for architecture in architectures:
            network = SPACE.network(architecture)
            model.table.store.add_network(network.key, SPACE.name, architecture.to_json(), role)
    second = draw(model, SPACE, 40, 40, seed=2)
    assert not keys(second.tested) & keys(first.calibration_networks)
    assert not keys(second.calibration_networks) & keys(first.tested)


def test_too_many_networks_are_refused(model):
    with pytest.raises(UsageError, match="too few networks at 160 px"):
        draw(model, SPACE, 240, 10, seed=0)


def test_networks_that_are_given_need_no_whole_resolution(tmp_path):
    with LatencyTable.create(tmp_path / "holes.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        table.add([Measurement(b.key, b.key, **statistics([b.macs])) for b in SPACE.blocks(160)[1:]])
        holes = LatencyModel(table, SPACE)
        assert draw(holes, SPACE, [], 0, seed=0) == Drawn([], [])
        with pytest.raises(EntriesMissing, match="lacks 1 of 36"):
            draw(holes, SPACE, [], 1, seed=0)


@pytest.fixture
def call(monkeypatch, capfd):
    """Runs ofa-compare until it looks for the device: its exit code and standard error."""

    def run(*words):
        def stop(*anything):
            raise UsageError("this far")

        monkeypatch.setattr(library, "find_again", stop)
        monkeypatch.setattr(sys, "argv", ["ofa-compare", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        return ended.value.code, capfd.readouterr().err

    return run


def test_published_networks_need_no_whole_resolution(call, tmp_path):
    with LatencyTable.create(tmp_path / "holes.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        table.add([Measurement(b.key, b.key, **statistics([b.macs])) for b in SPACE.blocks(160)[1:]])
    words = ("--table", table.path, "--space", SPACE.name)
    assert "this far" in call(*words, "--networks", "references")[1]
    assert "lacks 1 of 36" in call(*words, "--networks", "references", "--calibrate", 3)[1]
    assert "lacks 1 of 36" in call(*words)[1]


@pytest.mark.parametrize(
    ("words", "code", "said"), [(["--seed", "-1"], 2, "--seed"), (["--networks", "²"], 1, "cannot read ²")]
)
def test_values_that_are_not_numbers_are_refused(call, model, words, code, said):
    model.table.close()
    ended, err = call("--table", model.table.path, *words)
    assert ended == code
    assert said in err
    assert "Traceback" not in err


@pytest.fixture
def question():
    return Question(SPACE, MacsStandIn(SPACE), (1e3,))


def verified(model, question, find, said):
    return verify(model.table, question, find, None, None, said.append)


def test_ctrl_c_during_the_search_ends_the_verification(model, question):
    def find(problem):
        return replace(search(problem, find_method("exhaustive")), interrupted=True)

    with pytest.raises(KeyboardInterrupt):
        verified(model, question, find, [])


def test_incomplete_resolutions_are_reported_before_the_search(model, question):
    def find(problem):
        raise UsageError("the search begins")

    model.table.add([Measurement(b.key, b.key, **statistics([b.macs])) for b in SPACE.blocks(192)[1:]])
    said = []
    with pytest.raises(UsageError, match="begins"):
        verified(model, question, find, said)
    assert ["192 px is left out" in line for line in said] == [True]


def test_verification_measures_from_scratch(model, question, monkeypatch):
    now = {"ns": 9_000_000}

    class OnThisDevice(Campaign):
        def run(self, connection):
            trials = [(trial, trial.job.block.key) for trial in self._plan()]
            self._table.add(
                [Measurement(v.trial_id, key, round=v.round, **statistics([now["ns"]])) for v, key in trials]
            )
            return self._outcome

    def find(problem):
        return search(problem, find_method("exhaustive"))

    monkeypatch.setattr(comparing, "Campaign", OnThisDevice)
    best = find(question.to_problem([model])).best[0].population
    key = SPACE.network(SPACE.decode(best)[0]).key
    model.table.add([Measurement(f"v{r}", key, round=r, **statistics([5_000_000])) for r in range(ROUNDS - 1)])
    for now["ns"] in (9_000_000, 7_000_000):  # the second time after a whole trial of the first
        passes = verify(model.table, question, find, None, contextlib.nullcontext, print).measured.passes_ms
        assert passes == (now["ns"] / 1e6, now["ns"] / 1e6)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_network_that_takes_far_longer_than_predicted_is_measured_again(model, question, monkeypatch, calibrated):
    """A disturbed device must not calibrate the table."""
    trials = []

    class Slow(Campaign):
        def run(self, connection):
            planned = [(trial, trial.job.block.key) for trial in self._plan()]
            trials.append(len(planned))
            slow = statistics([5_000_000_000])
            self._table.add([Measurement(v.trial_id, key, round=v.round, **slow) for v, key in planned])
            return self._outcome

    def find(problem):
        return search(problem, find_method("exhaustive"))

    monkeypatch.setattr(comparing, "Campaign", Slow)
    if calibrated:
        write_calibration(model.table, SPACE, Calibration(1.0, 10, error=0.01))
    before, said = read_calibration(model.table, SPACE), []
    with pytest.raises(NotFastEnough, match="the table does not describe the device as it is now"):
        verify(model.table, question, find, None, contextlib.nullcontext, said.append)
    assert len(trials) == 2
    assert ["times as long as predicted" in line for line in said] == [True]
    assert read_calibration(model.table, SPACE) == before
    assert Comparer(model.table, SPACE).calibrate() is None  # also later


def test_networks_of_a_file_keep_their_names(model, tmp_path):
    drawn = draw(model, SPACE, 2, 0, seed=0)
    found = [{"name": f"{at}ms", "architecture": one.to_json()} for at, one in enumerate(drawn.tested)]
    path = tmp_path / "front.json"
    path.write_text(json.dumps({"front": found}))
    assert [name for name, _ in read_names(str(path))] == ["0ms", "1ms"]
    assert read_names(f"{path}:1ms") == [("1ms", drawn.tested[1])]
    assert read_names(json.dumps(found)) == []
    for network in map(SPACE.network, drawn.tested):
        trials = [Measurement(f"{network.key}{r}", network.key, round=r, **statistics([9])) for r in range(ROUNDS)]
        model.table.add(trials)
    for architecture in drawn.tested:
        model.table.store.add_network(SPACE.network(architecture).key, SPACE.name, architecture.to_json(), TEST)
    drawn = replace(drawn, names={SPACE.network(one).key: name for name, one in read_names(f"{path}:1ms")})
    comparison = Comparer(model.table, SPACE).compare(drawn, {}, {}, 1.0)
    key = SPACE.network(drawn.tested[0]).key
    assert {network.name for network in comparison.networks} == {"1ms", key.removeprefix("network:")[:6]}


def test_rounds_alternate_between_the_passes():
    trials = [Measurement(f"{r}", "n", round=r, **statistics([10 + r % 2])) for r in range(ROUNDS)]
    assert passes_ms(trials) == (10 / 1e6, 11 / 1e6)


def test_a_network_with_too_few_trials_in_a_pass_is_not_compared():
    trials = [Measurement(f"{r}", "n", round=r, **statistics([10])) for r in range(2 * FEWEST_TRIALS - 1)]
    assert passes_ms(trials) is None
    assert passes_ms([*trials, Measurement("last", "n", round=1, **statistics([10]))]) is not None


def test_a_network_with_mostly_disturbed_trials_is_compared(model):
    (architecture,) = draw(model, SPACE, 0, 1, seed=0).calibration_networks
    network = SPACE.network(architecture)
    model.table.store.add_network(network.key, SPACE.name, architecture.to_json(), CALIBRATION)
    steady, disturbed = (
        {"reference_before_ns": 1_000_000, "reference_after_ns": after} for after in (1_000_000, 2_000_000)
    )
    model.table.add(
        [
            Measurement(f"v{r}", network.key, round=r, **(steady if r == 0 else disturbed), **statistics([9]))
            for r in range(ROUNDS)
        ]
    )
    assert [compared.key for compared in Comparer(model.table, SPACE).measured(CALIBRATION)] == [network.key]


def test_both_passes_get_as_many_rounds():
    assert ROUNDS % 2 == MORE_ROUNDS % 2 == 0


def test_blocks_are_timed_with_cold_weights_and_networks_as_they_are():
    (block,) = lower_jobs(SPACE.blocks(160)[:1], "onnxruntime", 1, OTHERS_BYTES)
    (network,) = lower_jobs(SPACE.blocks(160)[:1], "onnxruntime", 1)
    assert (block.others_bytes, network.others_bytes) == (OTHERS_BYTES, 0)


def test_every_round_trials_every_block_once_each_in_another_order(model):
    wider = find_space("ofa-mbv3-w1.2")
    jobs = lower_jobs(wider.blocks(160), "onnxruntime", 1)
    plan = Campaign(model.table, [jobs] * 3, EFFORTS["standard"].budget, None, "")._plan()
    rounds = [[trial.job.block.key for trial in plan if trial.round == number] for number in range(3)]
    assert all(sorted(order) == sorted(wider.keys(160)) for order in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_calibration_networks_that_are_to_be_tested_are_counted(model):
    fitted, new = draw(model, SPACE, 0, 2, seed=0).calibration_networks
    model.table.store.add_network(SPACE.network(fitted).key, SPACE.name, fitted.to_json(), CALIBRATION)
    assert draw(model, SPACE, [fitted, new], 0, seed=0).retired == 1
    assert draw(model, SPACE, [new], 0, seed=0).retired == draw(model, SPACE, 2, 1, seed=0).retired == 0


def test_a_calibration_without_calibration_networks_is_removed(model):
    (architecture,) = draw(model, SPACE, 0, 1, seed=0).calibration_networks
    network = SPACE.network(architecture)
    model.table.add([Measurement(f"v{r}", network.key, round=r, **statistics([9])) for r in range(ROUNDS)])
    for role, fitted in ((CALIBRATION, True), (TEST, False)):
        model.table.store.add_network(network.key, SPACE.name, architecture.to_json(), role)
        assert (Comparer(model.table, SPACE).calibrate() is not None) is fitted
        assert (read_calibration(model.table, SPACE) is not None) is fitted


def test_a_network_measured_while_disturbed_does_not_calibrate_if_there_are_others(model):
    """One of two networks took six times as long as predicted, and every trial was disturbed."""
    usual, disturbed = draw(model, SPACE, 0, 2, seed=0).calibration_networks
    for architecture, factor, after_ns in ((usual, 1, 1_000_000), (disturbed, 6, 2_000_000)):
        network = SPACE.network(architecture)
        model.table.store.add_network(network.key, SPACE.name, architecture.to_json(), CALIBRATION)
        ns = factor * sum(block.macs for block in SPACE.network_blocks(architecture))
        speed = {"reference_before_ns": 1_000_000, "reference_after_ns": after_ns}
        model.table.add(
            [Measurement(f"{network.key}{r}", network.key, round=r, **statistics([ns]), **speed) for r in range(ROUNDS)]
        )
    assert [network.disturbed for network in Comparer(model.table, SPACE).measured(CALIBRATION)] == [False, True]
    calibration = Comparer(model.table, SPACE).calibrate()
    assert calibration.networks == 1
    predicted = LatencyModel.calibrated(model.table, SPACE).predict(SPACE.encode([usual]))[0]
    assert predicted == pytest.approx(model.raw(SPACE.encode([usual]))[0], rel=0.02)
