"""What a campaign takes again, how long it says that it will take, and how devices share one."""

import json
import os
import threading
from collections import Counter

import pytest

from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import Population, find_space
from ofa_profiler.campaign import device_pool as pool
from ofa_profiler.campaign.campaign import RETAKES, Campaign
from ofa_profiler.campaign.disturbance import Drift
from ofa_profiler.campaign.effort import NETWORK_BUDGET, Probe
from ofa_profiler.campaign.jobs import Trial, lower_jobs, reference_job
from ofa_profiler.connections import Connection
from ofa_profiler.targets.target import Target
from ofa_tables.errors import AgentLost, DeviceError
from ofa_tables.identity import Identity
from ofa_tables.store.measurement import DEVICE, Measurement, statistics
from ofa_tables.table import LatencyTable

SPACE = find_space("compofa-fixed-w1.0")


class Silent:
    def __init__(self):
        self.said = []

    def begin(self, trials):
        pass

    def measured(self, measurement, trials_left):
        pass

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def progress():
    return Silent()


@pytest.fixture
def jobs():
    return lower_jobs(SPACE.blocks(128)[:3], "onnxruntime", 1)


@pytest.fixture
def campaign(tmp_path, jobs, progress):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield Campaign(table, [jobs], NETWORK_BUDGET, progress, "a test")


@pytest.mark.parametrize("adopts", [True, False])
def test_results_of_an_earlier_command_count_unless_all_is_measured_again(campaign, jobs, progress, adopts):
    campaign = Campaign(campaign._table, [jobs], NETWORK_BUDGET, progress, "a test", adopts=adopts)
    waiting = campaign._plan()
    own, other = waiting[:2]
    assert campaign._adopt(wire.Measurement(trial_id=own.trial_id, key=own.job.block.key), waiting) is own
    earlier = wire.Measurement(trial_id="of an earlier command", key=other.job.block.key)
    assert campaign._adopt(earlier, waiting) is (other if adopts else None)
    assert len(waiting) == (1 if adopts else 2)


def watched(trials, slowdowns, timed_ns=1_000_000_000):
    drift = Drift()
    for number, (trial, speed) in enumerate(zip(trials, slowdowns, strict=True)):
        both = dict.fromkeys(("reference_before_ns", "reference_after_ns"), round(speed * 1e6))
        drift.watch(Measurement(f"v{number}", "k", timed_ns=timed_ns, **both, **statistics([10])), trial)
    return drift


def test_trials_of_a_disturbed_stretch_are_repeated_and_reported(campaign, jobs, progress):
    trials = [Trial(f"v{number}", jobs[number % 3], 0) for number in range(20)]
    again = campaign._again(watched(trials, [1.0] * 15 + [2.5] * 5))
    assert [trial.job for trial in again] == [trial.job for trial in trials[15:]]
    assert not {trial.trial_id for trial in again} & {trial.trial_id for trial in trials}
    assert "5 trials" in progress.said[0]
    assert len(campaign._again(watched(trials, [1.0] * 15 + [2.5] * 5, timed_ns=10_000_000))) == 5
    assert len(progress.said) == 1  # nothing is said of what cost nothing


def test_log_lines_of_grpc_do_not_reach_the_terminal():
    assert "GRPC_VERBOSITY" in os.environ


def test_a_trial_that_is_disturbed_twice_is_not_repeated_again(campaign, jobs, progress):
    trials = [Trial(f"v{number}", jobs[0], 0, attempt=RETAKES) for number in range(20)]
    assert campaign._again(watched(trials, [1.0] * 15 + [2.5] * 5)) == []
    assert "flagged" in progress.said[0]


def test_disturbed_trials_are_repeated_once_and_failed_ones_if_that_can_help(campaign, jobs):
    def retried(attempt=0, **fields):
        waiting = []
        campaign._retry(Trial("v", jobs[0], 0, attempt), Measurement("v", "k", **fields), waiting)
        return len(waiting)

    assert (retried(), retried(attempt=RETAKES)) == (1, 0)
    assert (retried(status="crashed"), retried(status="crashed", attempt=2)) == (1, 0)
    assert retried(status="unsupported") == 0


def test_the_reference_is_the_same_for_every_table():
    assert reference_job("onnxruntime").model.model_id == reference_job("onnxruntime").model.model_id
    assert reference_job("onnxruntime").block.key.startswith("network:")


def test_how_long_it_will_take_goes_with_macs_and_weights():
    small, large = (SPACE.network(architecture) for architecture in SPACE.decode(ends()))
    probe = Probe(small, untimed_s=0.2, latency_s=0.001)
    one, two = (probe.expected_s(network, NETWORK_BUDGET, bursts=2) for network in (small, large))
    assert one == pytest.approx(0.2 + 2 * (0.007 + 0.03 + 0.013))  # a burst of the reference goes with each
    assert two > 1.5 * one
    assert probe.expected_s(small, NETWORK_BUDGET, bursts=1) < one


def ends():
    """The smallest network and the largest."""
    macs = SPACE.figures(lambda block: block.macs)
    return Population.concatenate([SPACE.pricer(macs).cheapest()[1], SPACE.pricer(-macs).cheapest()[1]])


