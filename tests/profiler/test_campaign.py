"""What a campaign takes again, and what it makes of a network's parts."""

import pytest

from ofa_agent import wire
from ofa_nas.spaces import find_space
from ofa_profiler.campaign import RETAKES, Campaign, Visit, _measurement, _parts, lower_tasks, reference_task
from ofa_profiler.drift import Drift
from ofa_profiler.efforts import NETWORK_BUDGET
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


def test_a_network_that_was_timed_in_parts_is_a_measurement_of_each(campaign):
    message = wire.Measurement(visit_id="v", key="network:n", status="ok", samples_ns=[90, 100, 110])
    message.reference_before_ns, message.reference_after_ns, message.reference_after_parts_ns = 10, 20, 30
    for key, samples in (("a", [10, 12]), ("b", [50, 52]), ("a", [14, 16])):
        message.parts.add(key=key, samples_ns=samples)
    whole = _measurement(message, 4)
    parts = _parts(message, whole)
    assert [(part.visit_id, part.key, part.round, part.count) for part in parts] == [
        ("v/0", "a", 4, 4),
        ("v/1", "b", 4, 2),
    ]
    assert parts[0].median_ms == pytest.approx(13e-6)
    assert (whole.reference_before_ns, whole.reference_after_ns) == (10, 20)
    assert (parts[0].reference_before_ns, parts[0].reference_after_ns) == (20, 30)


def test_the_reference_is_the_same_for_every_table():
    assert reference_task("onnxruntime").model.model_id == reference_task("onnxruntime").model.model_id
    assert reference_task("onnxruntime").block.key.startswith("network:")
