"""The worker process that runs the runtime, and the handle that the agent uses. A crash costs only one trial.

Messages use two separate pipes, because native libraries print to standard output. The worker is a new interpreter and
ends when its agent ends.
"""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import Any, Callable, List, Optional, Sequence, Tuple

from ofa_agent import conditions, runtimes
from ofa_agent.conditions.nvidia import POWER_OF
from ofa_agent.conditions.nvml import nvml
from ofa_agent.device import suitability
from ofa_agent.device.shell import LocalShell, Shell
from ofa_agent.measuring import memory, parts, timing
from ofa_agent.measuring.frames import read_frame, write_frame
from ofa_agent.measuring.power import PowerMeter, gpu_power_w
from ofa_agent.operators import Block, InvalidBlock
from ofa_agent.protocol import messages as wire
from ofa_agent.text import one_line

START_TIMEOUT_S = 120.0
MAX_OTHERS_BYTES = 256 << 20
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


class Reference:
    """The reference job, which stays loaded between trials and measures the device speed."""

    def __init__(self) -> None:
        self._job = b""
        self._loaded: Optional[runtimes.Loaded] = None
        self._spent_ns = 0
        self._samples_ns: List[int] = []
        self.error = ""

    def load(self, job: Any, model_path: str) -> None:
        """Load the reference job if it differs from the loaded one.

        A failure sets ``error``; the device speed is then unknown.
        """
        if job.SerializeToString() == self._job:
            return
        if self._loaded is not None:
            self._loaded.close()
        self._job, self._loaded, self.error = job.SerializeToString(), None, ""
        if not job.key:
            return
        try:
            self._loaded = runtimes.find(job.settings.runtime).load(wire.job_block(job), job, model_path)
            self._loaded.run()
        except Exception as error:
            self._loaded, self.error = None, one_line("%s: %s" % (type(error).__name__, error))

    def time_ns(self) -> int:
        """Return the median of a few runs in ns; 0 without a reference job."""
        if self._loaded is None:
            return 0
        start = timing.clock_ns()
        samples_ns = timing.time_reference(self._loaded.run, timing.clock_ns)
        self._spent_ns += timing.clock_ns() - start
        self._samples_ns += samples_ns
        return int(timing.median(samples_ns))

    def mean_ns(self) -> int:
        """Return the mean of the runs since the last call, in ns; 0 if there were none."""
        samples_ns, self._samples_ns = self._samples_ns, []
        return sum(samples_ns) // max(1, len(samples_ns))

    def spent_ns(self) -> int:
        """Return the time spent in the reference job since the last call, in ns."""
        spent_ns, self._spent_ns = self._spent_ns, 0
        return spent_ns


def take_trial(trial: Any, model_path: str, reference: Optional[Reference] = None) -> Any:
    """Load the job, time one burst, and return the Measurement; a failure is reported in its status."""
    measurement = wire.Measurement(trial_id=trial.trial_id, key=trial.job.key, status="ok", started_at=time.time())
    reference = reference or Reference()
    measurement.reference_error = reference.error
    reference.mean_ns()
    try:
        runtime = runtimes.find(trial.job.settings.runtime, trial.job.settings.command)
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
    measurement.error = one_line(measurement.error)
    return measurement


