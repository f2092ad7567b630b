"""``ofa-search``: the best network of a Space under a latency limit."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ofa_nas.accuracy import MACS, open_accuracy
from ofa_nas.search import Budget, Found, Problem, find_method, search, usable_resolutions
from ofa_nas.spaces import ABSENT, Population, Space, find_space
from ofa_profiler.commands.cli import Resolutions, answer, console, json_option, print_json, run
from ofa_profiler.commands.display import columns, example, print_wide
from ofa_tables.files import replacing
from ofa_tables.model import LatencyModel
from ofa_tables.table import LatencyTable


@click.command(
    name="ofa-search",
    epilog=example("ofa-search --table phone.lut --space ofa-mbv3-w1.0 --max-latency-ms 20 --accuracy predictor.npz"),
)
@click.option("--table", "path", type=click.Path(path_type=Path), required=True, help="The latency table.")
@click.option("--space", "space_name", required=True, help="Where to search, e.g. ofa-mbv3-w1.0.")
@click.option("--max-latency-ms", "limit_ms", type=float, required=True, help="No network may take longer.")
@click.option(
    "--accuracy",
    "source",
    default=MACS,
    show_default=True,
    metavar="FILE|macs",
    help="An accuracy model (.npz, or .pth where torch is installed), or MACs as a stand-in.",
)
@click.option("--method", default="evolution", show_default=True, help="evolution, exhaustive or random.")
@click.option("--population", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--generations", type=click.IntRange(0, 1_000_000), default=500, show_default=True)
@click.option(
    "--resolutions", type=Resolutions(), help="Default: all that the table has whole and the accuracy model knows."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same answer.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write what was found, as JSON.")
@json_option
def command(
    path: Path,
    space_name: str,
    limit_ms: float,
    source: str,
    method: str,
    population: int,
    generations: int,
    resolutions: tuple[int, ...] | None,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find the best network of SPACE that the table says is fast enough.

    Ctrl-C ends the search with the best network so far.
    """
    space = find_space(space_name)
    run_method = find_method(method)
    budget = Budget(population, generations)
    problem = pose(space, path, source, limit_ms, resolutions)
    with bar(f"searching {space.name}") as progress:
        found = search(problem, run_method, budget, seed, progress)
    summary = summarise(problem, found, method, seed)
    if out is not None:
        with replacing(out) as file:
            file.write(json.dumps(summary).encode() + b"\n")
    if as_json:
        print_json(summary)
    else:
        print_found(problem, found, method)
        if out is not None:
            answer.print(f"written to {escape(str(out))}")
    if found.interrupted:
        console.print(f"interrupted; this is the best of the {found.evaluated:,} networks tried until then")
        raise SystemExit(130)


@contextlib.contextmanager
def bar(noun: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, where somebody watches."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=28), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as drawn:
        task = drawn.add_task(noun, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)


def pose(space: Space, path: Path, source: str, limit_ms: float, resolutions: tuple[int, ...] | None) -> Problem:
    """What is to be searched. ``resolutions``: None for all that can be, an empty tuple for all of the Space."""
    wanted = resolutions if resolutions != () else space.resolutions_px
    space.require_resolutions(wanted or ())
    with LatencyTable.read(path) as table:
        latency = LatencyModel.calibrated(table, space)
    accuracy = open_accuracy(source, space)
    return Problem(space, latency, accuracy, limit_ms, usable_resolutions(latency, accuracy, wanted))


def summarise(problem: Problem, found: Found, method: str, seed: int) -> dict[str, Any]:
    (architecture,) = problem.space.decode(found.best.network)
    return {
        "architecture": architecture.to_json(),
        "predicted_latency_ms": found.best.latency_ms,
        "predicted_accuracy": found.best.accuracy if problem.accuracy.is_accuracy else None,
        "evaluated": found.evaluated,
        "seconds": round(found.seconds, 3),
        "method": method,
        "seed": seed,
    }


def print_found(problem: Problem, found: Found, method: str) -> None:
    space, network = problem.space, found.best.network
    px = space.resolutions_px[network.genes[-1, 0]]
    answer.print(
        f"[bold]{space.name} at {px} px[/]: the best of {found.evaluated:,} networks "
        f"that {escape(method)} tried in {found.seconds:.1f} s\n"
    )
    listing = columns("stage", "blocks", "kernel sizes", "expand ratios")
    for column in listing.columns[2:]:
        column.justify = "left"
    for stage, blocks in blocks_by_stage(space, network).items():
        kernels, expands = (" ".join(map(str, choices)) for choices in zip(*blocks, strict=True))
        listing.add_row(stage, str(len(blocks)), kernels, expands)
    print_wide(listing)
    answer.print(
        f"\nlatency     {found.best.latency_ms:.4g} of {problem.limit_ms:g} ms, {_basis(problem.latency)}", markup=False
    )
    interpolated = int(problem.latency.interpolated_blocks(network)[0])
    if interpolated:
        answer.print(f"            {interpolated} of its blocks are interpolated between sizes that were measured")
    if problem.accuracy.is_accuracy:
        answer.print(f"accuracy    {found.best.accuracy:.2%}, predicted by {escape(problem.accuracy.name)}")
    else:
        answer.print("accuracy    not predicted: ranked by MACs, a stand-in; name a model with --accuracy FILE")
    answer.print(f"MACs        {space.macs(network)[0] / 1e6:.1f} M")
    answer.print(f"parameters  {space.parameters(network)[0] / 1e6:.2f} M")


def blocks_by_stage(space: Space, network: Population) -> dict[str, list[tuple[int, int]]]:
    """Kernel size and expand ratio of each block of one network, in the stages that leave a choice."""
    genes = network.genes[:, 0]
    found: dict[str, list[tuple[int, int]]] = {}
    for position in space.positions:
        if not position.genes:
            continue
        code = np.ravel_multi_index([genes[row] for row in position.genes], position.radices)
        if position.entries[code] != ABSENT:
            block = space.kernel_sizes[position.kernels[code]], space.expand_ratios[position.expands[code]]
            found.setdefault(space.stages[position.stage], []).append(block)
    return found


def _basis(latency: LatencyModel) -> str:
    if latency.calibration is None:
        return (
            "the raw sum of its blocks, which may be far off: teach the table with "
            f"ofa-compare --table {latency.table.path} --calibrate 10, then search again"
        )
    return f"calibrated with {latency.calibration.networks} networks"


main = run(command)
