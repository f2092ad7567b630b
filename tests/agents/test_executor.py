"""The trial executor with workers that fail."""

import queue
import sys
import threading

import pytest

from ofa_agent.device.shell import LocalShell
from ofa_agent.measuring import executor as executor_module
from ofa_agent.measuring import memory
from ofa_agent.measuring.executor import TrialExecutor
from ofa_agent.measuring.worker import WorkerGone, WorkerProcess
from ofa_agent.protocol import messages as wire
from ofa_agent.service.models import ModelCache


class FakeWorker:
    """A worker process with scripted behaviour for each trial."""

    def __init__(self, script):
        self.script = script
        self.ready = wire.WorkerReady(runtimes={"steady": "1.0"}, missing_runtimes={"tflite": "not installed"})

    def trial(self, trial, model_path, reference_path):
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            step()
        return wire.Measurement(trial_id=trial.trial_id, status="ok")

    def kill(self):
        pass

    def stop(self):
        pass


@pytest.fixture
def script():
    """The behaviour of the next trials: an exception to raise, or a function to call."""
    return []


@pytest.fixture
def start_failures():
    """The errors with which the next workers fail to start."""
    return []


@pytest.fixture
def started_with():
    """The descriptors that each worker inherited."""
    return []


@pytest.fixture
def executor(script, start_failures, started_with, tmp_path, monkeypatch):
    def start(keep_open, command, scratch):
        started_with.append(keep_open)
        if start_failures:
            raise start_failures.pop(0)
        return FakeWorker(script)

    monkeypatch.setattr(executor_module, "WorkerProcess", start)
    executor = TrialExecutor(ModelCache(str(tmp_path / "models")), lock_descriptor=42, shell=LocalShell())
    yield executor
    if executor.is_alive():
        executor.stop()


@pytest.fixture
def take(executor):
    """Submit one trial and wait for its Measurement."""
    delivered = queue.SimpleQueue()

    def take(trial_id, model_id=""):
        executor.submit(wire.Trial(trial_id=trial_id, job=wire.Job(key="a key", model_id=model_id)), delivered.put)
        return delivered.get(timeout=60)

    return take


FAILURES = [
    (WorkerGone("ended by SIGSEGV"), "crashed"),
    (WorkerGone("no answer within 1 s", status="timed-out"), "timed-out"),
    (OverflowError("timestamp too large"), "crashed"),
    (ValueError("an answer that cannot be read"), "crashed"),
    (MemoryError(), "out-of-memory"),
]


@pytest.mark.parametrize(("failure", "status"), FAILURES, ids=[repr(failure) for failure, _ in FAILURES])
def test_each_failed_trial_is_answered_and_the_next_one_works(executor, take, script, failure, status):
    script.append(failure)
    executor.start()
    failed = take("one")
    assert (failed.trial_id, failed.key, failed.status) == ("one", "a key", status)
    assert failed.error
    assert take("two").status == "ok"


def test_a_worker_that_ended_is_replaced_by_one_that_inherits_the_lock(executor, take, script, started_with):
    script.append(WorkerGone("ended by SIGSEGV"))
    executor.start()
    take("one")
    take("two")
    take("three")
    assert started_with == [(42,), (42,)]


def test_a_worker_that_does_not_start_is_tried_again_for_the_next_trial(executor, take, start_failures):
    start_failures.append(OSError(12, "Cannot allocate memory"))
    executor.start()
    assert dict(executor.runtimes().missing_runtimes) == {
        "worker": "the worker did not start: [Errno 12] Cannot allocate memory"
    }
    assert take("one").status == "ok"
    assert dict(executor.runtimes().runtimes) == {"steady": "1.0"}


def test_a_missing_model_is_reported(executor, take):
    executor.start()
    failed = take("one", model_id="0" * 64)
    assert failed.status != "ok"
    assert "missing from the cache" in failed.error


def test_a_full_disk_fails_only_the_trial_that_needs_the_space(executor, take, monkeypatch):
    def path(model_id):
        raise OSError(28, "No space left on device")

    executor.start()
    with monkeypatch.context() as patched:
        patched.setattr(executor._models, "path", path)
        failed = take("one", model_id="0" * 64)
    assert failed.status == "out-of-memory"
    assert failed.error.startswith(
        f"cannot write the model to {executor._models.folder}: No space left on device; free some space"
    )
    assert take("two").status == "ok"


