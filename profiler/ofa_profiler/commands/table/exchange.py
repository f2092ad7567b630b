"""``ofa-table import`` and ``ofa-table export``: convert tables from and to other formats."""

from pathlib import Path

import click

from ofa_nas.cli import answer, console, example, json_option, print_json
from ofa_nas.spaces import find_space
from ofa_nas.spaces.recorded import find_space_of, record, spaces_of
from ofa_profiler.commands.display import TABLE
from ofa_tables.formats import find_format, format_names
from ofa_tables.formats.exchange import export_table, import_files
from ofa_tables.inspection.summary import summarise
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted


@click.command(
    "import",
    short_help="Create a table from published files.",
    epilog=example(
        "ofa-table import *_lookup_table.yaml --format ofa-yaml",
        "    --space ofa-mbv3-w1.2 --target note10 --out note10.lut",
    ),
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "format_name", required=True, metavar="|".join(format_names("read")), help="Format of the files."
)
@click.option("--space", "space_name", metavar="NAME|FILE", required=True, help="Search space of the files.")
@click.option("--target", required=True, help="Device on which the files were measured.")
@click.option("--out", required=True, type=TABLE, help="Table to create; must not exist.")
@json_option
def import_(files: tuple[Path, ...], format_name: str, space_name: str, target: str, out: Path, as_json: bool) -> None:
    """Create a table from published FILES. If one file is invalid, nothing is imported.

    ofa-yaml: one file per resolution, such as 160_lookup_table.yaml. csv: the columns key and latency_ms (or mean_ms),
    and optionally resolution, std_ms, and samples.
    """
    space = find_space(space_name)
    import_files(files, find_format(format_name), space, target, out)
    with LatencyTable.open(out) as opened:
        record(opened, space)
        summary = summarise(opened, [space])
        without = sum(measurement.ok and measurement.std_ms is None for measurement in opened.measurements)
        simulated = ", simulated" if opened.simulated else ""
    resolutions = [reach.resolution_px for reach in summary.reaches]
    if as_json:
        print_json(
            {
                "table": str(out),
                "target": target,
                "space": space.name,
                "resolutions": resolutions,
                "entries": summary.entries,
                "simulated": bool(simulated),
                "files": len(files),
            }
        )
        return
    places = ", ".join(map(str, resolutions))
    entries = f"{counted(summary.entries, 'entry', 'entries')}{simulated}"
    answer.print(f"{out}: {entries}, {space.name} at {places} px", markup=False)
    if without:
        lacking = counted(without, "entry", "entries")
        console.print(f"{lacking} without a standard deviation (std, std_ms or var); noise is unknown", markup=False)


@click.command(
    short_help="Write a table in another format.",
    epilog=example("ofa-table export local.lut --format ofa-yaml --out tables/"),
)
@click.argument("path", metavar="T", type=TABLE)
@click.option("--format", "format_name", required=True, metavar="|".join(format_names("write")), help="File format.")
@click.option("--out", required=True, type=TABLE, help="Output file; for ofa-yaml, a directory.")
@click.option(
    "--space",
    "space_name",
    metavar="NAME|FILE",
    help="Search space to export. [default: the most complete for ofa-yaml, else all entries]",
)
@json_option
def export(path: Path, format_name: str, out: Path, space_name: str | None, as_json: bool) -> None:
    """Write table T in another format. Existing files are not overwritten.

    In ofa-yaml, "mean" is the latency of the entry (the median of the trial medians), so that the sum of the means is
    the table's prediction. "std" and "count" are of the samples.
    """
    format = find_format(format_name)
    with LatencyTable.read(path) as opened:
        space = find_space_of(space_name, opened) if space_name else None
        exported = export_table(opened, format, out, spaces_of(opened), space)
        simulated = opened.simulated
    name = exported.space.name if exported.space else None
    if as_json:
        files = [str(file) for file in exported.files]
        facts = {"table": str(path), "format": format.name, "space": name, "simulated": simulated}
        print_json({**facts, "files": files})
        return
    if space is None and name:
        console.print(f"exported the entries of {name}; use --space to choose another space", markup=False)
    for file in exported.files:
        answer.print(f"{file}{' (simulated)' if simulated else ''}", markup=False)
