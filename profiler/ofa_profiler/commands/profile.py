"""``ofa-profile``: builds, or goes on with, a latency table."""

import contextlib
import time
from pathlib import Path
from typing import Any

import click

from ofa_nas.spaces import Space, find_space
from ofa_profiler.campaign import OTHERS_BYTES, Campaign, Outcome, lower_tasks
from ofa_profiler.commands.cli import Resolutions, answer, console, json_option, print_json, run
from ofa_profiler.commands.display import example
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.connections import connect
from ofa_profiler.efforts import EFFORTS
from ofa_profiler.targets import choose_runtime, find_target, parse_settings
from ofa_tables.errors import TableUnreadable
from ofa_tables.table import Identity, LatencyTable, Settings

PUBLISHED_RESOLUTIONS_PX = "160,176,192,208,224"


@click.command(name="ofa-profile", epilog=example("ofa-profile --target local --resolutions 160"))
@click.option("--target", required=True, help="The device: local, or tcp:HOST:PORT of an ofa-agent that serves there.")
@click.option("--space", "space_name", default="ofa-mbv3-w1.0", show_default=True, help="Whose blocks to measure.")
@click.option("--resolutions", type=Resolutions(), default=PUBLISHED_RESOLUTIONS_PX, show_default=True)
@click.option("--runtime", "wanted_runtime", help="Default: the target's first preferred one that is there.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True)
@click.option("--effort", type=click.Choice(list(EFFORTS)), default="standard", show_default=True)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of the target's connection.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: <target>-<runtime>-<precision>-t<threads>-b<batch>.lut"
)
@click.option("--fresh", is_flag=True, help="Begin anew; an existing table is kept beside, as FILE.old.")
@json_option
def profile(
    target: str,
    space_name: str,
    resolutions: tuple[int, ...],
    wanted_runtime: str | None,
    threads: int,
    batch: int,
    precision: str,
    effort: str,
    pairs: tuple[str, ...],
    out: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Measure how long each block of SPACE takes on TARGET, and keep it in a latency table.

    Interrupted in any way, the same command goes on where it stopped.
    """
    started = time.perf_counter()
    device = find_target(target, parse_settings(pairs))
    space = find_space(space_name)
    resolutions = resolutions or space.resolutions_px
    space.require_resolutions(resolutions)
    settings = Settings(precision, threads, batch)
    with connect(device) as connection:
        description = connection.agent.describe()
        runtime = choose_runtime(device, wanted_runtime, description)
        if wanted_runtime is None:
            version = description["runtimes"][runtime]
            console.print(f"runtime: {runtime} {version}, {device.name}'s first preferred one that is there")
        identity = Identity(
            device.name, description["fingerprint"], runtime, description["runtimes"][runtime], settings
        )
        path = out or Path(f"{device.file_stem}-{runtime}-{precision}-t{threads}-b{batch}.lut")
        with open_table(path, identity, description, fresh) as table:
            console.print(
                f"{path}: {identity.target} ({description['chip']}), {runtime} {identity.runtime_version}, {settings}"
            )
            blocks = [block for px in resolutions for block in space.blocks(px)]
            tasks = lower_tasks(blocks, runtime, batch, OTHERS_BYTES)
            with CampaignProgress(console, "measuring blocks") as progress:
                chosen = EFFORTS[effort]
                campaign = Campaign(table, tasks, chosen.rounds, chosen.budget, progress, f"ofa-profile {space.name}")
                outcome = campaign.run(connection)
            summary = summarise(table, space, resolutions, outcome, time.perf_counter() - started)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, outcome)
    if outcome.failures:
        raise SystemExit(1)


def open_table(path: Path, identity: Identity, description: dict[str, Any], fresh: bool) -> LatencyTable:
    """The table to go on with, or a new one. Raises TableMismatch where the existing one is of something else."""
    if fresh and path.exists():
        with contextlib.suppress(TableUnreadable):
            LatencyTable.open(path).close()  # folds in what a killed writer left beside it
        old = path.with_name(path.name + ".old")
        path.replace(old)
        console.print(f"the table that was there is kept as {old}")
    if not path.exists():
        return LatencyTable.create(path, identity, description)
    table = LatencyTable.open(path)
    try:
        table.require_identity(identity)
    except BaseException:
        table.close()
        raise
    return table


def summarise(
    table: LatencyTable, space: Space, resolutions: tuple[int, ...], outcome: Outcome, seconds: float
) -> dict[str, Any]:
    keys = {key for px in resolutions for key in space.keys(px)}
    entries = [entry for key in keys if (entry := table.entry(key)) is not None]
    return {
        "table": str(table.path),
        "target": table.identity.target,
        "space": space.name,
        "entries": len(keys),
        "measured": outcome.measured,
        "reused": outcome.reused,
        "failed": len(outcome.failures),
        "interpolated": 0,
        "flagged": sum(bool(entry.flags) and not entry.failure for entry in entries),
        "visits": outcome.visits,
        "seconds": round(seconds, 3),
        "timed_seconds": round(outcome.timed_seconds, 3),
    }


def print_summary(summary: dict[str, Any], outcome: Outcome) -> None:
    parts = [f"{summary['measured']} measured"]
    parts += [f"{summary[name]} {name}" for name in ("reused", "failed", "flagged") if summary[name]]
    answer.print(
        f"[bold]{summary['entries']} entries[/]: {', '.join(parts)}; "
        f"{summary['visits']} visits in {summary['seconds']:.1f} s ({summary['timed_seconds']:.1f} s of them timed)"
    )
    if summary["flagged"]:
        answer.print(
            "[yellow]flagged[/]: their visits spread by more than 10 %, for the device changed its pace meanwhile; "
            "the same command with --effort thorough visits every block 21 times"
        )
    for key, reason in outcome.failures.items():
        answer.print(f"  failed: {key}: {reason}", markup=False)
    answer.print(f"table: {summary['table']}", markup=False)


main = run(profile)
