"""HTML page of model files: a timeline of the layers of each, in place; and the same layers as CSV."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import ofa_agent
from ofa_profiler.models.results import LayerProfile, ModelProfile
from ofa_profiler.report.format import SPACE, UNKNOWN, latency, millions, percent
from ofa_profiler.report.page import environment
from ofa_tables.errors import FileError
from ofa_tables.store.files import replacing
from ofa_tables.words import counted

PAGE, LAYERS = "profile.html", "layers.csv"
COLOURS = 7  # operators with their own colours; the others share one
BETWEEN = "between layers"
STRIP = 1000.0  # width of the timeline in its own units
NARROWEST = 0.25  # of a bar, so that it can be seen


@dataclass(frozen=True)
class Bar:
    """A bar of the timeline, in its own units."""

    x: float
    width: float
    colour: str
    title: str


def write_models(profiles: Sequence[ModelProfile], folder: Path) -> Path:
    """Write ``profile.html`` and ``layers.csv`` to ``folder``, and return the path of the page.

    The folder is created if needed. Each existing file is replaced atomically. Raises FileError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot write the report to {folder}: {error.strerror or error}; use --out to choose another folder"
        ) from None
    table = rows(profiles).to_csv(index=False, lineterminator="\n")
    for path, text in ((folder / LAYERS, table), (folder / PAGE, render(profiles))):
        with replacing(path) as file:
            file.write(text.encode("utf-8", "replace"))
    return folder / PAGE


def rows(profiles: Sequence[ModelProfile]) -> pd.DataFrame:
    """Return one row per layer, and one per whole model without a layer."""
    listed: list[dict[str, Any]] = []
    for profile in profiles:
        made = profile.identity
        where = {
            "model": profile.name,
            "target": made.target,
            "runtime": made.runtime,
            "precision": made.settings.precision,
            "threads": made.settings.threads,
        }
        whole = LayerProfile("", "", profile.latency_ms, profile.half_width, 1.0, profile.macs)
        for number, layer in enumerate((whole, *profile.layers)):
            part = {"part": "layer", "number": number} if number else {"part": "whole", "number": None}
            listed.append({**where, **part, **layer.to_json(), "failure": profile.failure})
    frame = pd.DataFrame(listed)
    return frame.astype(dict.fromkeys(("number", "macs", "bytes"), "Int64"))


def render(profiles: Sequence[ModelProfile]) -> str:
    """Render the page as HTML."""
    measured = [profile for profile in profiles if not profile.failure]
    targets = list(dict.fromkeys(profile.identity.target for profile in profiles))
    names = list(dict.fromkeys(profile.name for profile in profiles))
    return (
        environment()
        .get_template("models.html.j2")
        .render(
            version=ofa_agent.__version__,
            title=names[0] if len(names) == 1 else counted(len(names), "model"),
            about=", ".join(targets),
            headline=_headline(profiles, names, targets),
            targets=targets,
            matrix=_matrix(profiles, names, targets) if len(profiles) > 1 else [],
            models=[_described(profile) for profile in measured],
            failed=[
                (profile.name, profile.identity.target, profile.failure) for profile in profiles if profile.failure
            ],
        )
    )


def _headline(profiles: Sequence[ModelProfile], names: Sequence[str], targets: Sequence[str]) -> str:
    if len(profiles) == 1 and not profiles[0].failure:
        of = f" (±{percent(profiles[0].half_width)})" if profiles[0].half_width is not None else ""
        return f"{names[0]} takes {latency(profiles[0].latency_ms)}{of} on {targets[0]}"
    return f"{counted(len(names), 'model')} on {counted(len(targets), 'target')}"


def _matrix(profiles: Sequence[ModelProfile], names: Sequence[str], targets: Sequence[str]) -> list[Any]:
    found = {(profile.name, profile.identity.target): profile for profile in profiles}
    longest = max((profile.latency_ms for profile in profiles if not profile.failure), default=0.0)
    listed = []
    for name in names:
        cells = []
        for target in targets:
            profile = found.get((name, target))
            known = profile is not None and not profile.failure
            value = profile.latency_ms if profile is not None and known else None
            cells.append((latency(value) if known else UNKNOWN, 100 * (value or 0.0) / longest if longest else 0.0))
        listed.append((name, cells))
    return listed


