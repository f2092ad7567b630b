"""``ofa-profile``: builds or resumes a latency table."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ofa_agent.operators import PRECISIONS
from ofa_nas.cli import Percentage, Resolutions, answer, console, example, json_option, print_json, run, say
from ofa_profiler import library
from ofa_profiler.campaign.campaign import Outcome
from ofa_profiler.campaign.effort import EFFORTS
from ofa_profiler.commands.models import require_no, run_models
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.commands.variadic import Variadic
from ofa_profiler.library import MOST_MEASURED
from ofa_profiler.targets.target import find_target, parse_settings
from ofa_tables.errors import UsageError
from ofa_tables.identity import ALONE, IN_NETWORKS
from ofa_tables.words import counted

SPACE = "ofa-mbv3-w1.0"


@click.command(
    name="ofa-profile",
    cls=Variadic,
    epilog=example(
        "ofa-profile --target local --resolutions 160",
        "ofa-profile --target local --resolutions all --seconds 60 --prior tables/",
        "ofa-profile --target local --model mine.onnx other.tflite --shape x=1x3x224x224",
    ),
)
@click.option(
    "--target",
    "targets",
    required=True,
    multiple=True,
    help="Device to profile: a name from ofa-targets, user@host, adb:SERIAL, or tcp:HOST:PORT. Repeatable with "
    "--model.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE [FILE2 …]",
    help="Model files (.onnx, .tflite, or .pt2 of torch.export) to profile layer by layer, instead of a space.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="Shape of an input that a model file leaves open; with one input, its name can be omitted. Repeatable.",
)
@click.option("--space", "space_name", metavar="NAME|FILE", help=f"Search space to profile. [default: {SPACE}]")
@click.option(
    "--resolutions",
    type=Resolutions(),
    help='Input sizes in pixels, comma-separated, or "all". [default: 160,176,192,208,224 if the space has them, else '
    "all]",
)
@click.option(
    "--runtime", "wanted_runtime", help="Runtime to measure with. [default: the first runtime of the target that loads]"
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Threads of the runtime.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Images per inference.",
)
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    help="Numeric precision. [default: set by the target, usually fp32]",
)
@click.option(
    "--effort",
    type=click.Choice(list(EFFORTS)),
    default="standard",
    show_default=True,
    help="How much to measure: the number of trials per block; or, if blocks are predicted, the error of networks to "
    f"reach ({', '.join(f'{effort.error:.0%}' for effort in EFFORTS.values())}).",
)
@click.option(
    "--blocks",
    "wanted_blocks",
    type=click.Choice([IN_NETWORKS, ALONE]),
    help="Time blocks inside networks, or alone. [default: in networks, if the runtime reports latencies by operator]",
)
@click.option(
    "--error",
    type=Percentage(),
    metavar="PERCENT",
    help="Measure only what helps most, until half the expected 95 % interval of networks is below this; predict the "
    f"rest. [default with more than {MOST_MEASURED} resolutions: set by --effort]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="The same, but stop after this time.",
)
@click.option(
    "--prior",
    "priors",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="TABLE",
    help="Table of another device or with other settings, or a folder of tables, to predict from; one that does not "
    "fit gets no weight. Can be repeated.",
)
@click.option("--measure-all", is_flag=True, help="Measure every block, however many resolutions there are.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Device condition, restored at the end (governor=performance, affinity=big, power-mode=0), or a setting of "
    "the target's connection.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Table file. [default: TARGET-RUNTIME-PRECISION-tTHREADS-bBATCH.lut] With --model: folder for the report. "
    "[default: NAME-profile]",
)
@click.option(
    "--fit",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Measured latencies (columns key and latency_ms) to fit the engine of a simulated target to.",
)
@click.option("--fresh", is_flag=True, help="Start over; an existing table is renamed to FILE.old.")
@json_option
def profile(
    targets: tuple[str, ...],
    models: tuple[Path, ...],
    shapes: tuple[str, ...],
    space_name: str | None,
    resolutions: tuple[int, ...] | None,
    wanted_runtime: str | None,
    threads: int,
    batch: int,
    precision: str | None,
    effort: str,
    wanted_blocks: str | None,
    error: float | None,
    seconds: float | None,
    priors: tuple[Path, ...],
    measure_all: bool,
    pairs: tuple[str, ...],
    out: Path | None,
    fit: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Measure the latency of every block of a search space on a device and write a latency table.

    With --model, measure model files and their layers. You can interrupt the command at any time; run it again to
    resume. The table of a simulated target is computed, not measured.
    """
    if models:
        about_blocks: dict[str, object] = {
            "--space": space_name,
            "--resolutions": resolutions is not None,
            "--batch": batch != 1,
        }
        about_blocks |= {"--blocks": wanted_blocks, "--error": error, "--seconds": seconds, "--prior": priors}
        require_no({**about_blocks, "--measure-all": measure_all, "--fit": fit})
        return run_models(
            models,
            targets,
            shapes,
            runtime=wanted_runtime,
            threads=threads,
            precision=precision,
            effort=effort,
            pairs=pairs,
            fresh=fresh,
            out=out,
            as_json=as_json,
        )
    if shapes:
        raise UsageError("--shape is the shape of an input of a model file; add --model FILE, or remove it")
    if len(targets) > 1:
        raise UsageError("--target can be repeated only with --model; profile one target after the other")
    result = library.profile(
        find_target(targets[0], parse_settings(pairs), wanted_runtime),
        space_name or SPACE,
        resolutions=resolutions,
        runtime=wanted_runtime,
        threads=threads,
        batch=batch,
        precision=precision,
        effort=effort,
        blocks=wanted_blocks,
        error=error,
        seconds=seconds,
        priors=priors,
        measure_all=measure_all,
        out=out,
        fresh=fresh,
        fit=fit,
        say=say,
        show_progress=partial(CampaignProgress, console),
    )
    if as_json:
        print_json(dict(result.summary))
    else:
        print_summary(result.summary, result.outcome)
    if result.outcome.failures:
        raise SystemExit(1)
    return None


