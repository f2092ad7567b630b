"""The worker process that runs the runtime, and the handle that the agent uses. A crash costs only one trial.

Messages use two separate pipes, because native libraries print to standard output. The worker is a new interpreter and
ends when its agent ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

from ofa_agent import runtimes
from ofa_agent.device.shell import LocalShell
from ofa_agent.measuring import memory
from ofa_agent.measuring.block_trial import measure
from ofa_agent.measuring.file_trial import measure_file
from ofa_agent.measuring.frames import read_frame, write_frame
from ofa_agent.measuring.reference import Reference
from ofa_agent.operators import InvalidBlock
from ofa_agent.protocol import messages as wire
from ofa_agent.text import one_line

START_TIMEOUT_S = 120.0
END_S = 5.0


class WorkerGone(Exception):
    """The worker ended, or did not answer in time; ``status`` is that of the trial."""

    def __init__(self, text: str, status: str = "crashed") -> None:
        super().__init__(text)
        self.status = status


class WorkerProcess:
    """The handle of a worker process. ``ready`` lists its runtimes; ``command`` replaces the command that starts it.

    The temporary files of the worker go to the folder ``scratch``.
    """

    def __init__(self, keep_open: Tuple[int, ...] = (), command: Sequence[str] = (), scratch: str = "") -> None:
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        self._down, self._up = down_write, up_read
        os.set_blocking(down_write, False)  # a worker that does not read must not stop the agent
        try:
            self._process = subprocess.Popen(
                [*(command or _own_command()), "worker", str(down_read), str(up_write), str(os.getpid())],
                pass_fds=(down_read, up_write) + keep_open,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                env=dict(os.environ, TMPDIR=scratch) if scratch else None,
            )
        finally:
            os.close(down_read)
            os.close(up_write)
        try:
            self.ready = wire.WorkerReady.FromString(self._exchange(None, START_TIMEOUT_S))
        except WorkerGone:
            self.stop()
            raise

    def trial(self, trial: Any, model_path: str, reference_path: str = "") -> Any:
        """Run one trial and return its Measurement. Raises WorkerGone."""
        request = wire.WorkerTrial(trial=trial, model_path=model_path, reference_path=reference_path)
        return wire.Measurement.FromString(self._exchange(request.SerializeToString(), trial.budget.trial_timeout_s))

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def stop(self) -> None:
        self.kill()
        self._process.wait()
        for descriptor in (self._down, self._up):
            os.close(descriptor)

    def _exchange(self, request: Optional[bytes], timeout_s: float) -> bytes:
        """Send a request, if any, and return the answer. Raises WorkerGone."""
        timeout_s = min(timeout_s, wire.MAX_TRIAL_S)
        deadline = time.monotonic() + timeout_s
        kills = memory.oom_kills()
        try:
            if request is not None:
                write_frame(self._down, request, deadline)
            return read_frame(self._up, deadline)
        except TimeoutError:
            raise WorkerGone("no answer within %g s" % timeout_s, status="timed-out") from None
        except (EOFError, OSError):
            how = self._how_it_ended()
            if self._process.returncode == -signal.SIGKILL and memory.oom_kills() > kills:
                text = "%s because memory ran out" % how
                raise WorkerGone(text, status="out-of-memory") from None
            raise WorkerGone(how) from None

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the worker process closed its pipe"
        if code < 0:
            return "the worker process was ended by %s" % _signal_name(-code)
        return "the worker process ended with exit code %d" % code


def main(arguments: List[str]) -> int:
    """Run the worker with the runtimes that are installed on this machine."""
    reference = Reference()

    def take(request: Any) -> Any:
        reference.load(request.trial.reference, request.reference_path)
        return take_trial(request.trial, request.model_path, reference)

    return answer(arguments, runtimes.probe, take)


def answer(arguments: List[str], probe: Callable[[], Any], take: Callable[[Any], Any]) -> int:
    """Report the runtimes, then run one WorkerTrial after the other until the agent closes the pipe."""
    down, up, agent = (int(argument) for argument in arguments)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # so that conditions and jobs are of the same GPU
    _end_with(agent)
    write_frame(up, probe().SerializeToString())
    while True:
        try:
            request = wire.WorkerTrial.FromString(read_frame(down))
        except EOFError:
            return 0
        write_frame(up, take(request).SerializeToString())


def take_trial(trial: Any, model_path: str, reference: Optional[Reference] = None) -> Any:
    """Load the job, time one burst, and return the Measurement; a failure is reported in its status."""
    measurement = wire.Measurement(trial_id=trial.trial_id, key=trial.job.key, status="ok", started_at=time.time())
    reference = reference or Reference()
    measurement.reference_error = reference.error
    reference.mean_ns()
    try:
        runtime = runtimes.find(trial.job.settings.runtime, trial.job.settings.command)
        if trial.job.HasField("file"):
            measure_file(trial, model_path, reference, measurement, runtime, LocalShell())
        else:
            reason = memory.refusal(wire.job_block(trial.job), trial.job.settings)
            if reason:
                raise runtimes.OutOfMemory(reason)
            measure(trial, model_path, reference, measurement, runtime, LocalShell())
    except InvalidBlock as error:
        measurement.status, measurement.error = "malformed", str(error)
    except runtimes.RuntimeFailure as error:
        measurement.status, measurement.error = error.status, str(error)
    except MemoryError as error:
        measurement.status, measurement.error = "out-of-memory", str(error) or "the device ran out of memory"
    except Exception as error:
        measurement.status, measurement.error = "crashed", "%s: %s" % (type(error).__name__, error)
    for field in ("error", "layers_error"):
        text = getattr(measurement, field)
        setattr(measurement, field, one_line(text.replace(model_path, "the model") if model_path else text))
    return measurement


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return "signal %d" % number


def _own_command() -> List[str]:
    """Return the command that starts this agent: from its zip file, or as a module."""
    archive = getattr(__loader__, "archive", None)  # type: ignore[name-defined]
    return [sys.executable, archive] if archive else [sys.executable, "-m", "ofa_agent"]


def _end_with(agent: int) -> None:
    """Ask the kernel to end this process when its agent ends, even during a burst (Linux)."""
    parent_died = 1  # PR_SET_PDEATHSIG
    try:
        ctypes.CDLL(None).prctl(parent_died, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != agent:
        os._exit(1)  # the agent ended before the call
