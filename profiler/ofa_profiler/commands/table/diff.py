"""``ofa-table diff``: compares two tables of one space."""

from dataclasses import asdict
from pathlib import Path

import click

from ofa_nas.cli import answer, example, json_option, print_json
from ofa_profiler.commands.display import TABLE, columns, print_wide
from ofa_tables.inspection.diff import Diff, diff_tables
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted

LISTED = 20


@click.command(short_help="Compare two tables of one space.", epilog=example("ofa-table diff monday.lut tuesday.lut"))
@click.argument("first_path", metavar="A", type=TABLE)
@click.argument("second_path", metavar="B", type=TABLE)
@click.option("--keys", is_flag=True, help="List every entry, not only those with the largest differences.")
@json_option
def diff(first_path: Path, second_path: Path, keys: bool, as_json: bool) -> None:
    """Compare the latencies of table B with those of table A, and list the significant differences.

    The tables can be of different devices, settings, or times.
    """
    with LatencyTable.read(first_path) as first, LatencyTable.read(second_path) as second:
        compared = diff_tables(first, second)
        differences = first.identity.differences(second.identity, "in A", "in B")
        simulated = [name for name, table in (("A", first), ("B", second)) if table.simulated]
    if as_json:
        print_json(
            {
                "first": str(first_path),
                "second": str(second_path),
                "differences": differences,
                "simulated": bool(simulated),
                "simulated_tables": simulated,
                "entries": len(compared.differences),
                "exceeding": sum(difference.exceeds for difference in compared.differences),
                "median_ratio": compared.median_ratio,
                "median_apart": compared.median_apart,
                "only_first": list(compared.only_first),
                "only_second": list(compared.only_second),
                "keys": [{**asdict(one), "exceeds": one.exceeds} for one in compared.differences],
            }
        )
        return
    print_diff(compared, differences, keys)
    for name in simulated:
        answer.print(f"{name} is simulated: its latencies are computed, not measured")


def print_diff(compared: Diff, differences: list[str], every: bool) -> None:
    ordered = sorted(compared.differences, key=lambda one: -abs(one.ratio - 1) / max(one.uncertainty, 1e-9))
    exceeding = [one for one in ordered if one.exceeds]
    listing = columns("key", "A ms", "B ms", "B / A", "±", "flags")
    for one in ordered if every else exceeding[:LISTED]:
        flag = "differs" if one.exceeds else ""
        listing.add_row(
            one.key,
            f"{one.first_ms:.4f}",
            f"{one.second_ms:.4f}",
            f"{one.ratio:.3f}",
            f"{1.96 * one.uncertainty:.1%}",
            flag,
        )
    if listing.row_count:
        print_wide(listing)
        answer.print()
    if len(exceeding) > LISTED and not every:
        answer.print(f"the {LISTED} largest of {len(exceeding)} differences; --keys lists every entry\n")
    for difference in differences:
        answer.print(f"different: {difference}", markup=False)
    answer.print(
        f"{counted(len(compared.differences), 'entry', 'entries')} in both; median ratio B / A "
        f"{compared.median_ratio:.3f}; half of the entries are within {compared.median_apart:.1%}"
    )
    answer.print(f"{len(exceeding)} differ by more than their measurement error")
    for name, only in (("A", compared.only_first), ("B", compared.only_second)):
        if only:
            answer.print(f"{counted(len(only), 'entry', 'entries')} only in {name}")
