"""``ofa-table merge``: merges two tables into a new one."""

from pathlib import Path

import click

from ofa_nas.cli import answer, console, example, json_option, print_json
from ofa_nas.spaces import find_blocks
from ofa_nas.spaces.recorded import recorded
from ofa_profiler.commands.display import TABLE
from ofa_tables.inspection.summary import summarise
from ofa_tables.store.merge import merge_tables
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted


@click.command(short_help="Merge two tables.", epilog=example("ofa-table merge monday.lut tuesday.lut --out both.lut"))
@click.argument("one_path", metavar="A", type=TABLE)
@click.argument("two_path", metavar="B", type=TABLE)
@click.option("--out", required=True, type=TABLE, help="Table to create; must not exist.")
@json_option
def merge(one_path: Path, two_path: Path, out: Path, as_json: bool) -> None:
    """Merge tables A and B, measured on the same device with the same settings, into a new table.

    A trial that is in both tables counts once. A calibration is kept if the entries that it was fitted on are
    unchanged. Entries that were predicted in A or B are predicted again, from the trials of both.
    """
    with LatencyTable.read(one_path) as one, LatencyTable.read(two_path) as two:
        merged, asked = merge_tables(one, two, out), one.asked | two.asked
    with LatencyTable.open(out) as opened:
        if asked:
            opened.estimate(find_blocks(asked, recorded(opened)).values())
        summary, simulated = summarise(opened, []), opened.simulated
    for space in merged.dropped:
        console.print(
            f"the calibration for {space} is dropped because its entries changed; calibrate again with ofa-compare"
        )
    if as_json:
        print_json(
            {
                "table": str(out),
                "entries": summary.entries,
                "simulated": simulated,
                "trials": merged.trials,
                "repeats": merged.repeats,
                "networks": summary.networks,
                "calibrations": list(merged.calibrations),
                "calibrations_dropped": list(merged.dropped),
            }
        )
        return
    entries = f"{counted(summary.entries, 'entry', 'entries')}{' simulated' if simulated else ''}"
    repeats = f", {counted(merged.repeats, 'trial')} in both" if merged.repeats else ""
    answer.print(f"{out}: {entries} from {counted(merged.trials, 'trial')}{repeats}", markup=False)