# Devices that share a campaign, each a connection whose agent makes its figures up.


class MadeUp(Connection):
    """``speed`` is how long it takes a Job; ``trouble`` is raised instead of its Measurements of these numbers."""

    def __init__(self, name, speed=1.0, trouble=None, not_set=None):
        super().__init__(Target(name, "made up"))
        self.speed, self.trouble, self.not_set = speed, trouble or {}, not_set or {}
        self.asked = 0

    @property
    def agent(self):
        return self

    notes = warnings = ()

    def lease(self, lease_id, purpose, conditions, settings):
        return self

    def __exit__(self, *exception):
        pass

    def cut(self):
        pass

    def acknowledge(self, trial_ids):
        pass

    def reopen(self):
        pass

    def measure(self, next_trial, models):
        while (trial := next_trial()) is not None:
            self.asked += 1
            if self.asked in self.trouble:
                raise self.trouble[self.asked]
            took_ns = round(1e6 * self.speed)
            yield wire.Measurement(trial_id=trial.trial_id, key=trial.job.key, status="ok", samples_ns=[took_ns] * 3)


class Several(Connection):
    def __init__(self, *members):
        super().__init__(Target("several", "made up"))
        self._several = members

    @property
    def members(self):
        return self._several


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield table


@pytest.fixture
def run(table, jobs, progress, monkeypatch):
    """A campaign of so many rounds on these devices."""
    monkeypatch.setattr(pool, "RESTART_PAUSE_S", 0.0)

    def run(rounds, *members):
        return Campaign(table, [jobs] * rounds, NETWORK_BUDGET, progress, "a test").run(Several(*members))

    return run


@pytest.fixture
def taken_by(table):
    """How many Measurements of each device are kept."""
    return lambda: Counter(json.loads(measurement.condition).get(DEVICE) for measurement in table.measurements)


@pytest.fixture
def complete(table, jobs):
    def complete(rounds):
        done = table.rounds_of()
        return all(done[job.block.key] >= set(range(rounds)) for job in jobs)

    return complete


def test_devices_are_compared_in_whichever_rounds_are_left(run, taken_by, complete):
    run(2, MadeUp("first"))
    slow = MadeUp("slow", speed=1.5)
    outcome = run(4, MadeUp("usual"), slow)
    assert outcome.factors == pytest.approx({"usual": 0.8, "slow": 1.2})
    assert outcome.set_aside == {"slow": "it takes 1.50 × as long as the others"}
    assert complete(4)
    assert taken_by()["slow"] == 0


def test_a_device_that_was_set_aside_stays_so_in_the_next_campaign_of_a_command(run, taken_by, complete):
    usual, slow = MadeUp("usual"), MadeUp("slow", speed=1.5)
    run(2, usual, slow)
    asked = slow.asked
    outcome = run(4, usual, slow)
    assert complete(4)
    assert slow.asked == asked
    assert taken_by()["slow"] == 0
    assert list(outcome.set_aside) == ["slow"]


def test_compared_trials_of_lost_devices_are_run_by_the_others(run, complete):
    lost = {2: AgentLost("the link is cut")}
    outcome = run(3, MadeUp("one", trouble=lost), MadeUp("two", trouble=lost))
    assert complete(3)
    assert outcome.set_aside == {}


def test_trials_of_an_excluded_device_are_run_by_the_other(run, taken_by, complete):
    outcome = run(3, MadeUp("usual", trouble={2: AgentLost("the link is cut")}), MadeUp("slow", speed=1.5))
    assert list(outcome.set_aside) == ["slow"]
    assert complete(3)
    assert taken_by()["slow"] == 0


def test_another_attempt_is_for_any_device(jobs):
    assert not Trial("v", jobs[0], 0, compared=True).again().compared


def test_an_unexpected_failure_of_one_device_does_not_stop_the_others(run, complete, progress):
    outcome = run(3, MadeUp("one", trouble={2: ValueError("no such thing\nas that")}), MadeUp("two"))
    said = "one: the work with it failed (ValueError: no such thing); everything so far is kept"
    assert outcome.set_aside == {"one": said}
    assert f"{said}; continuing without one" in progress.said
    assert complete(3)


def test_the_last_device_that_fails_so_ends_the_campaign(run):
    with pytest.raises(DeviceError, match=r"one: the work with it failed \(KeyError: 'x'\)"):
        run(3, MadeUp("one", trouble={2: KeyError("x")}))


def test_conditions_that_could_not_be_set_are_reported_for_each_device(run):
    outcome = run(3, MadeUp("one", not_set={"governor": "no root"}), MadeUp("two", not_set={"screen": "no screen"}))
    assert outcome.not_set == {"governor": "no root", "screen": "no screen"}


def test_a_link_is_restored_in_the_second_campaign_of_a_command_too(run):
    waited = threading.Event()

    class Patient(MadeUp):
        def reopen(self):
            if not self.given_up.is_set():
                waited.set()

    device = Patient("one", trouble={4: AgentLost("the link is cut")})
    run(1, device)
    run(2, device)
    assert waited.is_set()
