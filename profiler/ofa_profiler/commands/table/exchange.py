"""``ofa-table import`` and ``ofa-table export``: tables from published files, and to them."""

from pathlib import Path

import click

from ofa_nas.cli import answer, console, example, json_option, print_json
from ofa_nas.spaces import all_spaces, find_space
from ofa_profiler.commands.display import TABLE
from ofa_tables.formats import find_format
from ofa_tables.formats.exchange import export_table, import_files
from ofa_tables.inspection.summary import summarise
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted


@click.command(
    "import",
    short_help="Make a table of published files.",
    epilog=example(
        "ofa-table import *_lookup_table.yaml --format ofa-yaml",
        "    --space ofa-mbv3-w1.2 --target note10 --out note10.lut",
    ),
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
    answer.print(f"{out}: {counted(summary.entries, 'entry', 'entries')}, {space.name} at {places} px", markup=False)


@click.command(
    short_help="Write a table for others to read.",
    epilog=example("ofa-table export local.lut --format ofa-yaml --out tables/"),
)
@click.argument("path", metavar="T", type=TABLE)
@click.option("--format", "format_name", required=True, metavar="ofa-yaml|csv|parquet")
@click.option("--out", required=True, type=TABLE, help="A file; for ofa-yaml a folder, of one file a resolution.")
@click.option(
    "--space", "space_name", help="Whose entries. Default: ofa-yaml the fullest there is, others all entries."
)
@json_option
def export(path: Path, format_name: str, out: Path, space_name: str | None, as_json: bool) -> None:
    """Write the table T for others to read; nothing that exists is overwritten.

    In ofa-yaml, mean is the table's figure for the entry (the median of its trials' medians), so that sums of means are
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
