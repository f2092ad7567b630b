"""What a Measurement keeps of the reports of ``benchmark_model``."""

from typing import Any

from ofa_agent.device.shell import Ran
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import RuntimeFailure, benchmark_files, benchmark_model
from ofa_agent.runtimes.benchmark_model import Report

# The flags with which each runtime runs a model.
DELEGATES = {
    "benchmark_model": "xnnpack",
    "benchmark_model-none": "none",
    "benchmark_model-gpu": "gpu",
    "benchmark_model-nnapi": "nnapi",
    "benchmark_model-hexagon": "hexagon",
}
FINE_NS = 50_000


def report_of(ran: Ran, job: Any) -> Report:
    return benchmark_model.parse(ran.output, ran.error, ran.code, DELEGATES[job.settings.runtime])


def median_ns(report: Report) -> int:
    """The median in ns; 0 if this version reports none, or only in whole µs, which are too coarse: the mean has six
    digits.
    """
    return report.median_ns if report.median_ns >= FINE_NS else 0


def fill(measurement: Any, report: Report) -> None:
    measurement.samples_ns.extend(report.samples_ns)
    measurement.summary.CopyFrom(
        wire.Summary(
            count=report.count,
            median_ns=median_ns(report),
            mean_ns=report.mean_ns,
            std_ns=report.std_ns,
            min_ns=report.min_ns,
            max_ns=report.max_ns,
        )
    )
    measurement.first_ns = report.first_ns
    measurement.load_ns = report.init_ns
    measurement.warmup_runs = report.warmup_count
    measurement.timed_ns = report.count * report.mean_ns + report.warmup_count * report.warmup_mean_ns
    measurement.warm = measurement.narrow = True  # by the rule of the tool, which has no other


def fill_layers(measurement: Any, ran: Ran, job: Any) -> None:
    """Add the layers of a run with the profile of operators; if it failed, say why there are none.

    Layers are means of that run; they are scaled so that they do not add up to more than the whole model.
    """
    try:
        profiled_ns = report_of(ran, job).mean_ns
        layers, took_ns = benchmark_files.read_layers(ran.output)
    except RuntimeFailure as error:
        measurement.layers_error = str(error)
        return
    whole_ns = measurement.summary.median_ns or measurement.summary.mean_ns
    scale = min(whole_ns / profiled_ns, whole_ns / max(1, sum(took_ns)))
    for layer, ns in zip(layers, took_ns, strict=True):
        measurement.layers.add(name=layer.name, operator=layer.operator, samples_ns=[max(1, int(scale * ns))])
    # At the speed that the device had for the whole model: the reference job does not run again beside this run.
    measurement.reference_before_parts_ns = measurement.reference_after_ns
