"""Streams that say nothing must not keep out a host."""

import threading
import time

import grpc
import numpy as np
import pytest

from ofa_agent.service import streams
from ofa_profiler.connections import client
from ofa_profiler.connections.client import Agent
from ofa_tables.errors import AgentLost

TOKEN = (("authorization", "Bearer s3cret"),)
SOON_S = 3.0  # far less than HELLO_S
TRIALS = 5
MOST_CPU_NS = 5e6  # of the agent itself, for one trial


@pytest.fixture
def crowd():
    """Return a function that opens silent streams to an agent, each through its own connection to the server."""
    left, channels, kept = threading.Event(), [], []  # a call that nobody keeps is cancelled

    def silence():
        left.wait(60)
        yield from ()

    def come(agent, number, metadata=()):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        shared = [grpc.insecure_channel(agent.address, options) for _ in range(min(number, 20))]
        channels.extend(shared)
        calls = [channel.stream_stream("/ofa_agent.Agent/Measure") for channel in shared]
        kept.extend(calls[at % len(calls)](silence(), metadata=metadata) for at in range(number))
        return kept

    yield come
    left.set()
    for channel in channels:
        channel.close()


def describe(agent, metadata=()):
    method = agent.channel().unary_unary("/ofa_agent.Agent/Describe")
    return method(b"", timeout=SOON_S, metadata=metadata)


@pytest.mark.parametrize("token", [None, "s3cret"])
@pytest.mark.parametrize("strangers", [17, 200])
def test_silent_streams_do_not_keep_out_a_host(start_agent, crowd, trial_of, strangers, token):
    agent = start_agent(*(["--token-stdin"] if token else []), token=token)
    metadata = TOKEN if token else ()
    measuring = agent.host()
    measuring.welcome()
    crowd(agent, strangers, metadata)
    time.sleep(0.5)  # until they are there
    begin = time.monotonic()
    assert describe(agent, metadata)
    measurements = [measuring.take(trial_of()) for _ in range(TRIALS)]
    assert {measurement.status for measurement in measurements} == {"ok"}
    assert np.median([measurement.agent_cpu_ns for measurement in measurements]) < MOST_CPU_NS
    measuring.done()
    following = agent.host()
    assert not following.next(SOON_S).welcome.resumed
    following.done()
    assert time.monotonic() - begin < 2 * SOON_S


def test_streams_without_the_token_are_refused_before_their_hello(start_agent, crowd):
    agent = start_agent("--token-stdin", token="s3cret")
    for call in crowd(agent, 40):
        assert call.code() == grpc.StatusCode.UNAUTHENTICATED
    assert describe(agent, TOKEN)


def test_a_stream_without_a_hello_ends_in_a_few_seconds(agent, crowd):
    (call,) = crowd(agent, 1)
    begin = time.monotonic()
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert call.details() == "no hello within 5 s; send it first"
    assert time.monotonic() - begin < 2 * streams.HELLO_S


def test_watchers_do_not_occupy_every_thread(agent, eventual):
    watch = agent.channel().unary_stream("/grpc.health.v1.Health/Watch")
    watches = [watch(b"") for _ in range(streams.THREADS)]
    eventual(lambda: sum(not call.is_active() for call in watches) == streams.THREADS - streams.MAX_WATCH, SOON_S)
    assert describe(agent)
    refused = [call for call in watches if not call.is_active()]
    assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call in watches:
        call.cancel()


class MuteCall:
    """A stream on which no message of the agent arrives."""

    def __init__(self, requests, metadata):
        self._cancelled = threading.Event()

    def __next__(self):
        assert self._cancelled.wait(10), "the host waits without a deadline"
        raise Cancelled

    def cancel(self):
        self._cancelled.set()


class Cancelled(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.CANCELLED

    def details(self):
        return "Locally cancelled"


class MuteChannel:
    def stream_stream(self, *arguments):
        return MuteCall


def test_a_host_does_not_wait_for_a_mute_agent_without_a_deadline(monkeypatch):
    monkeypatch.setattr(client, "CALL_TIMEOUT_S", 0.1)
    with pytest.raises(AgentLost, match=r"board has sent nothing for 0\.1 s; restart it"):
        Agent(MuteChannel(), "board").lease("a lease", "a test")


def test_a_trial_limits_the_time_that_a_host_waits_for_its_measurement(monkeypatch, agent, trial_of):
    monkeypatch.setattr(client, "SLACK_S", -0.5)
    trials = [trial_of("hanging", timeout_s=1.0)]
    lease = Agent(agent.channel(), "board").lease("a lease", "a test")
    with pytest.raises(AgentLost, match="sent nothing"), lease:
        list(lease.measure(lambda: trials.pop() if trials else None, {}))
    back = agent.host("a lease")
    assert back.welcome().resumed
    assert back.measurement().status == "timed-out"
    back.done()
