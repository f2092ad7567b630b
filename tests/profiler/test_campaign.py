"""What a campaign takes again, and how long it says that it will take."""

import pytest

from ofa_nas.spaces import Population, find_space
from ofa_profiler.campaign import RETAKES, Campaign, Visit, lower_tasks, reference_task
from ofa_profiler.drift import Drift
from ofa_profiler.efforts import NETWORK_BUDGET, Probe
from ofa_tables.measurement import Measurement, statistics
from ofa_tables.table import Identity, LatencyTable

SPACE = find_space("compofa-fixed-w1.0")


class Silent:
    def __init__(self):
        self.said = []

    def begin(self, visits):
        pass

    def measured(self, measurement, visits_left):
        pass

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def progress():
    return Silent()


@pytest.fixture
def tasks():
    return lower_tasks(SPACE.blocks(128)[:3], "onnxruntime", 1)


@pytest.fixture
def campaign(tmp_path, tasks, progress):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield Campaign(table, [tasks], NETWORK_BUDGET, progress, "a test")


def watched(visits, paces):
    drift = Drift()
    for number, (visit, pace) in enumerate(zip(visits, paces, strict=True)):
        both = dict.fromkeys(("reference_before_ns", "reference_after_ns"), round(pace * 1e6))
        drift.watch(Measurement(f"v{number}", "k", started_at=number, **both, **statistics([10])), visit)
    return drift


def test_visits_of_a_disturbed_stretch_are_taken_again_and_it_is_named(campaign, tasks, progress):
    visits = [Visit(f"v{number}", tasks[number % 3], 0) for number in range(20)]
    again = campaign._again(watched(visits, [1.0] * 15 + [2.5] * 5))
    assert [visit.task for visit in again] == [visit.task for visit in visits[15:]]
    assert not {visit.visit_id for visit in again} & {visit.visit_id for visit in visits}
    assert "5 visits" in progress.said[0]


def test_what_was_taken_again_and_disturbed_again_is_left(campaign, tasks, progress):
    visits = [Visit(f"v{number}", tasks[0], 0, attempt=RETAKES) for number in range(20)]
    assert campaign._again(watched(visits, [1.0] * 15 + [2.5] * 5)) == []
    assert "flagged" in progress.said[0]


def test_a_disturbed_visit_is_taken_again_once_and_a_failed_one_where_that_can_help(campaign, tasks):
    def retried(attempt=0, **fields):
        waiting = []
        campaign._retry(Visit("v", tasks[0], 0, attempt), Measurement("v", "k", **fields), waiting)
        return len(waiting)

    assert (retried(), retried(attempt=RETAKES)) == (1, 0)
    assert (retried(status="crashed"), retried(status="crashed", attempt=2)) == (1, 0)
    assert retried(status="unsupported") == 0


def test_the_reference_is_the_same_for_every_table():
    assert reference_task("onnxruntime").model.model_id == reference_task("onnxruntime").model.model_id
    assert reference_task("onnxruntime").block.key.startswith("network:")


def test_how_long_it_will_take_goes_with_macs_and_weights():
    small, large = (SPACE.network(architecture) for architecture in SPACE.decode(ends()))
    probe = Probe(small, untimed_s=0.2, latency_s=0.001)
    one, two = (probe.expected_s(network, NETWORK_BUDGET, bursts=2) for network in (small, large))
    assert one == pytest.approx(0.2 + 2 * (0.007 + 0.03))
    assert two > 1.5 * one
    assert probe.expected_s(small, NETWORK_BUDGET, bursts=1) < one


def ends():
    """The smallest network and the largest."""
    macs = SPACE.figures(lambda block: block.macs)
    return Population.concatenate([SPACE.pricer(macs).cheapest()[1], SPACE.pricer(-macs).cheapest()[1]])
