"""An agent on the host for a phone without Python: the same service, over the phone's Shell.

Its worker pushes a model, has TFLite's ``benchmark_model`` run it there, and reads its figures. Started by the
connection ``adb`` as a separate process: ``python -m ofa_profiler.connections.adb.host_agent serve | worker``.
"""

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_agent import conditions
from ofa_agent.device import suitability
from ofa_agent.device.cores import cpus
from ofa_agent.device.shell import Ran
from ofa_agent.measuring.timing import Budget
from ofa_agent.measuring.worker import answer
from ofa_agent.operators import InvalidBlock
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Malformed, RuntimeFailure, Unsupported, benchmark_model
from ofa_agent.runtimes.benchmark_files import PROFILE, footprint_bytes, input_flags
from ofa_agent.runtimes.benchmark_model import Options
from ofa_agent.service import server
from ofa_agent.service.lock import DeviceBusy
from ofa_profiler.connections.adb.commands import PhonePlace, measure_command
from ofa_profiler.connections.adb.reports import DELEGATES, fill, fill_layers, median_ns, report_of
from ofa_profiler.connections.adb.server import NO_ROOM, AdbServer, Phone
from ofa_profiler.connections.adb.shell import EVERY_CORE, FOLDER, AdbShell, Request, Snapshot
from ofa_tables.errors import DeviceError, OfaError, Unreachable

PRECISIONS = ("fp32", "fp16", "int8")
MODELS = f"{FOLDER}/models"
MOST_MODELS_BYTES = 512 << 20
# The tool has no rule for when a phone is warm: clocks take about this long to rise.
WARMUP_S = 0.1
BURST_S = 0.15  # short compared with the start of the tool
MOST_S = 2.0  # for the minimum number of runs of a slow network
SPARE_S = 5.0  # of a trial's timeout, to end what hangs
REFERENCE_AGE_S = 1.5  # the reference run after a trial counts for the next trial if that follows at once
NO_REFERENCE = ("", 0.0, 0, 0)  # model, when it ran, median and mean in ns
TOOK_TOO_LONG = 124  # as a Shell reports it
GONE_S = 20.0  # the agent ends when its phone is unplugged, and its worker with it


