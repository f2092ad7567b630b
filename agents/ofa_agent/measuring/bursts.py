"""One burst of a loaded job, and what a Measurement keeps of it."""

from functools import partial
from typing import Any

from ofa_agent.device.shell import Shell
from ofa_agent.measuring import timing
from ofa_agent.measuring.power import PowerMeter
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import Loaded, SelfTimed

MAX_OTHERS_BYTES = 256 << 20


def whole_burst(
    loaded: Loaded, budget: timing.Budget, others_bytes: int, shell: Shell, measurement: Any
) -> timing.Burst:
    """Time a burst of the whole job, and the power meanwhile; of a tool, it would include the start of the tool."""
    if isinstance(loaded, SelfTimed):
        return loaded.burst()
    with PowerMeter(shell) as meter:
        timed = burst(loaded, budget, others_bytes)
    measurement.power_w, measurement.power_of = meter.mean_w, meter.of
    return timed


def burst(loaded: Loaded, budget: timing.Budget, others_bytes: int = 0) -> timing.Burst:
    """Time one burst. A tool that times itself has its own rule for the duration, and keeps the caches as they are."""
    if isinstance(loaded, SelfTimed):
        return loaded.burst()
    others_bytes = min(others_bytes, MAX_OTHERS_BYTES)
    prepare = partial(loaded.chill, others_bytes) if others_bytes else None
    return timing.time_burst(loaded.run, budget, timing.clock_ns, prepare)


def profiled_speed(measurement: Any) -> float:
    """Return the device speed of the profiled burst relative to that of the whole job; 1 without a reference job."""
    around_whole = measurement.reference_before_ns + measurement.reference_after_ns
    around_parts = measurement.reference_before_parts_ns + measurement.reference_before_ns
    return float(around_parts / around_whole) if around_whole else 1.0


def keep(burst: timing.Burst, measurement: Any) -> None:
    """Add a burst of the whole job to the Measurement."""
    measurement.samples_ns.extend(burst.samples_ns)
    if burst.statistics is not None:
        measurement.summary.CopyFrom(wire.Summary(**burst.statistics._asdict()))
    measurement.warmup_runs = burst.warmup_runs
    measurement.first_ns = burst.first_ns
    measurement.timed_ns += burst.timed_ns
    measurement.warm, measurement.narrow = burst.warm, burst.narrow
