"""One trial of a model file of the user: its layers, then the whole model."""

import gc
from typing import Any, List, NamedTuple, Optional

from ofa_agent import conditions
from ofa_agent.device import suitability
from ofa_agent.device.shell import Shell
from ofa_agent.measuring import bursts, memory, parts, timing
from ofa_agent.measuring.reference import Reference
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Layer, OutOfMemory, RuntimeFailure, SelfTimed, Unsupported


class _InLayers(NamedTuple):
    layers: List[Layer]
    times: parts.Profiled
    timed_ns: int


def measure_file(
    trial: Any, model_path: str, reference: Reference, measurement: Any, runtime: Any, shell: Shell
) -> None:
    """Load the file and fill the Measurement; ``shell`` is that of the device. Raises InvalidBlock, RuntimeFailure."""
    job = trial.job
    inputs = wire.job_inputs(job)
    reason = memory.refusal_of_file(job.key, model_path, inputs, job.settings)
    if reason:
        raise OutOfMemory(reason)
    reason = suitability.refusal(shell, job.settings.threads)
    if reason:
        raise Unsupported(reason)
    if not hasattr(runtime, "load_file"):
        raise Unsupported("runtime %s does not read model files" % job.settings.runtime)
    measurement.runtime_version = runtime.version()
    measurement.condition_before.CopyFrom(conditions.read(shell, of_all=False))
    in_layers = None
    gc.disable()
    try:
        if job.file.layers:
            measurement.reference_before_parts_ns = reference.time_ns()
            in_layers = _time_layers(runtime, trial, model_path, measurement)
        peak = memory.Peak()
        start = timing.clock_ns()
        loaded = runtime.load_file(job, model_path)
        measurement.load_ns = timing.clock_ns() - start
        try:
            measurement.reference_before_ns = reference.time_ns()
            whole = bursts.whole_burst(loaded, wire.budget_of(trial.budget), 0, shell, measurement)
            measurement.peak_bytes = 0 if isinstance(loaded, SelfTimed) else peak.bytes()  # a tool is another process
            measurement.reference_after_ns = reference.time_ns()
            measurement.reference_mean_ns = reference.mean_ns()
        finally:
            loaded.close()
    finally:
        gc.enable()
    measurement.condition_after.CopyFrom(conditions.read(shell, of_all=False))
    bursts.keep(whole, measurement)
    measurement.timed_ns += reference.spent_ns() + (in_layers.timed_ns if in_layers else 0)
    if in_layers is not None:
        _divide(in_layers, whole.typical_ns, measurement)


def _time_layers(runtime: Any, trial: Any, model_path: str, measurement: Any) -> Optional[_InLayers]:
    """Time one burst layer by layer. If that fails, the Measurement says why, and only the whole model is timed."""
    job = trial.job
    try:
        if not hasattr(runtime, "load_file_layers"):
            raise Unsupported("runtime %s does not report the times of layers" % job.settings.runtime)
        loaded = runtime.load_file_layers(job, model_path)
        try:
            burst = bursts.burst(loaded, wire.budget_of(trial.budget))
            layers, times = loaded.layer_times()
        finally:
            loaded.close()
    except RuntimeFailure as error:
        measurement.layers_error = str(error)
        return None
    return _InLayers(layers, times.after(burst.warmup_runs), burst.timed_ns)


def _divide(in_layers: _InLayers, whole_ns: float, measurement: Any) -> None:
    """Add the samples of each layer, which belong to the device speed of the profiled runs."""
    samples = parts.layer_samples(in_layers.times, bursts.profiled_speed(measurement) * whole_ns)
    for layer, of_layer in zip(in_layers.layers, samples):
        measurement.layers.add(name=layer.name, operator=layer.operator, bytes=layer.moved_bytes, samples_ns=of_layer)