def _described(profile: ModelProfile) -> dict[str, Any]:
    colours = _colours(profile.layers)
    return {
        "name": profile.name,
        "where": _where(profile),
        "figures": _figures(profile),
        "inputs": ", ".join(profile.inputs),
        "flags": profile.flags,
        "advice": profile.advice,
        "slowest": [(layer.name, layer.operator, percent(layer.share)) for layer in profile.slowest],
        "layers_error": profile.layers_error,
        "strip": _strip(profile, colours),
        "ticks": _ticks(profile.latency_ms),
        "legend": _legend(profile, colours),
        "layers": list(_listed(profile, colours)),
        "between": (latency(profile.between_ms), percent(profile.between_ms / profile.latency_ms)),
        "whole": latency(profile.latency_ms),
    }


def _where(profile: ModelProfile) -> str:
    made = profile.identity
    chip = f" ({profile.chip})" if profile.chip else ""
    return f"{made.target}{chip} · {made.runtime} {made.runtime_version} · {made.settings}"


def _figures(profile: ModelProfile) -> list[tuple[str, str, str]]:
    interval = "" if profile.half_width is None else f"±{percent(profile.half_width)}, 95{SPACE}% interval"
    peak = UNKNOWN if profile.peak_mb is None else f"{profile.peak_mb:,.1f}{SPACE}MB"
    speed = "" if profile.gflops is None else f"{profile.gflops:,.1f}{SPACE}GFLOP/s"
    size = f"file of {profile.file_bytes / 1e6:,.1f}{SPACE}MB"
    return [
        ("Latency", latency(profile.latency_ms), interval),
        ("First run", latency(profile.first_ms), f"loads in {latency(profile.load_ms)}"),
        ("Peak memory", peak, size),
        ("MACs", UNKNOWN if profile.macs is None else millions(profile.macs), speed),
    ]


def _colours(layers: Sequence[LayerProfile]) -> dict[str, str]:
    """Return a colour for each operator, in the order of their total times."""
    totals: dict[str, float] = defaultdict(float)
    for layer in layers:
        totals[layer.operator] += layer.latency_ms
    ranked = sorted(totals, key=lambda operator: -totals[operator])
    return {operator: f"var(--op{min(rank, COLOURS)})" for rank, operator in enumerate(ranked)}


def _strip(profile: ModelProfile, colours: Mapping[str, str]) -> list[Bar]:
    """Return the layers one after the other, as long as they take."""
    end_ms = max(profile.layers_ms, profile.latency_ms)
    bars, start = [], 0.0
    for layer in profile.layers:
        width = STRIP * layer.latency_ms / end_ms
        bars.append(Bar(start, max(width, NARROWEST), colours[layer.operator], _title(layer)))
        start += width
    return bars


def _title(layer: LayerProfile) -> str:
    return f"{layer.name} · {layer.operator} · {latency(layer.latency_ms)} · {percent(layer.share)}"


def _ticks(latency_ms: float) -> list[tuple[float, str]]:
    return [(100 * part / 4, latency(latency_ms * part / 4, 3)) for part in range(5)]


def _legend(profile: ModelProfile, colours: Mapping[str, str]) -> list[tuple[str, str, str, str, int]]:
    """Return (colour, operator, time, share, layers) of each operator, the slowest first."""
    listed = []
    for operator, colour in colours.items():
        of_operator = [layer for layer in profile.layers if layer.operator == operator]
        total = sum(layer.latency_ms for layer in of_operator)
        share = percent(total / profile.latency_ms)
        listed.append((colour, operator or "other", latency(total, 3), share, len(of_operator)))
    return listed


def _listed(profile: ModelProfile, colours: Mapping[str, str]) -> Any:
    """Yield the cells of each layer, and its bar: start and width in percent."""
    end_ms, start = max(profile.layers_ms, profile.latency_ms), 0.0
    for number, layer in enumerate(profile.layers, 1):
        width = 100 * layer.latency_ms / end_ms
        yield {
            "number": number,
            "name": layer.name,
            "operator": layer.operator,
            "start": f"{start:.3f}",
            "width": f"{max(width, 0.15):.3f}",
            "colour": colours[layer.operator],
            "latency": latency(layer.latency_ms, 3),
            "half_width": UNKNOWN if layer.half_width is None else f"±{percent(layer.half_width)}",
            "share": percent(layer.share),
            "macs": UNKNOWN if layer.macs is None else millions(layer.macs),
            "gflops": UNKNOWN if layer.gflops is None else f"{layer.gflops:,.1f}",
            "kilobytes": UNKNOWN if layer.moved_bytes is None else f"{layer.moved_bytes / 1e3:,.0f}",
        }
        start += width
