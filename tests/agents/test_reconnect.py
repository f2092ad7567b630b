"""A host that loses its connection to a real agent, and other hosts that request the device."""

import uuid

import grpc
import pytest


@pytest.fixture
def agent(start_agent):
    return start_agent()


@pytest.fixture
def lease_id():
    return uuid.uuid4().hex


def refusal(agent, holder="bob@desk"):
    """Return the message with which the agent refuses another host."""
    with pytest.raises(grpc.RpcError) as refused:
        agent.host(holder=holder).next()
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    return refused.value.details()


def test_an_unacknowledged_measurement_is_sent_again_over_a_new_connection(agent, lease_id, trial_of, eventual):
    first = agent.host(lease_id)
    assert not first.welcome().resumed
    trial = trial_of()
    first.send(trial=trial)
    measurement = first.measurement()
    first.cut()
    second = agent.host(lease_id)
    assert second.welcome().resumed
    assert second.measurement() == measurement
    second.acknowledge(trial.trial_id)
    eventual(lambda: '"acknowledged"' in agent.log)
    second.cut()
    third = agent.host(lease_id)
    assert third.welcome().resumed
    assert third.hears_nothing()
    third.done()


def test_measurements_made_without_a_connection_are_not_lost(agent, lease_id, trial_of, eventual):
    first = agent.host(lease_id)
    first.welcome()
    trials = [trial_of() for _ in range(3)]
    for trial in trials:
        first.send(trial=trial)
    first.measurement()
    first.cut()
    eventual(lambda: agent.log.count('"event": "measured"') >= 3 and trials[-1].trial_id in agent.log)
    second = agent.host(lease_id)
    second.welcome()
    assert [second.measurement().trial_id for _ in trials] == [trial.trial_id for trial in trials]
    second.done()


def test_repeated_connection_losses_do_not_end_the_lease(agent, lease_id):
    host = agent.host(lease_id)
    host.welcome()
    for _ in range(20):
        host.cut()
        host = agent.host(lease_id)
        assert host.welcome().resumed
    host.done()


def test_a_trial_sent_again_over_a_new_connection_is_measured_once(agent, lease_id, trial_of):
    first = agent.host(lease_id)
    first.welcome()
    trial = trial_of()
    first.send(trial=trial)
    first.measurement()
    first.cut()
    second = agent.host(lease_id)
    second.welcome()
    second.send(trial=trial)
    assert second.measurement().trial_id == trial.trial_id
    assert second.hears_nothing()
    second.done()


def test_another_host_is_refused_while_the_device_is_leased(agent, lease_id):
    first = agent.host(lease_id, holder="ada@laptop")
    first.welcome()
    assert refusal(agent).startswith("held by ada@laptop since ")
    first.cut()
    assert refusal(agent).startswith("held by ada@laptop since ")
    second = agent.host(lease_id)
    assert second.welcome().resumed
    second.done()


def test_a_host_resumes_its_lease_before_the_old_connection_times_out(agent, lease_id, trial_of):
    first = agent.host(lease_id, holder="ada@laptop")
    first.welcome()
    second = agent.host(lease_id, holder="ada@laptop")
    assert second.welcome().resumed
    assert first.next() is None  # the agent ends the old stream
    trial = trial_of()
    assert second.take(trial).trial_id == trial.trial_id
    assert refusal(agent).startswith("held by ada@laptop since ")
    second.done()


def test_a_host_that_finishes_frees_the_device_at_once(agent, lease_id):
    first = agent.host(lease_id)
    first.welcome()
    first.done()
    second = agent.host(holder="bob@desk")
    assert not second.welcome().resumed
    second.done()


def test_a_returned_lease_is_not_resumed(agent, lease_id, trial_of):
    first = agent.host(lease_id)
    first.welcome()
    first.send(trial=trial_of())
    first.measurement()
    first.done()
    second = agent.host(lease_id)
    assert not second.welcome().resumed
    assert second.hears_nothing()
    second.done()


def test_the_queue_of_a_host_that_finished_does_not_keep_the_next_one_waiting(agent, lease_id, trial_of, eventual):
    first = agent.host(lease_id)
    first.welcome()
    for _ in range(200):
        first.send(trial=trial_of("hanging", timeout_s=20.0))
    eventual(agent.loaded)
    first.done()
    second = agent.host(holder="bob@desk")
    second.welcome()
    trial = trial_of()
    second.send(trial=trial)
    assert second.next(15).measurement.status == "ok"
    assert len(agent.loaded()) == 2
    second.done()
