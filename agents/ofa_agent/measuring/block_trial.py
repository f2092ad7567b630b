"""One trial of a block, or of a network of blocks."""

import gc
from typing import Any, List

from ofa_agent import conditions, runtimes
from ofa_agent.conditions.nvidia import POWER_OF
from ofa_agent.conditions.nvml import nvml
from ofa_agent.device import suitability
from ofa_agent.device.shell import Shell
from ofa_agent.measuring import bursts, parts, timing
from ofa_agent.measuring.power import gpu_power_w
from ofa_agent.measuring.reference import Reference
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire


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
            in_parts = bursts.burst(loaded, budget)
            reported = loaded.operator_times()
        measurement.reference_before_ns = reference.time_ns()
        if in_parts is not None and getattr(loaded, "in_one_run", False):
            burst, measurement.reference_after_ns = in_parts, measurement.reference_before_parts_ns
        else:
            burst = bursts.whole_burst(loaded, budget, trial.job.others_bytes, shell, measurement)
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
    bursts.keep(burst, measurement)
    measurement.timed_ns += reference.spent_ns()
    if in_parts is not None and reported is not None:
        _divide(reported.after(in_parts.warmup_runs), burst.typical_ns, trial.job, measurement)


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
    sizes = [part.operators for part in job.parts]
    try:
        samples = parts.part_samples(reported, sizes, bursts.profiled_speed(measurement) * whole_ns)
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
