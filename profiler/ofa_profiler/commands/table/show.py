"""``ofa-table show``: prints the contents of a table."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from ofa_nas.cli import answer, example, json_option, print_json
from ofa_nas.spaces.recorded import spaces_of
from ofa_profiler.commands.display import TABLE, columns, engine_lines, print_wide
from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.estimates import PARTLY
from ofa_tables.identity import IMPORTED, IN_NETWORKS, LAYERS
from ofa_tables.inspection.summary import Reach, Summary, summarise
from ofa_tables.model.latency_model import LatencyModel, fullest_space
from ofa_tables.store.measurement import SIMULATED
from ofa_tables.store.merge import SPACES
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted


@click.command(short_help="Show the contents of a table.", epilog=example("ofa-table show note10.lut --keys"))
@click.argument("path", metavar="T", type=TABLE)
@click.option("--keys", is_flag=True, help="List every entry: latency, 95 % interval, spread, trials, flags.")
@json_option
def show(path: Path, keys: bool, as_json: bool) -> None:
    """Show the device, settings, and entries of table T, and the latency range of each space that it can predict."""
    with LatencyTable.read(path) as opened:
        summary = summarise(opened, spaces_of(opened))
        if as_json:
            listed = {"keys": [_entry_json(entry) for entry in _all_entries(opened)]} if keys else {}
            print_json({**_summary_json(opened, summary), **listed})
            return
        _print_summary(opened, summary)
        if keys:
            answer.print()
            _print_entries(_all_entries(opened))


def _all_entries(opened: LatencyTable) -> list[Entry]:
    """Return the measured entries, then the predicted ones."""
    return opened.entries + LatencyModel(opened, fullest_space(opened, spaces_of(opened))).predicted()


def _summary_json(opened: LatencyTable, summary: Summary) -> dict[str, Any]:
    identity = opened.identity
    return {
        "table": str(opened.path),
        "target": identity.target,
        "chip": opened.device.get("chip"),
        "fingerprint": identity.fingerprint,
        "runtime": identity.runtime,
        "runtime_version": identity.runtime_version,
        "simulated": opened.simulated,
        "engine": opened.device.get("engine"),
        "settings": asdict(identity.settings),
        "blocks": identity.blocks,
        "energy_of": sorted({entry.energy_of for entry in opened.entries if entry.energy_mj}),
        "created_at": opened.store.get("created_at"),
        "entries": summary.entries,
        "failed": summary.failed,
        "flagged": summary.flagged,
        "flags": dict(summary.flags),
        "trials": summary.trials,
        "networks": summary.networks,
        "calibrations": {
            space: {**asdict(calibration), "shifts": len(calibration.shifts)}
            for space, calibration in summary.calibrations.items()
        },
        "defined_spaces": [name.removeprefix(SPACES) for name in opened.store.names(SPACES)],
        "spaces": [_reach_json(reach) for reach in summary.reaches],
    }


def _reach_json(reach: Reach) -> dict[str, Any]:
    return {
        "space": reach.space,
        "resolution": reach.resolution_px,
        "entries": reach.entries,
        "predicted": reach.predicted,
        "smallest_ms": reach.smallest_ms,
        "largest_ms": reach.largest_ms,
        "calibrated": reach.calibrated,
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    latencies = {} if entry.failure else {name: getattr(entry, name) for name in ("latency_ms", "mean_ms", "std_ms")}
    return {
        "key": entry.key,
        "resolution": entry.resolution_px,
        **{"latency_ms": None, "mean_ms": None, "std_ms": None, **latencies},
        "measured_ms": entry.measured_ms,
        "half_width": entry.half_width,
        "energy_mj": entry.energy_mj,
        "energy_half_width": entry.energy_half_width,
        "energy_of": entry.energy_of,
        "spread": entry.spread,
        "trials": entry.trials,
        "samples": entry.samples,
        "flags": list(entry.flags),
        "failure": entry.failure,
    }


def _print_summary(opened: LatencyTable, summary: Summary) -> None:
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(opened, summary):
        facts.add_row(f"[dim]{name}[/]", escape(value))
    print_wide(facts)
    if opened.identity.blocks == LAYERS:
        return
    answer.print()
    if not summary.reaches:
        answer.print("no space is complete at any resolution", style="dim")
        return
    reaches = columns("space", "px", "entries", "smallest ms", "largest ms")
    last = None
    for reach in summary.reaches:
        name = escape(reach.space) + (" (calibrated)" if reach.calibrated else "")
        figures = (f"{reach.smallest_ms:.3f}", f"{reach.largest_ms:.3f}")
        entries = f"{reach.entries} ({reach.predicted} predicted)" if reach.predicted else str(reach.entries)
        reaches.add_row("" if name == last else name, str(reach.resolution_px), entries, *figures)
        last = name
    print_wide(reaches)


def _facts(opened: LatencyTable, summary: Summary) -> Iterator[tuple[str, str]]:
    identity, device = opened.identity, opened.device
    yield "table", str(opened.path)
    yield "target", identity.target + (f" ({device['chip']})" if device.get("chip") else "")
    yield "runtime", f"{identity.runtime}, {identity.runtime_version}"
    if opened.command:
        yield "command", " ".join(json.loads(opened.command)["run"])
    if identity.runtime == IMPORTED:
        yield "from", ", ".join(Path(file).name for file in opened.store.get("imported_from") or [])
    imported = identity.runtime == IMPORTED
    yield "settings", "unknown: published files do not contain them" if imported else str(identity.settings)
    if opened.simulated:
        partly = "" if identity.runtime == SIMULATED else ", at least in part"
        yield "simulated", f"computed, not measured on a device{partly}"
    for number, line in enumerate(engine_lines(opened.device.get("engine", {}))):
        yield "" if number else "engine", line
    if opened.device.get("fit"):
        fitted = opened.device["fit"]
        yield "fitted", f"to {counted(fitted['rows'], 'row')} of {fitted['file']}, mean error {fitted['error']:.1%}"
    if identity.runtime not in (IMPORTED, SIMULATED):
        timed = {IN_NETWORKS: "timed in networks", LAYERS: "none; entries are layers of model files"}
        yield "blocks", timed.get(identity.blocks, "timed alone")
    conditions = opened.conditions
    if conditions.get("set"):
        refused = conditions.get("not_set", {})
        yield (
            "set",
            ", ".join(
                f"{name}={value}" + (f" (not set: {refused[name]})" if name in refused else "")
                for name, value in conditions["set"].items()
            ),
        )
    for text in conditions.get("notes", ()):
        yield "note", text
    for text in conditions.get("warnings", ()):
        yield "warning", text
    if summary.lasted:
        came = {IMPORTED: "imported", SIMULATED: "computed"}.get(identity.runtime, "measured")
        yield came, _period(*summary.lasted)
    trials = "" if identity.runtime == SIMULATED else f", from {counted(summary.trials, 'trial')}"
    yield "entries", f"{summary.entries}{trials}"
    if summary.failed:
        yield "failed", str(summary.failed)
    rails = {entry.energy_of or "unknown rails" for entry in opened.entries if entry.energy_mj}
    if rails:
        yield "energy of", "; ".join(sorted(rails)) + ("; do not compare" if len(rails) > 1 else "")
    if summary.flagged:
        of_each = ", ".join(f"{count} {flag}" for flag, count in summary.flags.items() if flag != PARTLY)
        yield "flagged", f"{summary.flagged} ({of_each})"
    if PARTLY in summary.flags:
        yield PARTLY, f"{summary.flags[PARTLY]}; the cost model determines them more than their trials do"
    kept = [name.removeprefix(SPACES) for name in opened.store.names(SPACES)]
    if kept:
        yield "spaces", f"{', '.join(kept)}, defined in the table"
    yield "networks", f"{summary.networks} measured whole"
    for space, calibration in summary.calibrations.items():
        yield "calibration", f"{calibration} for {space}, fitted on {counted(calibration.networks, 'network')}"


def _period(first: float, last: float) -> str:
    begin, end = (time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) for moment in (first, last))
    return begin if begin == end else f"{begin} to {end if begin[:10] != end[:10] else end[11:]}"


def _energy(entry: Entry) -> str:
    if entry.energy_mj is None:
        return ""
    half_width = entry.energy_half_width
    return f"{entry.energy_mj:.3f}" + ("" if half_width is None else f" ± {half_width:.1%}")


def _print_entries(entries: Sequence[Entry]) -> None:
    with_energy = any(entry.energy_mj for entry in entries)
    listing = columns("key", "px", "ms", "±", *(["mJ"] if with_energy else []), "spread", "trials", "samples", "flags")
    for entry in entries:
        listing.add_row(
            escape(entry.key),
            str(entry.resolution_px or ""),
            "" if entry.failure else f"{entry.latency_ms:.4f}",
            "" if entry.half_width is None else f"{entry.half_width:.1%}",
            *([_energy(entry)] if with_energy else []),
            "" if entry.failure else f"{entry.spread:.1%}",
            str(entry.trials),
            str(entry.samples),
            escape(entry.failure or " ".join(entry.flags)),
        )
    print_wide(listing)
