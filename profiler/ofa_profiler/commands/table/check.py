"""``ofa-table check``: finds errors in a table."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from ofa_nas.cli import answer, console, example, json_option, print_json
from ofa_nas.spaces.recorded import find_space_of, spaces_of
from ofa_profiler.commands.display import TABLE
from ofa_tables.inspection.check import ERROR, Finding, Inspected
from ofa_tables.inspection.check import check as find
from ofa_tables.model.latency_model import fullest_space
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted

MOST_LISTED = 3  # of each kind


@click.command(
    short_help="Find errors in a table.",
    epilog=example("ofa-table check note10.lut", "ofa-table check mine.lut --against published.lut"),
)
@click.argument("path", metavar="T", type=TABLE)
@click.option(
    "--space",
    "space_name",
    metavar="NAME|FILE",
    help="Search space. [default: the largest complete space in the table]",
)
@click.option(
    "--against",
    "others",
    multiple=True,
    type=TABLE,
    metavar="T2",
    help="Table to compare with; copied rows are errors. Repeatable.",
)
@click.option(
    "--max-age",
    type=click.FloatRange(min=0),
    default=365.0,
    show_default=True,
    metavar="DAYS",
    help="Maximum age of an entry, in days.",
)
@click.option("--all", "list_all", is_flag=True, help="List every finding, not only the worst three of each kind.")
@json_option
def check(
    path: Path, space_name: str | None, others: tuple[Path, ...], max_age: float, list_all: bool, as_json: bool
) -> None:
    """Find latencies in table T that cannot be correct.

    Reports latencies that are negative, zero, duplicated, copied, not monotone in kernel size or expand ratio, unlike
    similar blocks, too noisy, too old, missing, or of unknown origin. Prints each kind once: the number of findings,
    advice, and the worst three. Exits with 1 if there are errors; warnings do not change the exit status.
    """
    opened = [LatencyTable.read(other) for other in others]
    try:
        with LatencyTable.read(path) as table:
            space = find_space_of(space_name, table) if space_name else fullest_space(table, spaces_of(table))
            findings = find(Inspected(table, space, opened, max_age))
            entries, simulated = len(table.entries), table.simulated
    finally:
        for other in opened:
            other.close()
    errors = sum(finding.severity == ERROR for finding in findings)
    if as_json:
        print_json(
            {
                "table": str(path),
                "entries": entries,
                "simulated": simulated,
                "errors": errors,
                "warnings": len(findings) - errors,
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        print_findings(path, entries, findings, len(findings) if list_all else MOST_LISTED)
    if errors:
        raise SystemExit(1)


def print_findings(path: Path, entries: int, findings: list[Finding], most: int) -> None:
    """Print each kind of finding with its count and advice, then its worst ``most``."""
    kinds: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.check, finding.advice), []).append(finding)
    for (severity, name, advice), found in kinds.items():
        if len(found) == 1:
            answer.print(f"{severity}: {name}: {_at(path, found[0])}; {advice}", markup=False, soft_wrap=True)
            continue
        answer.print(
            f"{severity}: {name}: {counted(len(found), 'entry', 'entries')}; {advice}", markup=False, soft_wrap=True
        )
        for finding in sorted(found, key=lambda finding: -finding.size)[:most]:
            answer.print(f"    {_at(path, finding)}", markup=False, soft_wrap=True)
        if len(found) > most:
            answer.print(f"    … and {len(found) - most:,} more; --all lists them", markup=False, soft_wrap=True)
    of_table = {finding.check for finding in findings if not finding.key}
    of_each = Counter(finding.check for finding in findings)
    what = ", ".join(name if name in of_table else f"{count:,} {name}" for name, count in of_each.most_common())
    console.print(f"{path}: {counted(entries, 'entry', 'entries')}; {what or 'no errors'}", markup=False)


def _at(path: Path, finding: Finding) -> str:
    at = f" at {finding.resolution_px} px" if finding.resolution_px and finding.check != "missing" else ""
    return f"{finding.key or path}{at}: {finding.text}"