def measure(trial: Any, model_path: str, reference: Reference, measurement: Any, runtime: Any, shell: Shell) -> None:
    """Load the job and fill the Measurement; ``shell`` is that of the device. Raises InvalidBlock, RuntimeFailure."""
    block = wire.job_block(trial.job)
    reason = suitability.refusal(shell, trial.job.settings.threads)
    if reason:
        raise runtimes.Unsupported(reason)
    measurement.runtime_version = runtime.version()
    start = timing.clock_ns()
    loaded = _load(runtime, block, trial.job, model_path)
    measurement.load_ns = timing.clock_ns() - start
    budget = wire.budget_of(trial.budget)
    on_gpu = hasattr(loaded, "device_times")
    measurement.condition_before.CopyFrom(conditions.read(shell, of_all=False, of_gpu=on_gpu))
    gc.disable()
    try:
        reported = in_parts = None
        if trial.job.parts:
            measurement.reference_before_parts_ns = reference.time_ns()
            in_parts = _burst(loaded, budget)
            reported = loaded.operator_times()
        measurement.reference_before_ns = reference.time_ns()
        if in_parts is not None and getattr(loaded, "in_one_run", False):
            burst, measurement.reference_after_ns = in_parts, measurement.reference_before_parts_ns
        else:
            burst = _whole_burst(loaded, budget, trial.job.others_bytes, shell, measurement)
            measurement.reference_after_ns = reference.time_ns()
            measurement.timed_ns += in_parts.timed_ns if in_parts else 0
        measurement.reference_mean_ns = reference.mean_ns()
        if on_gpu:
            is_network = not trial.job.parts and not trial.job.others_bytes
            _measure_gpu(loaded, None if is_network else nvml(), measurement)
    finally:
        gc.enable()
        loaded.close()
    measurement.condition_after.CopyFrom(conditions.read(shell, of_all=False, of_gpu=on_gpu))
    measurement.samples_ns.extend(burst.samples_ns)
    if burst.statistics is not None:
        measurement.summary.CopyFrom(wire.Summary(**burst.statistics._asdict()))
    measurement.warmup_runs = burst.warmup_runs
    measurement.first_ns = burst.first_ns
    measurement.timed_ns += burst.timed_ns + reference.spent_ns()
    measurement.warm, measurement.narrow = burst.warm, burst.narrow
    if in_parts is not None and reported is not None:
        _divide(reported.after(in_parts.warmup_runs), burst.typical_ns, trial.job, measurement)


def _whole_burst(
    loaded: runtimes.Loaded, budget: timing.Budget, others_bytes: int, shell: Shell, measurement: Any
) -> timing.Burst:
    """Time a burst of the whole job, and the power meanwhile; of a tool, it would include the start of the tool."""
    if isinstance(loaded, runtimes.SelfTimed):
        return loaded.burst()
    with PowerMeter(shell) as meter:
        burst = _burst(loaded, budget, others_bytes)
    measurement.power_w, measurement.power_of = meter.mean_w, meter.of
    return burst


def _burst(loaded: runtimes.Loaded, budget: timing.Budget, others_bytes: int = 0) -> timing.Burst:
    """Time one burst. A tool that times itself has its own rule for the duration, and keeps the caches as they are."""
    if isinstance(loaded, runtimes.SelfTimed):
        return loaded.burst()
    others_bytes = min(others_bytes, MAX_OTHERS_BYTES)
    prepare = partial(loaded.chill, others_bytes) if others_bytes else None
    return timing.time_burst(loaded.run, budget, timing.clock_ns, prepare)


def _measure_gpu(loaded: Any, gpu: Any, measurement: Any) -> None:
    """Add the times on GPU and host, and the power of ``gpu`` unless it is None, all from separate runs."""
    of_device = loaded.device_times()
    measurement.device_ns, measurement.launch_ns = int(of_device.device_ns), int(of_device.launch_ns)
    power_w = gpu_power_w(loaded.run, gpu)
    if power_w:
        measurement.power_w, measurement.power_of = power_w, POWER_OF


def _load(runtime: Any, block: Block, job: Any, model_path: str) -> Any:
    """Load a job. If it has parts, the runtime profiles its runs until the operator times are read."""
    if not job.parts:
        return runtime.load(block, job, model_path)
    if not hasattr(runtime, "load_profiled"):
        raise runtimes.Unsupported("runtime %s does not report operator times" % job.settings.runtime)
    return runtime.load_profiled(block, job, model_path)


def _divide(reported: parts.Profiled, whole_ns: float, job: Any, measurement: Any) -> None:
    """Divide the latency of the network among its parts, corrected to the device speed of the profiled runs."""
    around_whole = measurement.reference_before_ns + measurement.reference_after_ns
    around_parts = measurement.reference_before_parts_ns + measurement.reference_before_ns
    speed = around_parts / around_whole if around_whole else 1.0
    sizes = [part.operators for part in job.parts]
    try:
        samples = parts.part_samples(reported, sizes, speed * whole_ns)
    except ValueError as error:
        raise runtimes.Unsupported("%s (%s)" % (error, job.key)) from None
    for part, of_part in zip(job.parts, samples):
        measurement.parts.add(key=part.key, samples_ns=of_part)
    if reported.launches is not None:
        _add_launches(reported.launches, sizes, measurement)


def _add_launches(launches: parts.Launches, sizes: List[int], measurement: Any) -> None:
    """Add the median times on host and GPU to each part."""
    for name, of_operators in launches._asdict().items():
        for part, of_runs in zip(measurement.parts, parts.part_sums(of_operators, sizes).T):
            setattr(part, name, int(timing.median(list(of_runs))))


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
