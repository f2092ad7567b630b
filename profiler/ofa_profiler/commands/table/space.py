"""``ofa-table space``: checks a space, and prints and draws it."""

import csv
import sys
from dataclasses import asdict
from itertools import pairwise

import click
from rich.markup import escape
from rich.table import Table

from ofa_nas.cli import answer, example, json_option, print_json
from ofa_nas.spaces import Space, find_space
from ofa_nas.spaces.outline import Outline, Range, StageOutline, outline_of
from ofa_profiler.commands.display import columns, print_wide

BAR = 24  # characters of the stage with the most MACs
_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@click.command(
    short_help="Check a search space, and draw it.",
    epilog=example("ofa-table space my_space.toml", "ofa-table space my_space.toml --keys > latencies.csv"),
)
@click.argument("name", metavar="NAME|FILE")
@click.option("--keys", is_flag=True, help="Print every entry as CSV, with an empty column for its latency.")
@json_option
def space(name: str, keys: bool, as_json: bool) -> None:
    """Check a search space and print its stages, its size, and the ranges of MACs and parameters.

    NAME is a built-in space. FILE is a space file (TOML), or FILE.py:NAME for a Space in a Python file. Exits with 1 if
    the file has an error.
    """
    found = find_space(name)
    if keys:
        print_keys(found)
        return
    outline = outline_of(found)
    if as_json:
        print_json(summary(found, outline))
        return
    answer.print(f"[bold]{escape(found.name)}[/]")
    for label, text in facts(found, outline):
        answer.print(f"{label:<12} {text}", markup=False)
    answer.print()
    print_wide(draw(found, outline))


def print_keys(space: Space) -> None:
    """Print the form that ``ofa-table import --format csv`` reads, with empty latencies."""
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(("key", "resolution", "latency_ms"))
    for px in space.resolutions_px:
        lines.writerows((key, px, "") for key in dict.fromkeys(space.keys(px)))


def summary(space: Space, outline: Outline) -> dict[str, object]:
    """Return the object that ``--json`` prints."""
    stages = [
        {**asdict(stage), "choices": dict(zip(space.choice_names, stage.choices, strict=False))}
        for stage in outline.stages
    ]
    return {
        "space": space.name,
        "resolutions": list(space.resolutions_px),
        "classes": space.classes,
        **asdict(outline),
        "stages": stages,
    }


def facts(space: Space, outline: Outline) -> list[tuple[str, str]]:
    return [
        ("resolutions", f"{_listed(space.resolutions_px)} px"),
        ("classes", f"{space.classes:,}"),
        ("networks", f"{_large(outline.networks)} per resolution"),
        ("entries", f"{outline.entries} per resolution"),
        ("MACs", _ranges(space, outline.macs)),
        ("parameters", _ranges(space, outline.parameters)),
        ("example", space.example),
    ]


def draw(space: Space, outline: Outline) -> Table:
    """Return a listing with one row per stage, and a bar for the MACs of the largest network."""
    px = max(space.resolutions_px)
    listing = columns("stage", "blocks", f"output at {px} px", "MACs of the largest", "choices of a block")
    for column in listing.columns[3:]:
        column.justify = "left"
    most = max(stage.macs for stage in outline.stages)
    for stage in outline.stages:
        bar = "█" * max(1, round(BAR * stage.macs / most)) if stage.macs else ""
        listing.add_row(
            escape(stage.name),
            _blocks(stage),
            " × ".join(map(str, stage.output)),
            f"{bar} {_large(stage.macs)}",
            escape("; ".join(_choice(name, values) for name, values in _named(space, stage))) or "none",
        )
    return listing


def _named(space: Space, stage: StageOutline) -> list[tuple[str, tuple[str, ...]]]:
    return list(zip(space.choice_names, stage.choices, strict=False))


def _choice(name: str, values: tuple[str, ...]) -> str:
    return f"{name} {' '.join(values)}"


def _blocks(stage: StageOutline) -> str:
    if stage.fewest_blocks == stage.most_blocks:
        return str(stage.most_blocks)
    return f"{stage.fewest_blocks} to {stage.most_blocks}"


def _listed(values: tuple[int, ...]) -> str:
    """List values; many evenly spaced ones by the first two and the last."""
    steps = {high - low for low, high in pairwise(values)}
    if len(values) > 4 and len(steps) == 1:
        return f"{values[0]}, {values[1]}, … {values[-1]}"
    return ", ".join(map(str, values))


def _ranges(space: Space, found: dict[int, Range]) -> str:
    ends = [found[px] for px in dict.fromkeys((min(space.resolutions_px), max(space.resolutions_px)))]
    if ends[0] == ends[-1]:
        return f"{_large(ends[0].smallest)} to {_large(ends[0].largest)}"
    places = (min(space.resolutions_px), max(space.resolutions_px))
    return "; ".join(
        f"{_large(each.smallest)} to {_large(each.largest)} at {px} px" for px, each in zip(places, ends, strict=True)
    )


def _large(value: float) -> str:
    """Format a count: 1,234; 12.3 k; 12.3 M; 2.2 × 10¹⁹."""
    if value >= 1e12:
        digits, exponent = f"{value:.1e}".split("e+")
        return f"{digits} × 10{str(int(exponent)).translate(_DIGITS)}"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.4g} {name}"
    return f"{value:,.0f}"
