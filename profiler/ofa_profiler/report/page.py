"""Text and numbers of the report page; the template contains the layout."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

import ofa_agent
from ofa_profiler.comparison.statistics import (
    FEWEST_FOR_INTERVAL,
    ComparedNetwork,
    Comparison,
    Errors,
    Noise,
    excess_interval,
    relative_errors,
)
from ofa_profiler.report import format as as_text
from ofa_profiler.report import plots
from ofa_tables.model.calibration import SUM

WORST = 8


@dataclass(frozen=True)
class Figure:
    """One of the key numbers at the top of the page."""

    kind: str
    label: str
    value: str
    note: str


def environment() -> Environment:
    """Return the template environment of the pages."""
    return Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(comparison: Comparison) -> str:
    """Render the page as HTML."""
    template = environment().get_template("comparison.html.j2")
    drawn = _drawable(comparison)
    return template.render(
        version=ofa_agent.__version__,
        target=comparison.identity.target,
        about=_about(comparison),
        headline=headline(comparison),
        lead=list(lead(comparison)),
        figures=[] if comparison.is_of_references else top_figures(comparison),
        calibrated=comparison.calibration is not None,
        baseline=comparison.macs_line is not None,
        flagged=any(network.flags for network in drawn.networks),
        plots=_plots(drawn),
        left_out=len(comparison.networks) - len(drawn.networks),
        stages=list(zip(comparison.stages, plots.stage_colours(len(comparison.stages)), strict=True)),
        worst=_worst(drawn),
        tested=len(comparison.networks),
        references=_references(comparison),
        columns=_columns(comparison),
        table=[] if comparison.is_of_references else _table(comparison),
        device=as_text.device_facts(comparison.device),
        condition=_condition(comparison),
        method=_method(comparison),
    )


def _printable(value: Any) -> Any:
    return as_text.printable(value) if type(value) is str else value  # Markup is trusted


def headline(comparison: Comparison) -> str:
    """Return the main result in one sentence."""
    if comparison.is_of_references:
        return f"Latencies of {_tested(comparison)} on this device."
    judged = comparison.calibrated or comparison.raw
    subject = "The calibrated prediction" if comparison.calibrated else "The raw sum"
    if judged.excess_rms is None:
        return f"{subject} could not be evaluated: {_obstacle(comparison)}."
    if judged.excess_rms == 0:
        return f"{subject} has no measurable excess error: its error is within the measurement noise."
    return f"{subject} has an excess error of {as_text.percent(judged.excess_rms)} beyond the measurement noise."


def lead(comparison: Comparison) -> Iterator[str]:
    """Yield the sentences that qualify the headline."""
    judged = comparison.calibrated or comparison.raw
    interval = _interval(comparison)
    if judged.excess_rms == 0 and interval and interval[1] > 0:
        tested = as_text.counted(len(comparison.networks), "network")
        yield f"With {tested}, an excess error of up to {as_text.percent(interval[1])} cannot be ruled out."
    apart = comparison.noise.mape
    if apart is not None:
        yield f"Two measurements of the same network differ by {as_text.percent(apart)} on this device."
    baseline = comparison.macs_baseline
    if baseline and baseline.excess_rms is not None and judged.excess_rms is not None:
        off = as_text.percent(baseline.excess_rms)
        if baseline.excess_rms > judged.excess_rms:
            yield f"A line fitted to MACs, without a table, has an excess error of {off}."
        else:
            yield f"A line fitted to MACs, without a table, does at least as well: its excess error is {off}."
    if not comparison.calibrated and judged.bias is not None:
        more = "more" if judged.bias > 0 else "less"
        yield (
            f"The raw sum is {as_text.percent(abs(judged.bias))} {more} than the measured latency; "
            "--calibrate K corrects this with K additional networks."
        )
    if 0 < len(comparison.networks) < FEWEST_FOR_INTERVAL:
        yield f"With only {as_text.counted(len(comparison.networks), 'network')}, these results are not conclusive."


def top_figures(comparison: Comparison) -> list[Figure]:
    judged = comparison.calibrated or comparison.raw
    interval = _interval(comparison)
    between = "–".join(as_text.number(100 * end, 1) for end in interval) if interval else ""
    name = "calibrated" if comparison.calibrated else "raw sum"
    tested = as_text.counted(len(comparison.networks), "network")
    baseline = comparison.macs_baseline
    return [
        Figure(
            "calibrated" if comparison.calibrated else "raw",
            f"Excess error, {name}",
            as_text.percent(judged.excess_rms),
            f"95 % interval {between}{as_text.SPACE}%" if between else f"from {tested}",
        ),
        Figure("noise", "Noise floor", as_text.percent(comparison.noise.mape), "mean difference between two passes"),
        Figure(
            "baseline",
            "Excess error, MACs line",
            as_text.percent(baseline.excess_rms if baseline else None),
            "fitted to MACs, without a table" if baseline else "needs two calibration networks",
        ),
        Figure("plain", f"Within ±10{as_text.SPACE}%", as_text.share(judged.within_10), f"{name}, {tested}"),
    ]


def _interval(comparison: Comparison) -> tuple[float, float] | None:
    return excess_interval(relative_errors(comparison.predicted_ms, comparison.passes_ms))


def _obstacle(comparison: Comparison) -> str:
    return "a latency is missing or zero" if comparison.networks else "no network was tested"


def _about(comparison: Comparison) -> str:
    identity = comparison.identity
    runtime = f"{identity.runtime} {identity.runtime_version}".strip()
    return " · ".join(part for part in (_tested(comparison), comparison.space, runtime, str(identity.settings)) if part)


def _tested(comparison: Comparison) -> str:
    if comparison.is_of_references:
        return as_text.counted(len(comparison.references), "reference network")
    return as_text.counted(len(comparison.networks), "network")


def _drawable(comparison: Comparison) -> Comparison:
    """Leave out the networks that have no finite positive latency and cannot be plotted."""
    return replace(
        comparison,
        networks=tuple(network for network in comparison.networks if _has_place(network)),
        calibration_networks=tuple(network for network in comparison.calibration_networks if _has_place(network)),
    )


def _has_place(network: ComparedNetwork) -> bool:
    latencies = (*network.passes_ms, network.raw_ms)
    return all(np.isfinite(value) and value > 0 for value in latencies) and bool(
        np.isfinite([network.macs, *network.stage_ms]).all()
    )


def _plots(comparison: Comparison) -> dict[str, Any] | None:
    if not comparison.networks:
        return None
    picked = _picked(comparison)
    return {
        "scatter": plots.predicted_measured(comparison),
        "errors": plots.error_histogram(comparison),
        "residuals": plots.error_by_latency(comparison),
        "macs": plots.latency_by_macs(comparison),
        "stage_ms": plots.stages_ms(comparison, picked),
        "stage_share": plots.stages_share(comparison, picked),
    }


def _picked(comparison: Comparison) -> list[tuple[str, ComparedNetwork]]:
    """Pick the smallest, the median, and the largest network by measured latency; fewer if there are fewer."""
    ordered = sorted(comparison.networks, key=lambda network: network.measured_ms)
    last = len(ordered) - 1
    places = {0: "smallest", last // 2: "median", last: "largest"} if last > 1 else {0: "smallest", last: "largest"}
    if last == 0:
        places = {0: ""}
    return [(_label(place, ordered[at]), ordered[at]) for at, place in places.items()]


def _label(place: str, network: ComparedNetwork) -> str:
    name = as_text.printable(network.name)
    name = name if len(name) <= 20 else name[:19] + "…"
    return " · ".join(part for part in (place, name, f"{network.resolution_px} px") if part)


def _worst(comparison: Comparison) -> list[dict[str, Any]]:
    relative = relative_errors(comparison.predicted_ms, comparison.passes_ms).mean(axis=0)
    order = np.argsort(-np.abs(relative), kind="stable")[:WORST]
    return [
        {
            "name": comparison.networks[at].name,
            "resolution": f"{comparison.networks[at].resolution_px}{as_text.SPACE}px",
            "stages": as_text.architecture_by_stage(comparison.networks[at].architecture),
            "predicted": as_text.latency(comparison.predicted_ms[at]),
            "passes": [as_text.latency(taken) for taken in comparison.networks[at].passes_ms],
            "error": as_text.percent(relative[at], signed=True),
            "flags": comparison.networks[at].flags,
        }
        for at in order
    ]


def _millions(count: float | None) -> str:
    return as_text.UNKNOWN if count is None else as_text.millions(count)


def _references(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "name": reference.name,
            "passes": [as_text.latency(taken) for taken in reference.passes_ms],
            "top1": as_text.percent(reference.top1),
            "macs": _millions(reference.macs),
            "parameters": _millions(reference.parameters),
            "resolution": f"{reference.resolution_px}{as_text.SPACE}px" if reference.resolution_px else "",
            "source": reference.source,
        }
        for reference in comparison.references
    ]


def _columns(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (kind, name) of each column in the table of all results."""
    present = [("raw", "Raw sum"), ("calibrated", "Calibrated"), ("baseline", "MACs line")]
    judged = (comparison.raw, comparison.calibrated, comparison.macs_baseline)
    return [column for column, found in zip(present, judged, strict=True) if found] + [("noise", "Passes")]


