"""Real agents for tests. Each has a separate home, and therefore a separate lock, and is ended after the tests."""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import grpc
import pytest

from ofa_agent import operators as ops
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_profiler.lowering import lower

# AGENT_PYTHON selects a different Python for the agents, with their requirements (scripts/matrix.py).
AGENT = (os.environ.get("AGENT_PYTHON") or sys.executable, "-m", "ofa_agent")

PATIENCE_S = 60.0  # a limit for waits; tests that pass take far less
SHORT = Budget(warmup_s=0.02, window_s=0.001, burst_min_s=0.001, burst_max_s=0.02, min_runs=3, half_width=0.05)

BLOCK = ops.Block("a small block", (8, 6, 6), (ops.Conv(8, 8, 3), ops.Activation("relu"), ops.Add(0)))

# Runtimes of another distribution. Each one imitates a failure of a native library.
RUNTIMES = '''
import os, signal, time
from pathlib import Path

class Steady:
    """Runs for a millisecond, and records each load in the home of the agent."""

    def version(self):
        return "1.0"

    def load(self, block, job, model_path):
        with open(os.path.join(os.environ["OFA_AGENT_HOME"], "loaded"), "a") as file:
            file.write(block.key + "\\n")
        return self

    def run(self):
        time.sleep(0.001)

    def close(self):
        pass

class Hanging(Steady):
    def run(self):
        time.sleep(600)

class Hungry(Steady):
    def load(self, block, job, model_path):
        raise MemoryError("no room for %s" % block.key)

class Faulty(Steady):
    def run(self):
        os.kill(os.getpid(), signal.SIGSEGV)

class Exiting(Steady):
    def run(self):
        os._exit(7)

class Raising(Steady):
    def run(self):
        raise ValueError("the delegate said no")

class Chatty(Steady):
    def run(self):
        print("INFO: Created delegate for CPU.", flush=True)
        os.write(1, b"\\x00\\xff native noise\\n")

class Broken(Steady):
    def version(self):
        raise ImportError("libbroken.so: cannot open shared object file")

steady, hanging, hungry, faulty = Steady(), Hanging(), Hungry(), Faulty()
exiting, raising, chatty, broken = Exiting(), Raising(), Chatty(), Broken()
'''


