"""The thread that owns the worker process and runs one trial at a time."""

import os
import shutil
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Optional, Sequence, Tuple

from ofa_agent import conditions
from ofa_agent.commands.permission import NO_COMMAND, Permission
from ofa_agent.conditions.cooling import wait_until_cool
from ofa_agent.device.shell import Shell
from ofa_agent.measuring.worker import WorkerGone, WorkerProcess
from ofa_agent.protocol import messages as wire
from ofa_agent.service.models import ModelCache
from ofa_agent.text import one_line

Deliver = Callable[[Any], None]

MAX_COOL_S = 3600.0


class TrialExecutor(threading.Thread):
    """Runs submitted trials in order and delivers exactly one Measurement for each trial, from this thread.

    This thread starts the worker because it lives as long as the agent. The kernel ends a child process when the thread
    that started it ends.
    """

    def __init__(
        self,
        models: ModelCache,
        lock_descriptor: int,
        shell: Shell,
        worker_command: Sequence[str] = (),
        permission: Permission = NO_COMMAND,
    ) -> None:
        super().__init__(name="trial executor", daemon=True)
        self._shell = shell
        self._worker_command = worker_command
        self._permission = permission
        self._models = models
        self._scratch = os.path.join(models.folder, "scratch")  # removed with the models when an agent starts or ends
        self._lock_descriptor = lock_descriptor
        self._changed = threading.Condition()
        self._queue: "Deque[Tuple[Any, Deliver]]" = deque()
        self._running: Optional[Deliver] = None
        self._dropped = threading.Event()  # nobody wants the running trial any more
        self._worker: Optional[WorkerProcess] = None
        self._worker_ready = wire.WorkerReady()
        self._ready = threading.Event()
        self._stopping = False

    def runtimes(self) -> Any:
        """Return the first message of the worker: the runtimes that load, and the reasons why others do not."""
        self._ready.wait()
        return self._worker_ready

    def submit(self, trial: Any, deliver: Deliver) -> None:
        with self._changed:
            self._queue.append((trial, deliver))
            self._changed.notify()

    def drop(self, deliver: Deliver) -> None:
        """Drop the trials whose Measurement would go to ``deliver``, and end the one that is running."""
        with self._changed:
            self._queue = deque(item for item in self._queue if item[1] != deliver)
            if self._running == deliver:
                self._dropped.set()
                self._kill()

    def stop(self) -> None:
        """End the worker, even during a burst."""
        with self._changed:
            self._stopping = True
            self._queue.clear()
            self._dropped.set()
            self._kill()
            self._changed.notify()
        self.join(timeout=5.0)

    def run(self) -> None:
        self._start_worker()
        self._ready.set()
        while True:
            idle_since = time.monotonic()
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if self._stopping:
                    break
                trial, deliver = self._queue.popleft()
                self._running = deliver
            waited_s = time.monotonic() - idle_since
            measurement = self._take(trial)
            measurement.waited_s = waited_s
            with self._changed:
                self._running = None
                dropped = self._dropped.is_set()
                if not self._stopping:
                    self._dropped.clear()
            if dropped:
                self._discard_worker()  # it may have been killed after it answered
            else:
                deliver(measurement)
        if self._worker is not None:
            self._worker.stop()

    def _kill(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.kill()

    def _take(self, trial: Any) -> Any:
        refusal = self._permission.refusal_of_jobs((trial.job, trial.reference))
        if refusal:
            return _failed(trial, "unsupported", refusal)
        try:
            reference_path = self._path(trial.reference)
            model_path = self._path(trial.job)
            if self._worker is None:
                self._start_worker()
            if self._worker is None:
                return _failed(trial, "crashed", self._worker_ready.missing_runtimes["worker"])
            cool_s = min(trial.budget.cool_s, MAX_COOL_S)
            cooled_s = wait_until_cool(self._condition, cool_s, time.monotonic, self._dropped.wait)
            if self._dropped.is_set():
                raise WorkerGone("the lease of the host ended")
            cpu_start_s = time.process_time()
            measurement = self._worker.trial(trial, model_path, reference_path)
            measurement.agent_cpu_ns = int((time.process_time() - cpu_start_s) * 1e9)
            measurement.cooled_s = cooled_s
            return measurement
        except OSError as error:  # no space for the model file
            what = "cannot write the model to %s: %s" % (self._models.folder, error.strerror or error)
            advice = "free some space; ofa-targets clean NAME removes the files of ofa-profile from a device"
            return _failed(trial, "out-of-memory", "%s; %s" % (what, advice))
        except KeyError:
            return _failed(trial, "crashed", "the model is missing from the cache of the agent")
        except WorkerGone as gone:
            self._discard_worker()
            return _failed(trial, gone.status, str(gone))
        except MemoryError:
            return _failed(trial, "out-of-memory", "the agent ran out of memory while it prepared the model")
        except Exception as error:  # without this thread the agent cannot run further trials
            self._discard_worker()
            return _failed(trial, "crashed", "the agent failed: %s: %s" % (type(error).__name__, error))

    def _condition(self) -> Any:
        return conditions.read(self._shell, of_all=False)

    def _path(self, job: Any) -> str:
        return self._models.path(job.model_id) if job.model_id else ""

    def _start_worker(self) -> None:
        try:
            shutil.rmtree(self._scratch, ignore_errors=True)  # left by a worker that was killed
            os.makedirs(self._scratch, mode=0o700)
            self._worker = WorkerProcess((self._lock_descriptor,), self._worker_command, self._scratch)
            self._worker_ready = self._worker.ready
        except (WorkerGone, OSError) as error:
            self._worker = None
            self._worker_ready = wire.WorkerReady(missing_runtimes={"worker": "the worker did not start: %s" % error})

    def _discard_worker(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


def _failed(trial: Any, status: str, error: str) -> Any:
    return wire.Measurement(
        trial_id=trial.trial_id, key=trial.job.key, status=status, error=one_line(error), started_at=time.time()
    )