def _table(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return (name, one cell per column). The last column compares the passes; it has no bias and no excess error."""
    judged = [each for each in (comparison.raw, comparison.calibrated, comparison.macs_baseline) if each]
    with_floor: list[Errors | Noise] = [*judged, comparison.noise]
    return [
        ("Excess error", [*(as_text.percent(each.excess_rms) for each in judged), ""]),
        ("MAPE", [as_text.percent(each.mape) for each in with_floor]),
        ("Bias", [*(as_text.percent(each.bias, signed=True) for each in judged), ""]),
        ("RMSPE", [*(as_text.percent(each.rmspe) for each in judged), ""]),
        ("RMSE", [*(as_text.latency(each.rmse_ms, digits=3) for each in judged), ""]),
        (f"Within ±5{as_text.SPACE}%", [as_text.percent(each.within_5) for each in with_floor]),
        (f"Within ±10{as_text.SPACE}%", [as_text.percent(each.within_10) for each in with_floor]),
        ("Kendall’s τ", [as_text.number(each.kendall_tau, 3) for each in with_floor]),
    ]


def _condition(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return (name, value before, value after)."""
    before = as_text.condition_facts(comparison.device.get("condition"))
    after = as_text.condition_facts(comparison.condition_after)
    return [
        (what, before.get(what, as_text.UNKNOWN), after.get(what, as_text.UNKNOWN)) for what in dict(before) | after
    ]


def _method(comparison: Comparison) -> list[tuple[str, str]]:
    identity, line = comparison.identity, comparison.macs_line
    calibration_count = as_text.counted(len(comparison.calibration_networks), "network")
    tested = _tested(comparison)
    rows = [
        ("Table", comparison.table),
        ("Space", comparison.space),
        ("Runtime", f"{identity.runtime} {identity.runtime_version}".strip()),
        ("Settings", str(identity.settings)),
        ("Device fingerprint", identity.fingerprint),
        ("Tested", f"{tested}, each in two independent passes"),
        ("Calibration networks", f"{calibration_count}, not tested" if comparison.calibration_networks else "none"),
        ("Calibration", _calibration(comparison)),
        (
            "MACs line",
            f"{as_text.number(line.base_ms, 3)}{as_text.SPACE}ms {'−' if line.ms_per_mac < 0 else '+'} "
            f"{abs(line.ms_per_mac) * 1e8:.3g}{as_text.SPACE}ms per 100{as_text.SPACE}M MACs"
            if line
            else "none; needs two calibration networks",
        ),
        ("Measured", f"{as_text.moment(comparison.measured_at)}, in {as_text.duration(comparison.seconds)}"),
    ]
    return [(what, value) for what, value in rows if value]


def _calibration(comparison: Comparison) -> str:
    calibration = comparison.calibration
    if calibration is None:
        return "none"
    calibration_count = as_text.counted(calibration.networks, "network")
    model = "raw sum" if calibration.kind == SUM else "queue of launches"
    return f"{model} {calibration}, fitted on {calibration_count}"