def eventually(condition, patience_s=PATIENCE_S):
    """Return the result of ``condition`` as soon as it is true."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)
    return value


def processes_of(home):
    """Return all living processes with this OFA_AGENT_HOME: agents and their workers."""
    mark = f"OFA_AGENT_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if mark in (folder / "environ").read_bytes().split(b"\0") and state not in "ZX":
                found.append(int(folder.name))
        except OSError:
            continue  # it has just ended, or belongs to another user
    return found


class RunningAgent:
    """``ofa-agent serve`` in a separate process."""

    def __init__(self, home, flags=(), command=None, environment=None, token=None):
        self.home = Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.token = token
        self._log = self.home / "stderr.log"
        self._channels = []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*(command or AGENT), "serve", "--json", *flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {}), "OFA_AGENT_HOME": str(self.home)},
            )
        if "--token-stdin" in flags:
            self.process.stdin.write(token.encode() + b"\n")
            self.process.stdin.flush()
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            self.end()
            raise AssertionError(f"the agent did not start:\n{self.log}")
        self.address = json.loads(line)["address"]

    @property
    def log(self):
        return self._log.read_text(errors="replace")

    @property
    def workers(self):
        return [pid for pid in processes_of(self.home) if pid != self.process.pid]

    def channel(self):
        channel = grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)])
        self._channels.append(channel)
        return channel

    def host(self, lease_id=None, holder="a test", protocol=wire.PROTOCOL):
        """Return a host that has sent its hello."""
        return Host(self.channel(), lease_id or uuid.uuid4().hex, holder, protocol, self.token)

    def loaded(self):
        """The keys of the jobs that a test runtime has loaded, in order."""
        path = self.home / "loaded"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def end(self):
        for channel in self._channels:
            channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        for pid in processes_of(self.home):
            os.kill(pid, signal.SIGKILL)


class Host:
    """The host side of one Measure stream. It sends messages unchanged and acknowledges nothing automatically."""

    def __init__(self, channel, lease_id, holder, protocol, token=None):
        self._outgoing = queue.SimpleQueue()
        self._incoming = queue.SimpleQueue()
        self.send(hello=wire.Hello(protocol=protocol, lease_id=lease_id, holder=holder))
        method = wire.method(wire.SERVICE, "Measure")
        stream = channel.stream_stream(method, wire.HostMessage.SerializeToString, wire.AgentMessage.FromString)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._call = stream(iter(self._outgoing.get, None), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for message in self._call:
                self._incoming.put(message)
            self._incoming.put(None)
        except grpc.RpcError as error:
            self._incoming.put(error)

    def send(self, **message):
        self._outgoing.put(wire.HostMessage(**message))

    def next(self, patience_s=PATIENCE_S):
        """Return the next message of the agent, None at the end of the stream. Raises the errors of gRPC."""
        message = self._incoming.get(timeout=patience_s)
        if isinstance(message, grpc.RpcError):
            raise message
        return message

    def welcome(self):
        message = self.next()
        assert message.WhichOneof("message") == "welcome"
        return message.welcome

    def measurement(self):
        message = self.next()
        assert message.WhichOneof("message") == "measurement", message
        return message.measurement

    def hears_nothing(self, for_s=0.3):
        try:
            self._incoming.get(timeout=for_s)
        except queue.Empty:
            return True
        return False

    def acknowledge(self, *trial_ids):
        self.send(acknowledge=wire.Acknowledge(trial_ids=trial_ids))

    def take(self, trial, model=None):
        """Run one trial, acknowledge its Measurement, and return it."""
        self.send(trial=trial)
        message = self.next()
        while message.WhichOneof("message") == "model_wanted":
            for part in wire.model_messages(message.model_wanted.model_id, model.chunks):
                self.send(model=part)
            message = self.next()
        self.acknowledge(message.measurement.trial_id)
        return message.measurement

    def cut(self):
        """Break the connection without a half-close or an acknowledgement."""
        self._call.cancel()
        self._outgoing.put(None)

    def done(self):
        """Return the device, and wait for the agent to end the stream."""
        self._outgoing.put(None)
        while self.next() is not None:
            pass


def trial_message(runtime="steady", block=BLOCK, budget=SHORT, timeout_s=PATIENCE_S, model_id="", **settings):
    """Return a trial of ``block`` with a unique id."""
    settings = {"precision": "fp32", "batch": 1, "threads": 1, **settings}
    job = wire.job_message(block, wire.Settings(runtime=runtime, **settings), model_id)
    trial = wire.Trial(trial_id=uuid.uuid4().hex, job=job)
    wire.set_budget(trial.budget, budget, timeout_s)
    return trial


@pytest.fixture(scope="session")
def test_runtimes(tmp_path_factory):
    """A PYTHONPATH with a distribution that registers runtimes through the entry point group."""
    folder = tmp_path_factory.mktemp("distribution")
    (folder / "misbehaving.py").write_text(RUNTIMES)
    facts = folder / "misbehaving-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    names = ("steady", "hanging", "hungry", "faulty", "exiting", "raising", "chatty", "broken")
    (facts / "entry_points.txt").write_text(
        "[ofa_agent.runtimes]\n" + "".join(f"{name} = misbehaving:{name}\n" for name in names)
    )
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


@pytest.fixture
def start_agent(tmp_path, test_runtimes):
    """Start agents, each in a separate home unless one is given; end them and their workers after the test."""
    started = []

    def start(*flags, home=None, environment=None, **options):
        home = home or tmp_path / f"home-{len(started)}"
        agent = RunningAgent(home, flags, environment={**test_runtimes, **(environment or {})}, **options)
        started.append(agent)
        return agent

    yield start
    for agent in started:
        agent.end()


@pytest.fixture(scope="module")
def agent_flags():
    """The flags of the shared agent; a module may override them."""
    return ()


@pytest.fixture(scope="module")
def module_agent(tmp_path_factory, test_runtimes, agent_flags):
    agent = RunningAgent(tmp_path_factory.mktemp("agent"), agent_flags, environment=test_runtimes)
    yield agent
    agent.end()


@pytest.fixture
def agent(module_agent):
    """A running agent that the tests of a module share. Each test must return the lease."""
    yield module_agent
    assert module_agent.process.poll() is None, module_agent.log


@pytest.fixture
def host(agent):
    """A host that holds the shared agent, and returns it after the test."""
    host = agent.host()
    host.welcome()
    yield host
    host.done()


@pytest.fixture(scope="session")
def small_model():
    """BLOCK as a model for onnxruntime."""
    return lower("onnxruntime", BLOCK, 1)


@pytest.fixture
def run_agent(tmp_path):
    """Run an ``ofa-agent`` command until it exits."""

    def run(*arguments, home=None, python=AGENT, **options):
        environment = {**os.environ, "OFA_AGENT_HOME": str(home or tmp_path / "home"), **options.pop("env", {})}
        return subprocess.run(
            [*python, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            env=environment,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def eventual():
    return eventually


@pytest.fixture(scope="session")
def living():
    return processes_of


@pytest.fixture(scope="session")
def trial_of():
    return trial_message


@pytest.fixture(scope="session")
def small_block():
    return BLOCK


@pytest.fixture(scope="session")
def short_budget():
    return SHORT
