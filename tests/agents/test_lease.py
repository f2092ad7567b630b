"""Lease and Desk with a trial executor that the test controls."""

import queue
import re
import time

import pytest

from ofa_agent.protocol import messages as wire
from ofa_agent.service import lease as lease_module
from ofa_agent.service.lease import Desk, Held
from ofa_agent.service.models import ModelCache


class FakeBench:
    """Keeps the submitted trials; ``finish`` delivers one Measurement."""

    def __init__(self):
        self.submitted = []
        self._deliver = {}
        self.dropped = []

    def drop(self, deliver):
        """Record the lease. The trial that was running can still be finished."""
        self.dropped.append(deliver.__self__)

    def submit(self, trial, deliver):
        self.submitted.append(trial.trial_id)
        self._deliver[trial.trial_id] = (trial, deliver)

    def finish(self, trial_id):
        trial, deliver = self._deliver.pop(trial_id)
        deliver(wire.Measurement(trial_id=trial_id, key=trial.job.key, status="ok"))


class FakeHost:
    """One stream of a host that holds the lease; messages reach the lease immediately."""

    def __init__(self, desk, lease_id="ada's", holder="ada@laptop", wanted=None):
        self.lease, self.resumed = desk.take(lease_id, holder, wanted or {})
        self.stream = self.lease.connect()

    def trial(self, trial_id, model_id=""):
        trial = wire.Trial(trial_id=trial_id, job=wire.Job(key=f"key of {trial_id}", model_id=model_id))
        self.lease.handle(wire.HostMessage(trial=trial), self.stream)

    def model(self, chunks, model_id):
        for part in wire.model_messages(model_id, chunks):
            self.part(part)

    def part(self, part):
        self.lease.handle(wire.HostMessage(model=part), self.stream)

    def acknowledge(self, *trial_ids):
        self.lease.handle(wire.HostMessage(acknowledge=wire.Acknowledge(trial_ids=trial_ids)), self.stream)

    def lose_link(self):
        self.lease.disconnect(self.stream)

    def heard(self):
        """Return the messages received so far: trial ids, wanted models, and None for the end."""
        heard = []
        while True:
            try:
                message = self.stream.get_nowait()
            except queue.Empty:
                return heard
            if message is None:
                heard.append(None)
            elif message.WhichOneof("message") == "measurement":
                heard.append(message.measurement.trial_id)
            else:
                heard.append(("wants", message.model_wanted.model_id))


MODEL = [b"a model"]
MODEL_ID = wire.model_id_of(MODEL)


@pytest.fixture
def executor():
    return FakeBench()


class FakeSetter:
    """Records the current settings and the number of calls of ``put_back``."""

    def __init__(self):
        self.now, self.put_backs = {}, 0

    notes = ()

    def set(self, wanted, threads=0):
        self.now = {name: value for name, value in wanted.items() if name != "refused"}
        return {"refused": "permission denied"} if "refused" in wanted else {}

    def put_back(self):
        self.now = {}
        self.put_backs += 1


@pytest.fixture
def setter():
    return FakeSetter()


@pytest.fixture
def reported():
    return []


@pytest.fixture
def desk(executor, setter, reported, tmp_path):
    return Desk(
        executor,
        ModelCache(str(tmp_path / "models")),
        setter,
        log=lambda *args, **facts: None,
        report=lambda **facts: reported.append(facts["holder"]) if "holder" in facts else None,
    )


def test_conditions_are_set_while_a_lease_lasts(desk, setter):
    host = FakeHost(desk, wanted={"governor": "performance", "refused": "1"})
    assert (setter.now, host.lease.not_set) == ({"governor": "performance"}, {"refused": "permission denied"})
    host.lose_link()
    back = FakeHost(desk, wanted={"governor": "performance"})
    assert (back.resumed, setter.now) == (True, {"governor": "performance"})
    desk.give_back(back.lease, back.stream)
    assert setter.now == {}


def test_a_resumed_lease_sets_conditions_that_changed(desk, setter):
    FakeHost(desk, wanted={"affinity": "0"}).lose_link()
    back = FakeHost(desk, wanted={"affinity": "0,1"})
    assert (back.resumed, setter.now, setter.put_backs) == (True, {"affinity": "0,1"}, 2)


