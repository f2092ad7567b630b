"""``ofa-profile --model``: measures model files, and prints and writes how long they and their layers take."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from ofa_nas.cli import answer, console, print_json, say, say_error
from ofa_profiler.commands.display import columns, print_wide
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.models.profile import profile_files, read_models
from ofa_profiler.models.results import LayerProfile, ModelProfile
from ofa_profiler.models.shapes import parse_shapes
from ofa_profiler.targets.target import find_target, parse_settings
from ofa_tables.errors import UsageError
from ofa_tables.identity import Settings
from ofa_tables.words import counted

SLOWEST = 25  # the terminal lists at most this many layers; the page and the CSV file list all
LONGEST_NAME = 60  # characters of the name of a layer in the terminal


def run_models(
    paths: Sequence[Path],
    targets: Sequence[str],
    shapes: Sequence[str],
    *,
    runtime: str | None,
    threads: int,
    precision: str | None,
    effort: str,
    pairs: tuple[str, ...],
    fresh: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Profile model files on targets, and write the report to the folder ``out``. Exits with 1 if any of it failed."""
    found = [find_target(name, parse_settings(pairs), runtime) for name in dict.fromkeys(targets)]
    files, errors = read_models(paths, parse_shapes(shapes))
    for error in errors:
        say_error(str(error))
    if not files:
        raise SystemExit(1)
    profiles = profile_files(
        files,
        found,
        Settings(threads=threads),
        runtime=runtime,
        precision=precision,
        effort=effort,
        fresh=fresh,
        say=say,
        show_progress=partial(CampaignProgress, console),
    )
    from ofa_profiler.report import write_models  # plots are slow to import

    folder = out or Path(f"{files[0].path.stem if len(files) == 1 else 'models'}-profile")
    page = write_models(profiles, folder)
    if as_json:
        print_json({"models": [profile.to_json() for profile in profiles], "report": str(page)})
    else:
        print_profiles(profiles)
        answer.print(f"report  {page}", markup=False)
    for profile in profiles:
        if profile.failure:
            say_error(f"{profile.name} on {profile.identity.target}: {profile.failure}")
    if errors or any(profile.failure for profile in profiles):
        raise SystemExit(1)


def require_no(others: Mapping[str, object]) -> None:
    """Raise UsageError for the first of these flags that is set: they are about spaces, not about model files."""
    for flag, is_set in others.items():
        if is_set:
            raise UsageError(f"{flag} is about blocks of a search space; remove it, or --model")


def print_profiles(profiles: Sequence[ModelProfile]) -> None:
    """Print the layers of a single profile, then one line per profile; several targets give a matrix."""
    measured = [profile for profile in profiles if not profile.failure]
    if len(measured) == 1 and measured[0].layers:
        print_wide(list_layers(measured[0]))
        answer.print()
    if len({profile.identity.target for profile in profiles}) > 1:
        print_wide(matrix(profiles))
        answer.print()
    if measured:
        print_wide(list_models(measured))
        answer.print()
    for profile in measured:
        if profile.advice:
            answer.print(f"[yellow]uncertain[/]: {escape(profile.name)}: {escape(profile.advice)}")
        if profile.layers_error:
            answer.print(f"[yellow]no layers[/]: {escape(profile.name)}: {escape(profile.layers_error)}")
    for table in dict.fromkeys(profile.table for profile in measured):
        answer.print(f"table   {table}", markup=False)


def list_models(profiles: Sequence[ModelProfile]) -> Any:
    listing = columns("model", "target", "runtime", "latency ms", "±", "first ms", "load ms", "memory MB", "MACs, M")
    for name in ("GFLOP/s", "layers", "flags"):
        listing.add_column(name, justify="left" if name == "flags" else "right", no_wrap=True)
    for profile in profiles:
        layers = f"{len(profile.layers)}: {profile.layers_ms / profile.latency_ms:.1%}" if profile.layers else ""
        listing.add_row(
            escape(profile.name),
            escape(profile.identity.target),
            escape(profile.identity.runtime),
            f"{profile.latency_ms:.4g}",
            _percent(profile.half_width),
            _number(profile.first_ms, "{:.4g}"),
            _number(profile.load_ms, "{:.4g}"),
            _number(profile.peak_mb, "{:.1f}"),
            _number(None if profile.macs is None else profile.macs / 1e6, "{:,.1f}"),
            _number(profile.gflops, "{:.1f}"),
            layers,
            " ".join(profile.flags),
        )
    return listing


def matrix(profiles: Sequence[ModelProfile]) -> Any:
    """List the latency of each model on each target, in ms."""
    targets = list(dict.fromkeys(profile.identity.target for profile in profiles))
    listing = columns("latency, ms", *map(escape, targets))
    for name in dict.fromkeys(profile.name for profile in profiles):
        of_model = {profile.identity.target: profile for profile in profiles if profile.name == name}
        listing.add_row(escape(name), *(_cell(of_model.get(target)) for target in targets))
    return listing


def list_layers(profile: ModelProfile) -> Any:
    """List the slowest layers in order of execution, and the rest in one row."""
    listing = columns("layer", "operator", "ms", "share", "± of share", "MACs, M", "GFLOP/s", "kB")
    listing.columns[1].justify = "left"
    slowest = sorted(profile.layers, key=lambda layer: -layer.latency_ms)[:SLOWEST]
    for layer in profile.layers:
        if layer in slowest:
            listing.add_row(*_layer_cells(layer))
    rest = [layer for layer in profile.layers if layer not in slowest]
    if rest:
        _add_rest(listing, f"{counted(len(rest), 'faster layer')}", sum(x.latency_ms for x in rest), profile)
    _add_rest(listing, "between layers", profile.between_ms, profile)
    _add_rest(listing, "whole model", profile.latency_ms, profile)
    return listing


def _add_rest(listing: Any, name: str, latency_ms: float, profile: ModelProfile) -> None:
    listing.add_row(f"[bold]{name}[/]", "", f"{latency_ms:.4g}", f"{latency_ms / profile.latency_ms:.1%}")


def _layer_cells(layer: LayerProfile) -> list[str]:
    name = layer.name if len(layer.name) <= LONGEST_NAME else "…" + layer.name[1 - LONGEST_NAME :]
    return [
        escape(name),
        escape(layer.operator),
        f"{layer.latency_ms:.4g}",
        f"{layer.share:.1%}",
        _percent(layer.half_width),
        _number(None if layer.macs is None else layer.macs / 1e6, "{:,.2f}"),
        _number(layer.gflops, "{:.1f}"),
        _number(None if layer.moved_bytes is None else layer.moved_bytes / 1e3, "{:,.0f}"),
    ]


def _cell(profile: ModelProfile | None) -> str:
    if profile is None or profile.failure:
        return "failed"
    return f"{profile.latency_ms:.4g} {_percent(profile.half_width, '±')}".strip()


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{sign}{value:.1%}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
