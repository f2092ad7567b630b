"""The gRPC service: describe the device, lease it to one host at a time, and stream trials and results."""

import hmac
import ipaddress
import json
import os
import signal
import sys
import threading
import time
from concurrent import futures
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Tuple

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # this process starts others, but never forks itself

import grpc

from ofa_agent.commands.permission import Permission
from ofa_agent.commands.versions import Versions
from ofa_agent.conditions import Setter
from ofa_agent.device import description as device
from ofa_agent.device import suitability
from ofa_agent.device.shell import LocalShell, Shell
from ofa_agent.measuring.executor import TrialExecutor
from ofa_agent.protocol import messages as wire
from ofa_agent.service import certificate
from ofa_agent.service.lease import Desk, Held, Lease, outgoing
from ofa_agent.service.lock import DeviceLock, home
from ofa_agent.service.models import ModelCache
from ofa_agent.service.streams import THREADS, Entrance
from ofa_agent.text import one_line

SERVICES = ("", wire.SERVICE)

MAX_HOLDER = 200  # characters

# Seconds to wait: gRPC reports a broken stream in two steps, and the first looks like a finished host.
CUT_REPORTED_S = 0.2


class ServeError(Exception):
    """The server cannot start; ``exit_code`` is 2 for a usage error."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class ServeOptions(NamedTuple):
    host: str = "127.0.0.1"
    port: int = 0
    token: Optional[str] = None
    tls_cert: Optional[bytes] = None
    tls_key: Optional[bytes] = None
    tls_files: Optional[Tuple[str, str]] = None  # of the two, for messages
    linger_s: Optional[float] = None  # exit after this time without a lease
    end_with_stdin: bool = False
    lock_wait_s: float = 0.0
    programs: Optional[Sequence[str]] = ()  # that command templates may run; None: all


# The kernel may deliver a signal to a thread of gRPC. Python handles it when the main thread wakes up.
SIGNAL_S = 0.5


def serve(
    options: ServeOptions,
    announce: Callable[[str], None],
    shell: Optional[Shell] = None,
    worker_command: Sequence[str] = (),
) -> None:
    """Serve until stopped. Raises ServeError, DeviceBusy.

    If the device is not this machine, ``shell`` accesses it and ``worker_command`` starts its worker.
    """
    shell = shell or LocalShell()
    _check_exposure(options)
    _check_certificate(options)
    lock = DeviceLock.acquire(options.lock_wait_s)
    models = ModelCache(os.path.join(home(), "models"))
    setter = Setter(shell, os.path.join(home(), "conditions.json"), log)
    setter.put_back()  # conditions that a killed agent had set
    permission = Permission(options.programs)
    executor = TrialExecutor(models, lock.descriptor, shell, worker_command, permission)
    desk = Desk(executor, models, setter, log, lock.announce)
    server = _server(options, _Service(executor, desk, options.token, shell, permission))
    address = "%s:%d" % (_in_address(options.host), _bind(server, options))
    executor.start()
    server.start()
    lock.announce(address=address)
    log("serving", address=address)
    stopped = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stopped.set())
    if options.end_with_stdin:
        threading.Thread(target=_wait_for_stdin, args=(stopped,), daemon=True).start()
    announce(address)
    while not stopped.wait(SIGNAL_S):
        if options.linger_s is not None and desk.idle_s() > options.linger_s:
            break
    log("stopping")
    server.stop(grace=None)
    executor.stop()
    setter.put_back()
    models.close()


def log(event: str, **facts: Any) -> None:
    """Write one event as a line of JSON to standard error. On a full disk, nothing is written."""
    try:
        sys.stderr.write(json.dumps(dict(time=round(time.time(), 3), event=event, **facts)) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


class _Service:
    def __init__(
        self, executor: TrialExecutor, desk: Desk, token: Optional[str], shell: Shell, permission: Permission
    ) -> None:
        self._shell = shell
        self._executor = executor
        self._desk = desk
        self._token = token
        self._versions = Versions(shell, permission)
        self._entrance = Entrance()

    def handlers(self) -> Any:
        agent = {
            "Describe": grpc.unary_unary_rpc_method_handler(
                self.describe, wire.DescribeRequest.FromString, wire.Description.SerializeToString
            ),
            "Measure": grpc.stream_stream_rpc_method_handler(
                self.measure, wire.HostMessage.FromString, wire.AgentMessage.SerializeToString
            ),
        }
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self.check, wire.HealthCheckRequest.FromString, wire.HealthCheckResponse.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self.watch, wire.HealthCheckRequest.FromString, wire.HealthCheckResponse.SerializeToString
            ),
        }
        return (
            grpc.method_handlers_generic_handler(wire.SERVICE, agent),
            grpc.method_handlers_generic_handler(wire.HEALTH_SERVICE, health),
        )

    def describe(self, request: Any, context: Any) -> Any:
        self._authorise(context)
        description = device.describe(self._shell, self._executor.runtimes())
        self._versions.describe(request.commands, description)
        return description

    def measure(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self._authorise(context)
        with self._entrance.measure(context):
            hello = self._hello(requests, context)
            name, holder, threads = hello.lease_id, one_line(hello.holder, MAX_HOLDER), hello.settings.threads
            try:
                lease, resumed = self._desk.take(name, holder, dict(hello.set), threads)
            except Held as held:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(held))
            yield from self._served(lease, resumed, hello.settings, requests, context)

    def _hello(self, requests: Iterator[Any], context: Any) -> Any:
        """Return the hello of a stream, checked; abort a stream without one."""
        first = self._entrance.first_message(requests, context)
        hello = first.hello if first is not None else wire.Hello(protocol=wire.PROTOCOL)
        if hello.protocol != wire.PROTOCOL:
            older = "agent" if hello.protocol > wire.PROTOCOL else "host"
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "the host uses protocol %d, the agent %d; update the %s" % (hello.protocol, wire.PROTOCOL, older),
            )
        if not hello.lease_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello with a lease_id")
        return hello

    def _served(
        self, lease: Lease, resumed: bool, settings: Any, requests: Iterator[Any], context: Any
    ) -> Iterator[Any]:
        """Yield the messages of a lease over this stream, and pass those of the host to the lease."""
        stream = lease.connect()
        ended = threading.Event()

        def end() -> None:
            ended.set()
            stream.put(None)

        if not context.add_callback(end):  # the stream has already ended
            end()

        def read() -> None:
            try:
                for message in requests:
                    lease.handle(message, stream)
                if ended.wait(CUT_REPORTED_S):
                    log("link lost", reason="the stream was interrupted")
                else:  # the host has finished
                    self._desk.give_back(lease, stream)
            except Exception as error:
                log("link lost", reason=str(error) or type(error).__name__)
            stream.put(None)

        threading.Thread(target=read, name="reader", daemon=True).start()
        try:
            yield wire.AgentMessage(welcome=self._welcome(lease, resumed, settings))
            for message in outgoing(stream):
                yield message
        finally:
            self._desk.disconnect(lease, stream)

    def _welcome(self, lease: Lease, resumed: bool, settings: Any) -> Any:
        return wire.Welcome(
            protocol=wire.PROTOCOL,
            resumed=resumed,
            not_set=lease.not_set,
            notes=lease.notes,
            warnings=suitability.warnings(self._shell, settings),
            refused=suitability.refusal(self._shell, settings.threads),
        )

    def check(self, request: Any, context: Any) -> Any:
        if request.service not in SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service %s" % request.service)
        return wire.HealthCheckResponse(status=1)

    def watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._authorise(context)
        with self._entrance.watch(context):
            known = request.service in SERVICES
            yield wire.HealthCheckResponse(status=1 if known else 3)
            closed = threading.Event()
            if context.add_callback(closed.set):  # otherwise the stream has already ended
                closed.wait()

    def _authorise(self, context: Any) -> None:
        if self._token is None:
            return
        reported = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(reported.encode(), b"Bearer " + self._token.encode()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong token; use the token of this agent")


def _check_exposure(options: ServeOptions) -> None:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ServeError("--tls-cert and --tls-key require each other; give both or neither", exit_code=2)
    if _is_loopback(options.host):
        return
    if options.token is None or options.tls_cert is None or options.tls_key is None:
        raise ServeError(
            "an address other than loopback requires a token and TLS; give --token-file, --tls-cert and --tls-key, "
            "or serve on 127.0.0.1 and connect through an SSH or adb tunnel",
            exit_code=2,
        )


def _check_certificate(options: ServeOptions) -> None:
    try:
        if options.tls_files:
            certificate.check(*options.tls_files)
    except certificate.BadCertificate as error:
        raise ServeError(str(error), exit_code=2) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server(options: ServeOptions, service: _Service) -> Any:
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=THREADS),
        options=[
            ("grpc.so_reuseport", 0),  # a port in use is an error, not a shared port
            ("grpc.keepalive_time_ms", 20000),
            ("grpc.keepalive_timeout_ms", 20000),
            ("grpc.http2.ping_timeout_ms", 20000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        ],
    )
    server.add_generic_rpc_handlers(service.handlers())
    return server


def _bind(server: Any, options: ServeOptions) -> int:
    address = "%s:%d" % (_in_address(options.host), options.port)
    try:
        if options.tls_cert and options.tls_key:
            credentials = grpc.ssl_server_credentials([(options.tls_key, options.tls_cert)])
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise ServeError(
            "cannot serve on %s: the port is in use, or this device does not have the address; "
            "use another --port, or 0 for a free port" % address
        )
    return int(port)


def _in_address(host: str) -> str:
    return "[%s]" % host if ":" in host else host


def _wait_for_stdin(stopped: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopped.set()