def print_summary(summary: Mapping[str, Any], outcome: Outcome) -> None:
    if summary["simulated"]:
        answer.print(
            f"[bold]{counted(summary['entries'], 'entry', 'entries')} simulated[/]: {summary['computed']} computed "
            f"from the engine of {escape(summary['target'])}, {summary['reused']} reused; none is measured"
        )
        answer.print(f"table: {summary['table']}", markup=False)
        return
    parts = [f"{summary['measured']} measured"]
    parts += [f"{summary[name]} {name}" for name in ("reused", "predicted", "failed", "flagged") if summary[name]]
    answer.print(
        f"[bold]{counted(summary['entries'], 'entry', 'entries')}[/]: {', '.join(parts)}; "
        f"{counted(summary['trials'], 'trial')} of blocks in {summary['seconds']:.1f} s "
        f"({summary['timed_seconds']:.1f} s of them timed)"
    )
    if summary["flagged"]:
        rounds = EFFORTS["thorough"].rounds
        answer.print(
            "[yellow]flagged[/]: usually because the 95 % interval is wider than ±10 %; ofa-table show --keys lists "
            f"the flags; --effort thorough measures every block in {rounds} rounds"
        )
    for setting, reason in outcome.not_set.items():
        answer.print(f"[yellow]not set[/]: {setting}: {escape(reason)}")
    for text in outcome.warnings:
        answer.print(f"[yellow]warning[/]: {escape(text)}")
    for name, facts in summary.get("devices", {}).items():
        alike = "" if facts["factor"] is None else f", {facts['factor']:.3f} × the median latency of the devices"
        aside = f"; not used: {facts['set_aside']}" if facts["set_aside"] else ""
        answer.print(f"{name}: {counted(facts['trials'], 'trial')}{alike}{aside}", markup=False)
    if outcome.cooled_seconds:
        answer.print(f"[yellow]hot[/]: waited {outcome.cooled_seconds:.0f} s for the device to cool")
    for key, reason in outcome.failures.items():
        answer.print(f"  failed: {key}: {reason}", markup=False)
    answer.print(f"table: {summary['table']}", markup=False)


main = run(profile)
