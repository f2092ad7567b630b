"""``ofa-profile``: builds, or goes on with, a latency table."""

import contextlib
import time
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ofa_nas.cli import Resolutions, answer, console, example, json_option, print_json, run, say
from ofa_nas.spaces import Space, find_space
from ofa_profiler.campaign.campaign import Outcome
from ofa_profiler.campaign.effort import EFFORTS
from ofa_profiler.campaign.profile import Profiler
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.comparison.compare import Comparer
from ofa_profiler.connections import connect
from ofa_profiler.targets.target import choose_runtime, find_target, parse_settings
from ofa_tables.errors import TableUnreadable
from ofa_tables.estimates.interpolation import INTERPOLATED
from ofa_tables.model.latency_model import calibrations
from ofa_tables.table import ALONE, IN_NETWORKS, Identity, LatencyTable, Settings
from ofa_tables.words import counted

PUBLISHED_RESOLUTIONS_PX = (160, 176, 192, 208, 224)
MOST_MEASURED = 5


@click.command(name="ofa-profile", epilog=example("ofa-profile --target local --resolutions 160"))
@click.option(
    "--target",
    required=True,
    help="The device: a name that ofa-targets lists, user@host, adb:SERIAL, or tcp:HOST:PORT.",
)
@click.option("--space", "space_name", default="ofa-mbv3-w1.0", show_default=True, help="Whose blocks to measure.")
@click.option(
    "--resolutions",
    type=Resolutions(),
    help="Default: 160,176,192,208,224, of a space that has none of these all.",
)
@click.option("--runtime", "wanted_runtime", help="Default: the target's first preferred one that is there.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Default: the target's, mostly fp32.")
@click.option("--effort", type=click.Choice(list(EFFORTS)), default="standard", show_default=True)
@click.option(
    "--blocks",
    "wanted_blocks",
    type=click.Choice([IN_NETWORKS, ALONE]),
    help="How to time them. Default: in networks, where the runtime can tell how long each block took there.",
)
@click.option(
    "--interpolate/--measure-all",
    default=None,
    help=f"Measure some of the resolutions and interpolate the others, or measure all. Default: all up to "
    f"{MOST_MEASURED}, some of more.",
)
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A condition of the device, put back afterwards (governor=performance, affinity=big, power-mode=0, …), "
    "or a setting of the target's connection.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: <target>-<runtime>-<precision>-t<threads>-b<batch>.lut"
)
@click.option("--fresh", is_flag=True, help="Begin anew; an existing table is kept beside, as FILE.old.")
@json_option
def profile(
    target: str,
    space_name: str,
    resolutions: tuple[int, ...] | None,
    wanted_runtime: str | None,
    threads: int,
    batch: int,
    precision: str | None,
    effort: str,
    wanted_blocks: str | None,
    interpolate: bool | None,
    pairs: tuple[str, ...],
    out: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Measure how long each block of SPACE takes on TARGET, and keep it in a latency table.

    Interrupted in any way, the same command goes on where it stopped.
    """
    started = time.perf_counter()
    device = find_target(target, parse_settings(pairs), wanted_runtime)
    space = find_space(space_name)
    resolutions = default_resolutions(space) if resolutions is None else resolutions or space.resolutions_px
    space.require_resolutions(resolutions)
    precision = precision or device.precision
    settings = Settings(precision, threads, batch)
    with connect(device) as connection:
        connection.say = say
        description = connection.agent.describe()
        runtime = choose_runtime(device, wanted_runtime, description)
        if wanted_runtime is None:
            version = description["runtimes"][runtime]
            console.print(f"runtime: {runtime} {version}, {device.name}'s first preferred one that is there")
        can_report = runtime in description["profiling_runtimes"]
        identity = Identity(
            device.name,
            description["fingerprint"],
            runtime,
            description["runtimes"][runtime],
            settings,
            wanted_blocks or (IN_NETWORKS if can_report else ALONE),
        )
        path = out or Path(f"{device.file_stem}-{runtime}-{precision}-t{threads}-b{batch}.lut")
        with open_table(path, identity, description, fresh) as table:
            console.print(
                f"{path}: {identity.target} ({description['chip']}), {runtime} {identity.runtime_version}, {settings}"
            )
            finished = timed_in_all(table, EFFORTS[effort].rounds)
            if interpolate is None:
                interpolate = table.interpolates or len(resolutions) > MOST_MEASURED
            noun = "measuring blocks inside networks" if identity.blocks == IN_NETWORKS else "measuring blocks"
            with CampaignProgress(console, noun) as progress:
                profiler = Profiler(table, space, EFFORTS[effort], connection, progress)
                outcome = profiler.measure_some(resolutions) if interpolate else profiler.measure(resolutions)
            for name in calibrations(table):
                Comparer(table, find_space(name)).calibrate()  # what it was taught over has changed
            made_with = {"set": dict(device.conditions), "connection": dict(device.settings)}
            table.store.put("conditions", {**made_with, "not_set": outcome.not_set})
            if outcome.factors or outcome.set_aside:
                table.store.put("devices", list_devices(outcome))
            summary = summarise(table, space, resolutions, outcome, finished, time.perf_counter() - started)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, outcome)
    if outcome.failures:
        raise SystemExit(1)


def default_resolutions(space: Space) -> tuple[int, ...]:
    """The published tables' ones that the Space has, else all of its own."""
    return tuple(px for px in PUBLISHED_RESOLUTIONS_PX if px in space.resolutions_px) or space.resolutions_px


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


def timed_in_all(table: LatencyTable, rounds: int) -> set[str]:
    """The keys that nothing is left to be measured of."""
    return {key for key, numbers in table.rounds_of().items() if numbers.issuperset(range(rounds))}


def summarise(
    table: LatencyTable,
    space: Space,
    resolutions: tuple[int, ...],
    outcome: Outcome,
    finished: set[str],
    seconds: float,
) -> dict[str, Any]:
    keys = {key for px in resolutions for key in space.keys(px)}
    entries = [entry for key in keys if (entry := table.entry(key)) is not None and not entry.failure]
    reused = sum(entry.key in finished for entry in entries)
    interpolated = sum(INTERPOLATED in entry.flags for entry in entries)
    return {
        "table": str(table.path),
        "target": table.identity.target,
        "space": space.name,
        "entries": len(keys),
        "measured": len(entries) - reused - interpolated,
        "reused": reused,
        "failed": len(keys) - len(entries),
        "interpolated": interpolated,
        "flagged": sum(bool(set(entry.flags) - {INTERPOLATED}) for entry in entries),
        "trials": sum(outcome.trials[key] for key in keys),
        "seconds": round(seconds, 3),
        "timed_seconds": round(outcome.timed_seconds, 3),
        "waited_seconds": round(outcome.waited_seconds, 3),
        **({"devices": list_devices(outcome)} if outcome.factors or outcome.set_aside else {}),
    }


def list_devices(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Of each that shared the work: its trials, how it lies to the others, and why it was left out."""
    return {
        name: {
            "trials": outcome.shares[name],
            "factor": outcome.factors.get(name),
            "set_aside": outcome.set_aside.get(name),
        }
        for name in sorted({*outcome.shares, *outcome.factors, *outcome.set_aside})
    }


def print_summary(summary: dict[str, Any], outcome: Outcome) -> None:
    parts = [f"{summary['measured']} measured"]
    parts += [f"{summary[name]} {name}" for name in ("reused", "interpolated", "failed", "flagged") if summary[name]]
    answer.print(
        f"[bold]{counted(summary['entries'], 'entry', 'entries')}[/]: {', '.join(parts)}; "
        f"{counted(summary['trials'], 'trial')} of blocks in {summary['seconds']:.1f} s "
        f"({summary['timed_seconds']:.1f} s of them timed)"
    )
    if summary["flagged"]:
        rounds = EFFORTS["thorough"].rounds
        answer.print(
            "[yellow]flagged[/]: most often for a 95 % interval wider than ±10 %, ofa-table show --keys has each; "
            f"the same command with --effort thorough trials every block in {rounds} rounds"
        )
    for setting, reason in outcome.not_set.items():
        answer.print(f"[yellow]not set[/]: {setting}: {escape(reason)}")
    for name, facts in summary.get("devices", {}).items():
        alike = "" if facts["factor"] is None else f", takes {facts['factor']:.3f} × what they take in the median"
        aside = f"; set aside: {facts['set_aside']}" if facts["set_aside"] else ""
        answer.print(f"{name}: {counted(facts['trials'], 'trial')}{alike}{aside}", markup=False)
    if outcome.cooled_seconds:
        answer.print(f"[yellow]hot[/]: waited {outcome.cooled_seconds:.0f} s for the device to cool")
    for key, reason in outcome.failures.items():
        answer.print(f"  failed: {key}: {reason}", markup=False)
    answer.print(f"table: {summary['table']}", markup=False)


main = run(profile)