class TimedOut(RuntimeFailure):
    status = "timed-out"


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m ofa_profiler.connections.adb.host_agent", description=__doc__)
    parser.add_argument("command", choices=("serve", "worker"))
    for name in ("server", "serial", "name"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--binary", default="", help="benchmark_model; empty: only command templates run")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--token-stdin", action="store_true")
    parser.add_argument("--end-with-stdin", action="store_true")
    parser.add_argument("--lock-wait", type=float, default=0.0)
    options, pipes = parser.parse_known_args(arguments)
    try:
        return _worker(options, pipes) if options.command == "worker" else _serve(options)
    except (OfaError, DeviceBusy, server.ServeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _serve(options: Any) -> int:
    phone = _phone(options)
    token = sys.stdin.readline().strip()  # only the end follows
    threading.Thread(target=_end_with_phone, args=(phone,), daemon=True).start()
    given = [f"--{name}={getattr(options, name)}" for name in ("server", "serial", "name", "binary")]
    server.serve(
        server.ServeOptions(token=token, end_with_stdin=True, lock_wait_s=options.lock_wait, programs=None),
        lambda address: print(json.dumps({"address": address, "pid": os.getpid()}), flush=True),
        Snapshot(AdbShell(phone)),
        [sys.executable, "-m", "ofa_profiler.connections.adb.host_agent", *given],
    )
    return 0


def _end_with_phone(phone: Phone) -> None:
    """End this agent when its phone is gone: the cut stream shows the host that the trials are lost."""
    try:
        for states in phone.server.watch():
            if states.get(phone.serial) != "device":
                break
    except Unreachable:
        pass
    server.log("phone gone", serial=phone.serial)
    os._exit(1)


def _worker(options: Any, pipes: list[str]) -> int:
    executor = PhoneTrialExecutor(AdbShell(_phone(options)), Path(options.binary) if options.binary else None)
    return answer(pipes, executor.probe, executor.take)


def _phone(options: Any) -> Phone:
    return Phone(AdbServer(options.server), options.serial, options.name)


class PhoneTrialExecutor:
    """Run trials on a phone, one at a time."""

    def __init__(self, shell: AdbShell, binary: Path | None) -> None:
        self._shell = shell
        self._snapshot = Snapshot(shell)
        self._binary = binary
        self._run_by = self.version = ""
        self._models: dict[str, int] = {}
        self._reference = NO_REFERENCE

    def probe(self) -> Any:
        """The runtimes, as the first message of the worker. The binary is on the phone by then, if it fits."""
        ready = wire.WorkerReady()
        try:
            self._shell.end_running()  # left by an earlier agent: this one holds the phone now
            self._make_folder()
            if self._binary is None:
                raise DeviceError("no benchmark_model was named")
            self._push_binary(self._binary)
            ready.runtimes.update(dict.fromkeys(DELEGATES, self.version))
        except DeviceError as error:
            ready.missing_runtimes.update(dict.fromkeys(DELEGATES, str(error)))
        except Exception as error:
            ready.missing_runtimes.update(dict.fromkeys(DELEGATES, f"{type(error).__name__}: {error}"))
        return ready

    def take(self, request: Any) -> Any:
        """The Measurement of one WorkerTrial; a failure is a Measurement, too."""
        trial = request.trial
        measurement = wire.Measurement(trial_id=trial.trial_id, key=trial.job.key, status="ok", started_at=time.time())
        try:
            if trial.job.settings.command:
                self._measure_command(request, measurement)
            else:
                self._measure(request, measurement)
        except InvalidBlock as error:
            measurement.status, measurement.error = "malformed", str(error)
        except RuntimeFailure as error:
            measurement.status, measurement.error = error.status, str(error)
        except Unreachable as error:
            time.sleep(GONE_S)  # the agent ends this worker when its phone is gone
            measurement.status, measurement.error = "crashed", str(error)
        except DeviceError as error:  # no room for the model
            measurement.status, measurement.error = "out-of-memory", str(error)
        except Exception as error:
            measurement.status, measurement.error = "crashed", f"{type(error).__name__}: {error}"
        return measurement

    def _measure_command(self, request: Any, measurement: Any) -> None:
        model = self._there(request.model_path) if request.model_path else ""
        place = PhonePlace(self._shell, self._run_tool)
        measure_command(request.trial, model, measurement, place, self._snapshot)

    def _run_tool(self, arguments: Sequence[str], timeout_s: float) -> Ran:
        (ran,) = self._shell.ask([Request("hold", (*self._mask(), *arguments))], timeout_s)
        if ran.code == TOOK_TOO_LONG:
            self._shell.end_running()
        return ran

    def _measure(self, request: Any, measurement: Any) -> None:
        trial = request.trial
        job = trial.job
        is_file = job.HasField("file")
        flags = input_flags(wire.job_inputs(job)) if is_file else []
        if not is_file:
            wire.job_block(job)
        if job.settings.precision not in PRECISIONS or job.settings.runtime not in DELEGATES:
            raise Unsupported(f"runtime {job.settings.runtime} measures no {job.settings.precision}")
        reason = suitability.refusal(self._snapshot, job.settings.threads)
        if reason:
            raise Unsupported(reason)
        if not request.model_path:
            raise Malformed(f"runtime {job.settings.runtime} reads a model, and the Job names none")
        measurement.runtime_version = self.version
        model = self._there(request.model_path)
        reference = self._reference_there(request.reference_path, model, measurement)
        measurement.condition_before.CopyFrom(self._condition())
        budget = wire.budget_of(trial.budget)
        own = self._command(job, model, budget, *flags)
        of_reference = self._command(trial.reference, reference, budget) if reference else None
        known, at_s, _, _ = self._reference
        fresh = known == trial.reference.model_id and time.monotonic() - at_s < REFERENCE_AGE_S
        before = [of_reference] if of_reference and not fresh else []
        after = [of_reference] if of_reference else []
        profiled = [self._command(job, model, budget, *flags, PROFILE)] if is_file and job.file.layers else []
        answers = self._run([*before, own, *after, *profiled], trial.budget.trial_timeout_s - SPARE_S)
        answers, of_layers = (answers[:-1], answers[-1]) if profiled else (answers, None)
        report = report_of(answers[len(before)], job)
        measurement.condition_after.CopyFrom(self._condition())
        fill(measurement, report)
        if of_reference:
            self._report_reference(measurement, answers, bool(before), trial)
        if is_file:
            measurement.peak_bytes = footprint_bytes(answers[len(before)].output + answers[len(before)].error)
        if of_layers is not None:
            fill_layers(measurement, of_layers, job)

    def _reference_there(self, path: str, model: str, measurement: Any) -> str:
        """The path of the reference model on the phone; empty if there is none, or no room for it beside the other
        model.
        """
        try:
            return self._there(path, model) if path else ""
        except Unreachable:
            raise
        except DeviceError as error:
            measurement.reference_error = str(error)
            return ""

    def _report_reference(self, measurement: Any, answers: tuple[Ran, ...], ran_before: bool, trial: Any) -> None:
        """Report the reference latency before and after: a recent run after the last trial is also the one before this
        trial.
        """
        try:
            reports = [report_of(ran, trial.reference) for ran in (answers[:1] if ran_before else ()) + answers[-1:]]
        except RuntimeFailure as error:
            measurement.reference_error = str(error)
            self._reference = NO_REFERENCE
            return
        reported = [(median_ns(report) or report.mean_ns, report.mean_ns) for report in reports]
        (before_ns, before_mean_ns), (after_ns, after_mean_ns) = (
            reported[0] if ran_before else self._reference[2:],
            reported[-1],
        )
        self._reference = (trial.reference.model_id, time.monotonic(), after_ns, after_mean_ns)
        measurement.reference_before_ns, measurement.reference_after_ns = before_ns, after_ns
        measurement.reference_mean_ns = (before_mean_ns + after_mean_ns) // 2
        measurement.timed_ns += sum(report.count * report.mean_ns for report in reports)

    def _condition(self) -> Any:
        return conditions.read(self._snapshot, of_all=False)

    def _command(self, job: Any, model: str, budget: Budget, *others: str) -> Request:
        options = Options(
            graph=model,
            threads=job.settings.threads,
            delegate=DELEGATES[job.settings.runtime],
            fp16=job.settings.precision == "fp16",
            warmup_s=min(WARMUP_S, budget.warmup_s),
            min_s=max(BURST_S, budget.burst_min_s),
            max_s=max(MOST_S, budget.burst_max_s),
            min_runs=budget.min_runs,
            others=others,
        )
        return Request("hold", (*self._mask(), *benchmark_model.command(self._run_by, options)))

    def _mask(self) -> tuple[str, ...]:
        """The command prefix that sets the cores; Android's taskset takes a mask, not a list."""
        pinned = self._snapshot.pinned()
        if pinned == EVERY_CORE:
            return ()
        return ("taskset", f"{sum(1 << cpu for cpu in cpus(pinned)):x}")

    def _run(self, requests: list[Request], timeout_s: float) -> tuple[Ran, ...]:
        answers = self._shell.ask(requests, timeout_s)
        if any(ran.code == TOOK_TOO_LONG for ran in answers):
            self._shell.end_running()
            raise TimedOut(f"benchmark_model did not end within {timeout_s:g} s, and was ended")
        return answers

    def _push_binary(self, binary: Path) -> None:
        content = binary.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.version = f"sha256:{digest[:12]}"  # usually it names none
        self._run_by = f"{FOLDER}/benchmark_model-{digest[:12]}"
        if self._listed(self._run_by).get(self._run_by) != len(content):
            self._shell.phone.push(self._run_by, content, 0o755)

    def _make_folder(self) -> None:
        ran = self._shell.phone.run(f"mkdir -p {MODELS}")
        if not ran.ok:
            raise DeviceError(f"{self._shell.phone.name}: {MODELS} cannot be made: {ran.error or ran.output}")
        self._models = self._listed(f"{MODELS}/*.tflite")

    def _there(self, model_path: str, beside: str = "") -> str:
        """Push a model to the phone by content hash, unless it is there; ``beside`` is kept. Raises DeviceError."""
        path, size = f"{MODELS}/{os.path.basename(model_path)}.tflite", os.path.getsize(model_path)
        if self._models.pop(path, 0) != size:  # files appear complete, because they are renamed
            while sum(self._models.values()) + size > MOST_MODELS_BYTES and self._remove_oldest(beside):
                pass
            self._push(path, Path(model_path).read_bytes(), beside)
        self._models[path] = size  # the least recently used model is removed first
        return path

    def _push(self, path: str, content: bytes, beside: str) -> None:
        """Push a model; remove older models if space is lacking. Raises DeviceError if none is left to remove."""
        while True:
            try:
                return self._shell.phone.push(path, content)
            except Unreachable:
                raise
            except DeviceError as error:
                if not any(words in str(error) for words in NO_ROOM) or not self._remove_oldest(beside):
                    raise

    def _remove_oldest(self, beside: str) -> bool:
        """Remove the oldest model except this one; return False if no other exists."""
        oldest = next((path for path in self._models if path != beside), None)
        if oldest is None:
            return False
        self._shell.run("rm", "-f", oldest)
        del self._models[oldest]
        return True

    def _listed(self, pattern: str) -> dict[str, int]:
        """Sizes in bytes by path."""
        paths = self._shell.list(pattern)
        reported = self._shell.run("stat", "-c", "%s %n", *paths).output if paths else ""
        return {path: int(size) for size, path in (line.split(" ", 1) for line in reported.splitlines())}


if __name__ == "__main__":
    sys.exit(main())