@pytest.fixture
def three_trials(executor, script):
    """Three trials, of which the first is running until ``let_go`` is set: (delivered, let_go)."""
    delivered = []
    begun, let_go = threading.Event(), threading.Event()
    script.append(lambda: (begun.set(), let_go.wait(60)))
    executor.start()
    for trial_id in ("one", "two", "three"):
        executor.submit(wire.Trial(trial_id=trial_id), delivered.append)
    begun.wait(60)
    return delivered, let_go


def test_waiting_trials_are_not_started_when_the_agent_stops(executor, three_trials):
    delivered, let_go = three_trials
    threading.Timer(0.1, let_go.set).start()
    executor.stop()
    assert not executor.is_alive()
    assert delivered == []


# Trials of a host that is gone.


def test_trials_that_nobody_wants_are_dropped(executor, script, three_trials, take):
    delivered, let_go = three_trials
    executor.drop(delivered.append)
    let_go.set()
    assert take("of the next host").status == "ok"
    assert delivered == []
    assert script == []


def test_trials_of_another_host_are_not_dropped(executor, take):
    executor.drop([].append)
    executor.start()
    executor.drop([].append)
    assert take("one").status == "ok"


def test_a_dropped_trial_ends_at_once_and_its_worker_is_replaced(executor, take, script, monkeypatch, started_with):
    begun, killed = threading.Event(), threading.Event()

    def hang():
        begun.set()
        assert killed.wait(10)
        raise WorkerGone("ended by SIGKILL")

    delivered = []
    script.append(hang)
    monkeypatch.setattr(FakeWorker, "kill", lambda worker: killed.set())
    executor.start()
    executor.submit(wire.Trial(trial_id="one"), delivered.append)
    assert begun.wait(10)
    executor.drop(delivered.append)
    assert take("two").status == "ok"
    assert delivered == []
    assert started_with == [(42,), (42,)]


DEAF_WORKER = """
import os, sys, time
from ofa_agent.measuring.frames import write_frame
from ofa_agent.protocol import messages as wire
write_frame(int(sys.argv[3]), wire.WorkerReady().SerializeToString())
time.sleep(600)
"""


@pytest.fixture
def deaf_worker():
    """A worker that reads nothing from its pipe."""
    worker = WorkerProcess(command=(sys.executable, "-c", DEAF_WORKER))
    yield worker
    worker.stop()


@pytest.mark.timeout(30)
def test_a_worker_that_does_not_read_times_out(deaf_worker):
    trial = wire.Trial(job=wire.Job(key="x" * (1 << 20)))
    trial.budget.trial_timeout_s = 0.2
    with pytest.raises(WorkerGone, match=r"no answer within 0\.2 s") as gone:
        deaf_worker.trial(trial, "")
    assert gone.value.status == "timed-out"


@pytest.mark.timeout(30)
def test_the_agent_limits_the_timeout_of_a_trial(deaf_worker, monkeypatch):
    monkeypatch.setattr(wire, "MAX_TRIAL_S", 0.2)
    trial = wire.Trial()
    trial.budget.trial_timeout_s = float("inf")
    with pytest.raises(WorkerGone, match=r"no answer within 0\.2 s"):
        deaf_worker.trial(trial, "")


DYING_WORKER = """
import os, signal, sys
from ofa_agent.measuring.frames import read_frame, write_frame
from ofa_agent.protocol import messages as wire
write_frame(int(sys.argv[3]), wire.WorkerReady().SerializeToString())
read_frame(int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("kills", "status"), [([3, 3], "crashed"), ([3, 4], "out-of-memory")])
def test_a_worker_that_the_kernel_ended_for_lack_of_memory_is_out_of_memory(monkeypatch, kills, status):
    worker = WorkerProcess(command=(sys.executable, "-c", DYING_WORKER))
    monkeypatch.setattr(memory, "oom_kills", lambda: kills.pop(0))
    trial = wire.Trial()
    trial.budget.trial_timeout_s = 60
    with pytest.raises(WorkerGone, match="ended by SIGKILL") as gone:
        worker.trial(trial, "")
    worker.stop()
    assert gone.value.status == status
