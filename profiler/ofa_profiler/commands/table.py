"""``ofa-table``: what a table holds, tables from and to published files, and what a table says of a network."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from ofa_nas.spaces import Architecture, Space, all_spaces, find_space, read_architectures
from ofa_profiler.commands.cli import answer, console, json_option, print_json, run
from ofa_tables.exchange import IMPORTED, export_table, import_files
from ofa_tables.formats import find_format
from ofa_tables.merge import merge_tables
from ofa_tables.model import LatencyModel
from ofa_tables.summary import Reach, Summary, summarise
from ofa_tables.table import Entry, LatencyTable

TABLE = click.Path(path_type=Path)


@click.group(epilog="Example: ofa-table show local-onnxruntime-fp32-t1-b1.lut")
def table() -> None:
    """Show, import, export, merge latency tables, and predict networks with them.

    Latencies are milliseconds for one inference of the whole batch.
    """


# Showing.


@table.command(epilog="Example: ofa-table show note10.lut --keys")
@click.argument("path", metavar="T", type=TABLE)
@click.option("--keys", is_flag=True, help="List every entry: figure, spread between visits, visits, samples, flags.")
@json_option
def show(path: Path, keys: bool, as_json: bool) -> None:
    """What the table T is of, what it holds, and the smallest and largest network of each space that it can predict."""
    with LatencyTable.read(path) as opened:
        summary = summarise(opened, all_spaces())
        if as_json:
            listed = {"keys": [_entry_json(entry) for entry in opened.entries]} if keys else {}
            print_json({**_summary_json(opened, summary), **listed})
            return
        _print_summary(opened, summary)
        if keys:
            _print_entries(opened.entries)


def _summary_json(opened: LatencyTable, summary: Summary) -> dict[str, Any]:
    identity = opened.identity
    return {
        "table": str(opened.path),
        "target": identity.target,
        "chip": opened.device.get("chip"),
        "fingerprint": identity.fingerprint,
        "runtime": identity.runtime,
        "runtime_version": identity.runtime_version,
        "settings": asdict(identity.settings),
        "created_at": opened.store.get("created_at"),
        "entries": summary.entries,
        "failed": summary.failed,
        "flagged": summary.flagged,
        "flags": dict(summary.flags),
        "visits": summary.visits,
        "networks": summary.networks,
        "calibrations": {
            space: {"scale": calibration.scale, "networks": calibration.networks}
            for space, calibration in summary.calibrations.items()
        },
        "spaces": [_reach_json(reach) for reach in summary.reaches],
    }


def _reach_json(reach: Reach) -> dict[str, Any]:
    return {
        "space": reach.space,
        "resolution": reach.resolution_px,
        "entries": reach.entries,
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
        "spread": entry.spread,
        "visits": entry.visits,
        "samples": entry.samples,
        "flags": list(entry.flags),
        "failure": entry.failure,
    }


def _print_summary(opened: LatencyTable, summary: Summary) -> None:
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(opened, summary):
        facts.add_row(f"[dim]{name}[/]", escape(value))
    _print_wide(facts)
    if not summary.reaches:
        answer.print("no space is complete at any resolution", style="dim")
        return
    reaches = _columns("space", "px", "entries", "smallest ms", "largest ms")
    last = None
    for reach in summary.reaches:
        name = escape(reach.space) + (" (calibrated)" if reach.calibrated else "")
        figures = (f"{reach.smallest_ms:.3f}", f"{reach.largest_ms:.3f}")
        reaches.add_row("" if name == last else name, str(reach.resolution_px), str(reach.entries), *figures)
        last = name
    _print_wide(reaches)


def _facts(opened: LatencyTable, summary: Summary) -> Iterator[tuple[str, str]]:
    identity, device = opened.identity, opened.device
    yield "table", str(opened.path)
    yield "target", identity.target + (f" ({device['chip']})" if device.get("chip") else "")
    yield "runtime", f"{identity.runtime}, {identity.runtime_version}"
    if identity.runtime == IMPORTED:
        yield "from", ", ".join(Path(file).name for file in opened.store.get("imported_from") or [])
    yield "settings", str(identity.settings)
    if summary.lasted:
        yield "when", _period(*summary.lasted)
    yield "entries", f"{summary.entries}, from {summary.visits} visits"
    if summary.failed:
        yield "failed", str(summary.failed)
    if summary.flagged:
        of_each = ", ".join(f"{count} {flag}" for flag, count in summary.flags.items())
        yield "flagged", f"{summary.flagged} ({of_each})"
    yield "networks", f"{summary.networks} measured as a whole"
    for space, calibration in summary.calibrations.items():
        yield "calibration", f"× {calibration.scale:.4f} for {space}, taught by {calibration.networks} networks"


def _period(first: float, last: float) -> str:
    begin, end = (time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) for moment in (first, last))
    return begin if begin == end else f"{begin} to {end if begin[:10] != end[:10] else end[11:]}"


def _print_entries(entries: Sequence[Entry]) -> None:
    listing = _columns("key", "px", "ms", "spread", "visits", "samples", "flags")
    for entry in entries:
        listing.add_row(
            escape(entry.key),
            str(entry.resolution_px or ""),
            "" if entry.failure else f"{entry.latency_ms:.4f}",
            "" if entry.failure else f"{entry.spread:.1%}",
            str(entry.visits),
            str(entry.samples),
            escape(entry.failure or " ".join(entry.flags)),
        )
    _print_wide(listing)


# From and to other files.


@table.command(
    "import", epilog="Example: ofa-table import *.yaml --space ofa-mbv3-w1.2 --target note10 --out note10.lut"
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, metavar="ofa-yaml|csv")
@click.option("--space", "space_name", required=True, help="Whose entries the files hold.")
@click.option("--target", required=True, help="The device that they were measured on.")
@click.option("--out", required=True, type=TABLE, help="The table to make; it must not exist yet.")
@json_option
def import_(files: tuple[Path, ...], format_name: str, space_name: str, target: str, out: Path, as_json: bool) -> None:
    """Make a table of published FILES: everything in them, or nothing where one of them is bad.

    ofa-yaml: one file a resolution, such as 160_lookup_table.yaml. csv: columns key and latency_ms (or mean_ms), and
    where there are resolution, std_ms, samples.
    """
    space = find_space(space_name)
    import_files(files, find_format(format_name), space, target, out)
    with LatencyTable.read(out) as opened:
        summary = summarise(opened, [space])
    resolutions = [reach.resolution_px for reach in summary.reaches]
    if as_json:
        print_json(
            {
                "table": str(out),
                "target": target,
                "space": space.name,
                "resolutions": resolutions,
                "entries": summary.entries,
                "files": len(files),
            }
        )
        return
    places = ", ".join(map(str, resolutions))
    answer.print(f"{out}: {summary.entries} entries, {space.name} at {places} px", markup=False)


@table.command(epilog="Example: ofa-table export local.lut --format ofa-yaml --out tables/")
@click.argument("path", metavar="T", type=TABLE)
@click.option("--format", "format_name", required=True, metavar="ofa-yaml|csv|parquet")
@click.option("--out", required=True, type=TABLE, help="A file; for ofa-yaml a folder, of one file a resolution.")
@click.option(
    "--space", "space_name", help="Whose entries. Default: ofa-yaml the fullest there is, others all entries."
)
@json_option
def export(path: Path, format_name: str, out: Path, space_name: str | None, as_json: bool) -> None:
    """Write the table T for others to read; nothing that exists is overwritten.

    In ofa-yaml, mean is the table's figure for the entry (the median of its visits' medians), so that sums of means are
    what the table predicts; std and count are those of the samples.
    """
    format = find_format(format_name)
    space = find_space(space_name) if space_name else None
    with LatencyTable.read(path) as opened:
        exported = export_table(opened, format, out, all_spaces(), space)
    name = exported.space.name if exported.space else None
    if as_json:
        files = [str(file) for file in exported.files]
        print_json({"table": str(path), "format": format.name, "space": name, "files": files})
        return
    if space is None and name:
        console.print(f"these are the entries of {name}; --space chooses another", markup=False)
    for file in exported.files:
        answer.print(str(file), markup=False)


@table.command(epilog="Example: ofa-table merge monday.lut tuesday.lut --out both.lut")
@click.argument("one_path", metavar="A", type=TABLE)
@click.argument("two_path", metavar="B", type=TABLE)
@click.option("--out", required=True, type=TABLE, help="The table to make; it must not exist yet.")
@json_option
def merge(one_path: Path, two_path: Path, out: Path, as_json: bool) -> None:
    """Make one table of A and B, which were measured on the same device under the same settings and stay as they are.

    A visit that both have counts once. A calibration is kept where nothing that it was fitted on has changed.
    """
    with LatencyTable.read(one_path) as one, LatencyTable.read(two_path) as two:
        merged = merge_tables(one, two, out)
    with LatencyTable.read(out) as opened:
        summary = summarise(opened, [])
    for space in merged.dropped:
        console.print(f"the calibration for {space} is dropped, for its figures changed; teach it anew: ofa-compare")
    if as_json:
        print_json(
            {
                "table": str(out),
                "entries": summary.entries,
                "visits": merged.visits,
                "repeats": merged.repeats,
                "networks": summary.networks,
                "calibrations": list(merged.calibrations),
                "calibrations_dropped": list(merged.dropped),
            }
        )
        return
    repeats = f", {merged.repeats} visits were in both" if merged.repeats else ""
    answer.print(f"{out}: {summary.entries} entries from {merged.visits} visits{repeats}", markup=False)


# Predicting.


@table.command(epilog="Example: ofa-table predict note10.lut --space ofa-mbv3-w1.2 --architecture net.json")
@click.argument("path", metavar="T", type=TABLE)
@click.option("--space", "space_name", required=True)
@click.option("--architecture", required=True, metavar="FILE|JSON", help="One architecture, or a list of them.")
@click.option("--raw", is_flag=True, help="Without the table's calibration.")
@json_option
def predict(path: Path, space_name: str, architecture: str, raw: bool, as_json: bool) -> None:
    """What the table T predicts for a network, and for each of its blocks.

    The blocks' latencies are the table's figures; their sum is the raw prediction.
    """
    space = find_space(space_name)
    architectures, many = read_architectures(architecture)
    with LatencyTable.read(path) as opened:
        model = LatencyModel(opened, space) if raw else LatencyModel.calibrated(opened, space)
        predictions = _predictions(model, space, architectures)
    if as_json:
        print_json({"predictions": predictions} if many else predictions[0])
    elif many:
        _print_predictions(architectures, predictions)
    else:
        _print_prediction(predictions[0])


def _predictions(model: LatencyModel, space: Space, architectures: Sequence[Architecture]) -> list[dict[str, Any]]:
    """One for each, as JSON has it. Raises EntriesMissing."""
    population = space.encode(architectures)
    resolutions = sorted({architecture.resolution_px for architecture in architectures})
    model.require(resolutions)
    figures = {
        px: dict(zip(space.keys(px), model.table.figures_ms(space.keys(px), px), strict=True)) for px in resolutions
    }
    return [
        {
            "latency_ms": float(latency_ms),
            "low_ms": None,
            "high_ms": None,
            "calibrated": model.calibration is not None,
            "blocks": [
                {"key": block.key, "latency_ms": float(figures[architecture.resolution_px][block.key])}
                for block in space.network_blocks(architecture)
            ],
        }
        for architecture, latency_ms in zip(architectures, model.predict(population), strict=True)
    ]


def _print_prediction(prediction: dict[str, Any]) -> None:
    listing = _columns("block", "ms", "share")
    total = sum(block["latency_ms"] for block in prediction["blocks"])
    for block in prediction["blocks"]:
        listing.add_row(escape(block["key"]), f"{block['latency_ms']:.4f}", f"{block['latency_ms'] / total:.1%}")
    listing.add_section()
    if prediction["calibrated"]:
        listing.add_row("sum of the blocks", f"{total:.4f}", "")
        listing.add_row("[bold]calibrated[/]", f"[bold]{prediction['latency_ms']:.4f}[/]", "")
    else:
        listing.add_row("[bold]sum[/]", f"[bold]{prediction['latency_ms']:.4f}[/]", "")
    _print_wide(listing)


def _print_predictions(architectures: Sequence[Architecture], predictions: Sequence[dict[str, Any]]) -> None:
    listing = _columns("network", "px", "blocks", "calibrated ms" if predictions[0]["calibrated"] else "ms")
    for number, (architecture, prediction) in enumerate(zip(architectures, predictions, strict=True), start=1):
        blocks = str(len(prediction["blocks"]))
        listing.add_row(str(number), str(architecture.resolution_px), blocks, f"{prediction['latency_ms']:.4f}")
    _print_wide(listing)


def _columns(first: str, *others: str) -> Table:
    """The first column to the left, figures to the right, nothing cut: keys are there to be copied."""
    columns = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    columns.add_column(first, no_wrap=True)
    for name in others:
        columns.add_column(name, justify="left" if name == "flags" else "right", no_wrap=True)
    return columns


def _print_wide(listing: Table) -> None:
    """As wide as it needs, also where the terminal is narrower, or there is none."""
    unbounded = answer.options.update(max_width=10_000)
    width = max(1, answer.measure(listing, options=unbounded).maximum)
    answer.print(listing, width=width, crop=False)


main = run(table)
