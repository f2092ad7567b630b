"""The host side of the protocol: one agent over one gRPC channel."""

import getpass
import os
import queue
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from ofa_agent.measuring.timing import Budget
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_agent.text import one_line
from ofa_profiler.campaign.decoding import latency_ms
from ofa_profiler.lowering import Model
from ofa_tables.errors import AgentLost, DeviceError, DeviceHeld, OfaError, ProtocolMismatch

# Trials under way, so that the device never waits for the link. Only one if the host is the device: the work of
# the host would otherwise run beside the next trial.
WINDOW = 4
WINDOW_ON_DEVICE = 1
CALL_TIMEOUT_S = 150.0  # a slow board imports its runtimes before it answers
# Beside the limit of a trial: the agent starts a worker, and a model passes a slow link.
SLACK_S = 600.0

CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20000),
    ("grpc.keepalive_timeout_ms", 20000),
    ("grpc.http2.ping_timeout_ms", 20000),
    ("grpc.enable_http_proxy", 0),
]


class Agent:
    """An agent that answers on ``channel``; at most ``window`` trials are under way."""

    def __init__(self, channel: grpc.Channel, target: str, token: str | None = None, window: int = WINDOW) -> None:
        self._window = window
        self._channel = channel
        self._target = target
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.commands: tuple[str, ...] = ()  # command templates to describe, as JSON

    def describe(self) -> dict[str, Any]:
        """The description of the device as plain data. Raises DeviceError and subclasses."""
        call = self._channel.unary_unary(
            wire.method(wire.SERVICE, "Describe"), wire.DescribeRequest.SerializeToString, wire.Description.FromString
        )
        try:
            request = wire.DescribeRequest(commands=self.commands)
            description = call(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise typed(error, self._target) from None
        if description.protocol != wire.PROTOCOL:
            older = "agent" if description.protocol < wire.PROTOCOL else "host"
            raise ProtocolMismatch(
                f"the agent on {self._target} speaks protocol {description.protocol}, this host {wire.PROTOCOL}; "
                f"update the {older}"
            )
        return _printable(wire.to_dict(description))

    def lease(
        self, lease_id: str, purpose: str, conditions: Mapping[str, str] | None = None, settings: Any = None
    ) -> "Lease":
        """Lease the device and set its ``conditions`` for that time.

        ``settings`` is the message with the settings of the jobs; None if unknown. Raises DeviceHeld if another host
        holds the device, DeviceError if so many threads cannot run side by side there.
        """
        call = self._channel.stream_stream(
            wire.method(wire.SERVICE, "Measure"), wire.HostMessage.SerializeToString, wire.AgentMessage.FromString
        )
        return Lease(call, self._metadata, self._target, self._window, lease_id, purpose, conditions or {}, settings)


def time_once(agent: Agent, block: Block, model: Model, settings: Any, budget: Budget) -> float:
    """The median latency in ms of one trial that is not stored; ``settings`` is a message. Raises DeviceError."""
    trial = wire.Trial(trial_id=uuid.uuid4().hex)
    trial.job.CopyFrom(wire.job_message(block, settings, model.model_id))
    wire.set_budget(trial.budget, budget, CALL_TIMEOUT_S)
    trials = [trial]
    with agent.lease(uuid.uuid4().hex, "a check") as lease:
        (measurement,) = lease.measure(lambda: trials.pop() if trials else None, {model.model_id: model})
        lease.acknowledge([measurement.trial_id])
    if measurement.status != "ok":
        raise DeviceError(f"{block.key} could not be timed: {measurement.status}: {measurement.error}")
    return latency_ms(measurement)


class Lease:
    """A lease of the device, and the stream of trials and Measurements; a context manager.

    ``not_set`` maps each condition that could not be set to the reason. ``notes`` say what a condition means on this
    device, ``warnings`` why latencies may be wrong there.
    """

    def __init__(
        self,
        call: Any,
        metadata: Any,
        target: str,
        window: int,
        lease_id: str,
        purpose: str,
        conditions: Mapping[str, str],
        settings: Any = None,
    ) -> None:
        self._target = target
        self._window = window
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        holder = f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()}, {purpose})"
        hello = wire.Hello(protocol=wire.PROTOCOL, lease_id=lease_id, holder=holder, set=conditions, settings=settings)
        self._send(hello=hello)
        self._responses = call(iter(self._outgoing.get, None), metadata=metadata)
        self._limit_s = CALL_TIMEOUT_S
        welcome = self._next()
        if welcome is None or welcome.WhichOneof("message") != "welcome":
            raise ProtocolMismatch(f"the agent on {target} did not greet; is it an agent of ofa-profile?")
        self.not_set = _printable(dict(welcome.welcome.not_set))
        self.notes = _printable(list(welcome.welcome.notes))
        self.warnings = _printable(list(welcome.welcome.warnings))
        if welcome.welcome.refused:
            self.__exit__(None, None, None)
            raise DeviceError(f"{target}: {one_line(welcome.welcome.refused)}")

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Says that the host is done; after an error cuts the stream: the agent keeps what was not acknowledged."""
        if error is None:
            self._outgoing.put(None)
            self._limit_s = CALL_TIMEOUT_S
            while self._next() is not None:
                pass
        else:
            self.cut()

    def cut(self) -> None:
        """End the stream without a message: the agent waits for this host for a while."""
        self._responses.cancel()
        self._outgoing.put(None)

    def measure(self, next_trial: Callable[[], Any], models: Mapping[str, Model]) -> Iterator[Any]:
        """Yield Measurements until ``next_trial`` returns None and all trials are answered.

        ``next_trial`` is called whenever a trial has come back. Every Measurement must be acknowledged.
        """
        in_flight: set[str] = set()
        longest_s = 0.0

        def fill() -> None:
            nonlocal longest_s
            while len(in_flight) < self._window and (trial := next_trial()) is not None:
                in_flight.add(trial.trial_id)
                longest_s = max(longest_s, min(trial.budget.trial_timeout_s, wire.MAX_TRIAL_S) + trial.budget.cool_s)
                self._limit_s = longest_s + SLACK_S
                self._send(trial=trial)

        fill()
        while in_flight:
            message = self._next()
            if message is None:
                raise AgentLost(f"the agent on {self._target} ended the stream")
            kind = message.WhichOneof("message")
            if kind == "model_wanted":
                model = models.get(message.model_wanted.model_id)
                # None: a trial of an interrupted earlier command still waits for the model; it ends with the lease.
                for part in wire.model_messages(model.model_id, model.chunks) if model else ():
                    self._send(model=part)
            elif kind == "measurement":
                measurement = message.measurement
                in_flight.discard(measurement.trial_id)
                measurement.error = one_line(measurement.error)
                measurement.reference_error = one_line(measurement.reference_error)
                yield measurement
                fill()

    def acknowledge(self, trial_ids: list[str]) -> None:
        """Acknowledge results after they are committed: the agent then forgets them."""
        self._send(acknowledge=wire.Acknowledge(trial_ids=trial_ids))

    def _send(self, **message: Any) -> None:
        self._outgoing.put(wire.HostMessage(**message))

    def _next(self) -> Any:
        """The next message of the agent; None at the end of the stream. Raises AgentLost if none arrives in time."""
        late = threading.Timer(self._limit_s, self._responses.cancel)
        late.daemon = True
        late.start()
        try:
            return next(self._responses, None)
        except grpc.RpcError as error:
            if late.finished.is_set() and error.code() == grpc.StatusCode.CANCELLED:
                text = f"the agent on {self._target} has sent nothing for {self._limit_s:g} s; restart it"
                raise AgentLost(text) from None
            raise typed(error, self._target) from None
        finally:
            late.cancel()


def _printable(value: Any) -> Any:
    """Plain data of a device with every text as one printable line."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def typed(error: grpc.RpcError, target: str) -> OfaError:
    """Convert an error of gRPC to one of ours."""
    code, details = error.code(), one_line(error.details() or "")
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return ProtocolMismatch(f"the agent on {target} is of another version: {details}")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return DeviceHeld(f"{target} is {details}; wait until that host is done, or end it")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return DeviceError(f"the agent on {target} refused: {details}; give the right one with --set token-file=FILE")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return ProtocolMismatch(f"what answers on {target} is not an agent of ofa-profile, or a much older one")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return AgentLost(f"the agent on {target} does not answer ({details})")
    return AgentLost(f"the agent on {target} failed ({code.name}: {details})")