def test_the_next_host_finds_the_original_conditions(desk, setter, monkeypatch):
    FakeHost(desk, wanted={"governor": "performance"}).lose_link()
    monkeypatch.setattr(lease_module, "GRACE_S", 0.0)
    FakeHost(desk, lease_id="bob's")
    assert setter.now == {}


def test_a_measurement_goes_to_the_host_that_requested_it(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    executor.finish("one")
    assert host.heard() == ["one"]


def test_unacknowledged_measurements_are_sent_again_after_a_reconnect(desk, executor):
    host = FakeHost(desk)
    for trial_id in ("one", "two", "three"):
        host.trial(trial_id)
    executor.finish("one")
    executor.finish("two")
    host.acknowledge("one")
    host.lose_link()
    executor.finish("three")  # while the host is not connected
    returned = FakeHost(desk)
    assert returned.resumed
    assert returned.heard() == ["two", "three"]


def test_acknowledged_measurements_are_not_sent_again(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    executor.finish("one")
    host.acknowledge("one", "never heard of")
    host.lose_link()
    assert FakeHost(desk).heard() == []


def test_a_measurement_is_sent_again_after_each_lost_connection(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    executor.finish("one")
    for _ in range(3):
        host.lose_link()
        host = FakeHost(desk)
        assert host.heard() == ["one"]


def test_a_repeated_trial_is_measured_once(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    host.trial("one")
    executor.finish("one")
    host.trial("one")
    assert executor.submitted == ["one"]
    assert host.heard() == ["one"]


def test_a_running_trial_is_answered_only_on_the_new_stream(desk, executor):
    first = FakeHost(desk)
    first.trial("one")
    second = FakeHost(desk)
    executor.finish("one")
    assert first.heard() == [None]
    assert second.heard() == ["one"]


def test_the_end_of_an_old_stream_does_not_end_the_new_one(desk):
    first = FakeHost(desk)
    second = FakeHost(desk)
    first.lose_link()
    assert second.lease.lost_at is None
    assert not second.lease.expired()


def test_the_end_of_an_old_stream_does_not_return_the_device(desk):
    first = FakeHost(desk)
    FakeHost(desk)
    desk.give_back(first.lease, first.stream)
    with pytest.raises(Held):
        FakeHost(desk, "bob's")


def test_another_host_receives_the_holder_and_the_time(desk):
    FakeHost(desk)
    with pytest.raises(Held) as held:
        FakeHost(desk, "bob's", "bob@desk")
    assert re.fullmatch(r"held by ada@laptop since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", str(held.value))


def test_another_host_is_refused_until_the_lease_expires(desk):
    host = FakeHost(desk)
    host.lose_link()
    with pytest.raises(Held):
        FakeHost(desk, "bob's")
    host.lease.lost_at -= lease_module.GRACE_S
    other = FakeHost(desk, "bob's", "bob@desk")
    assert not other.resumed
    with pytest.raises(Held, match="held by bob@desk"):
        FakeHost(desk)


def test_the_lease_of_a_connected_host_does_not_expire(desk, monkeypatch):
    monkeypatch.setattr(lease_module, "GRACE_S", -1.0)
    FakeHost(desk)
    with pytest.raises(Held):
        FakeHost(desk, "bob's")


def test_the_next_host_receives_nothing_of_the_previous_one(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    host.trial("two")
    executor.finish("one")
    desk.give_back(host.lease, host.stream)
    other = FakeHost(desk, "bob's")
    executor.finish("two")
    assert other.heard() == []


def test_a_host_that_finishes_frees_the_device_and_ends_its_lease(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    executor.finish("one")
    desk.give_back(host.lease, host.stream)
    returned = FakeHost(desk)
    assert not returned.resumed
    assert returned.heard() == []


def test_the_lock_names_the_holder_of_the_device(desk, reported):
    host = FakeHost(desk)
    desk.give_back(host.lease, host.stream)
    FakeHost(desk, "bob's", "bob@desk")
    assert reported == ["ada@laptop", None, "bob@desk"]


def test_the_device_is_idle_without_a_lease(desk):
    desk._idle_since = time.monotonic() - 100
    assert desk.idle_s() >= 100
    host = FakeHost(desk)
    assert desk.idle_s() == 0.0
    host.lose_link()
    host.lease.lost_at -= 50
    assert 50 <= desk.idle_s() < 100
    FakeHost(desk)
    assert desk.idle_s() == 0.0
    desk.give_back(host.lease, host.lease._stream)
    assert desk.idle_s() < 50


# Trials of a host that is gone.


def test_the_trials_of_a_returned_lease_are_dropped(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    desk.give_back(host.lease, host.stream)
    assert executor.dropped == [host.lease]


def test_the_trials_of_an_expired_lease_are_dropped_without_another_host(desk, executor, monkeypatch):
    monkeypatch.setattr(lease_module, "GRACE_S", 0.05)
    host = FakeHost(desk)
    host.trial("one")
    host.trial("two")
    executor.finish("one")
    desk.disconnect(host.lease, host.stream)
    assert executor.dropped == []
    deadline = time.monotonic() + 10
    while not executor.dropped:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    late = FakeHost(desk)
    assert (late.resumed, late.heard()) == (True, ["one"])  # what was measured is kept
    late.trial("two")
    assert executor.submitted == ["one", "two", "two"]


def test_the_trials_of_an_expired_lease_are_dropped_for_the_next_host(desk, executor):
    host = FakeHost(desk)
    host.trial("one")
    host.lose_link()
    host.lease.lost_at -= lease_module.GRACE_S
    FakeHost(desk, "bob's")
    assert executor.dropped == [host.lease]


def test_a_host_that_comes_back_in_time_loses_no_trial(desk, executor, monkeypatch):
    monkeypatch.setattr(lease_module, "GRACE_S", 0.2)
    host = FakeHost(desk)
    host.trial("one")
    desk.disconnect(host.lease, host.stream)
    returned = FakeHost(desk)
    time.sleep(0.4)
    assert executor.dropped == []
    executor.finish("one")
    assert returned.heard() == ["one"]


# Models.


def test_a_missing_model_is_requested_and_the_trial_runs_when_it_arrives(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    assert host.heard() == [("wants", MODEL_ID)]
    assert executor.submitted == []
    host.model(MODEL, MODEL_ID)
    assert executor.submitted == ["one"]


def test_a_cached_model_is_not_requested(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    host.model(MODEL, MODEL_ID)
    host.heard()
    host.trial("two", MODEL_ID)
    assert host.heard() == []
    assert executor.submitted == ["one", "two"]


def test_a_model_that_several_trials_need_is_requested_once(desk, executor):
    host = FakeHost(desk)
    for trial_id in ("one", "two", "three"):
        host.trial(trial_id, MODEL_ID)
    assert host.heard() == [("wants", MODEL_ID)]
    host.model(MODEL, MODEL_ID)
    assert executor.submitted == ["one", "two", "three"]


def test_a_model_that_arrives_twice_starts_each_trial_once(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    host.model(MODEL, MODEL_ID)
    host.model(MODEL, MODEL_ID)
    assert executor.submitted == ["one"]


def test_other_trials_run_while_one_waits_for_its_model(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    host.trial("two")
    assert executor.submitted == ["two"]


def test_missing_models_are_requested_again_after_a_reconnect(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    host.trial("two", MODEL_ID)
    host.lose_link()
    returned = FakeHost(desk)
    assert returned.heard() == [("wants", MODEL_ID)]
    returned.model(MODEL, MODEL_ID)
    assert executor.submitted == ["one", "two"]


def test_a_model_interrupted_by_a_lost_connection_is_sent_from_the_start(desk, executor):
    content = [bytes(3000)]
    model_id = wire.model_id_of(content)
    parts = wire.model_messages(model_id, content, message_bytes=1000)
    first = FakeHost(desk)
    first.trial("one", model_id)
    first.part(parts[0])
    second = FakeHost(desk)
    first.part(parts[1])  # arrives over the old connection after the new one is open
    for part in parts:
        second.part(part)
    assert executor.submitted == ["one"]


def test_a_trial_with_a_damaged_model_fails(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    host.heard()
    host.model([b"something else"], MODEL_ID)
    message = host.stream.get_nowait().measurement
    assert (message.trial_id, message.status) == ("one", "malformed")
    assert "different hash" in message.error
    assert executor.submitted == []


def test_a_damaged_model_is_requested_again_for_the_next_trial(desk, executor):
    host = FakeHost(desk)
    host.trial("one", MODEL_ID)
    host.model([b"something else"], MODEL_ID)
    host.heard()
    host.trial("two", MODEL_ID)
    assert host.heard() == [("wants", MODEL_ID)]
    host.model(MODEL, MODEL_ID)
    assert executor.submitted == ["two"]
