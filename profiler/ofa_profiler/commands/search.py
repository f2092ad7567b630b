"""``ofa-search``: finds the best networks of a space within limits."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape

from ofa_nas.accuracy import MACS, open_accuracy
from ofa_nas.cli import Resolutions, answer, console, example, json_option, print_json, run, say, say_error
from ofa_nas.references import MeasuredReference, measured_references
from ofa_nas.search import Budget, Found, Problem, Question, find_method, search, search_front
from ofa_nas.search.resolutions import in_words
from ofa_nas.spaces import Space
from ofa_nas.spaces.recorded import find_space_in
from ofa_profiler.commands.display import TABLE, bar
from ofa_profiler.commands.results import (
    is_one,
    print_answer,
    print_measured,
    print_references,
    reference_facts,
    summarise,
)
from ofa_profiler.commands.variadic import Variadic
from ofa_tables.errors import UsageError
from ofa_tables.estimates.entry import UNSTABLE_HALF_WIDTH
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.files import replacing, require_writable
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted

KEPT = "no network found yet; the table keeps the networks that --verify measured"
SAMPLED = 100  # networks that show how uncertain predictions are
POSITIVE = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True)
class Search:
    """Search method and its parameters, from the flags."""

    method: str
    budget: Budget
    seed: int
    pareto: bool
    bound_seconds: float

    def __call__(self, problem: Problem, limits: Sequence[float] = ()) -> Found:
        method = find_method(self.method)
        with bar(f"searching {problem.space.name}") as progress:
            if self.pareto:
                return search_front(problem, method, self.budget, self.seed, progress)
            return search(problem, method, self.budget, self.seed, progress, limits, self.bound_seconds)


@click.command(
    name="ofa-search",
    cls=Variadic,
    epilog=example(
        "ofa-search --table phone.lut --space ofa-mbv3-w1.0 --max-latency-ms 20 --accuracy predictor.npz",
        "ofa-search --table phone.lut --table tx2.lut --space ofa-mbv3-w1.0 --max-latency-ms 20 35",
        "ofa-search --table phone.lut --space ofa-mbv3-w1.0 --pareto --out front.json",
        "ofa-search --table phone.lut --space ofa-mbv3-w1.0 --max-latency-ms 20 --against mine.tflite",
        "ofa-search --table phone.lut --space ofa-mbv3-w1.0 --max-latency-ms 20 --accuracy mine.py:evaluate",
    ),
)
@click.option("--table", "paths", type=TABLE, required=True, multiple=True, help="Latency table. Repeatable.")
@click.option("--space", "space_name", metavar="NAME|FILE", required=True, help="Search space, such as ofa-mbv3-w1.0.")
@click.option(
    "--max-latency-ms",
    "limits_ms",
    type=float,
    multiple=True,
    metavar="X [X2 …]",
    help="Latency limit in ms. Several limits with one table: one network each. Several tables: one limit each.",
)
@click.option("--max-macs-m", "macs", type=POSITIVE, help="Maximum MACs, in millions.")
@click.option("--max-parameters-m", "parameters", type=POSITIVE, help="Maximum parameters, in millions.")
@click.option("--max-memory-mb", "memory", type=POSITIVE, help="Maximum activation memory, in MB.")
@click.option("--max-energy-mj", "energy", type=POSITIVE, help="Maximum energy per inference, in mJ.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 0.999),
    help="Compare the upper end of the latency interval with the limit, such as 0.95.",
)
@click.option(
    "--accuracy",
    "source",
    default=MACS,
    show_default=True,
    metavar="FILE|MODULE:FUNCTION|macs",
    help="Accuracy model (.npz, or .pth if torch is installed), or a Python function that takes a list of "
    "architectures and returns their accuracies (module:function or file.py:function). Without it, MACs rank the "
    "networks.",
)
@click.option(
    "--evaluated",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for what the function returned. Networks that it contains are not evaluated again.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that call the function at the same time.",
)
@click.option(
    "--method",
    default="annealing",
    show_default=True,
    help="Search method: annealing, evolution (also called ofa, as published), exhaustive, or random.",
)
@click.option(
    "--population", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Networks per generation."
)
@click.option(
    "--generations", type=click.IntRange(0, 1_000_000), default=500, show_default=True, help="Number of generations."
)
@click.option("--seconds", type=POSITIVE, help="Time limit of the search, in seconds.")
@click.option(
    "--bound",
    "bound_seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Additional time to bound how much better any network can be.",
)
@click.option(
    "--resolutions",
    type=Resolutions(),
    help='Input sizes in pixels, comma-separated, or "all". [default: sizes that the tables and the model cover]',
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--pareto", is_flag=True, help="Find the Pareto front and plot it.")
@click.option("--verify", "verifies", is_flag=True, help="Measure the result; repeat until it meets the limit.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE [FILE2 …]",
    help="Model files of yours to measure first, and to compare the result with.",
)
@click.option("--accuracy-of", "stated", multiple=True, metavar="FILE=0.752", help="Accuracy of a file of --against.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="Shape of an input that a file of --against leaves open. Repeatable.",
)
@click.option("--target", help="Target for --verify and --against. [default: the target of the table]")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Setting of the target's connection.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the result.")
@json_option
def command(
    paths: tuple[Path, ...],
    space_name: str,
    limits_ms: tuple[float, ...],
    confidence: float | None,
    source: str,
    evaluated: Path | None,
    workers: int,
    method: str,
    population: int,
    generations: int,
    seconds: float | None,
    bound_seconds: float,
    resolutions: tuple[int, ...] | None,
    seed: int,
    pareto: bool,
    verifies: bool,
    against: tuple[Path, ...],
    stated: tuple[str, ...],
    shapes: tuple[str, ...],
    target: str | None,
    pairs: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **caps: float | None,
) -> None:
    """Find the best network of a space within a latency limit, using latencies from a table.

    Ctrl-C ends the search and prints the best network so far.
    """
    asked = {kind: limit for kind, limit in caps.items() if limit is not None}
    _check(paths, limits_ms, asked, confidence, pareto, verifies)
    if pareto and bound_seconds:
        raise UsageError("--bound does not support --pareto; remove one of them")
    if not (verifies or against) and (target is not None or pairs):
        raise UsageError(
            "--target and --set are about the device that measures; add --verify or --against, or remove them"
        )
    if len(paths) > 1 and against:
        raise UsageError("--against takes one table, whose device measures the model files; remove the others")
    for flag, values in (("--accuracy-of", stated), ("--shape", shapes)):
        if values and not against:
            raise UsageError(f"{flag} is about a model file; add --against FILE, or remove it")
    page = _page(paths[0], out) if pareto else None
    for path in filter(None, (out, page)):
        require_writable(path)
    space = find_space_in(space_name, paths)
    find_method(method)
    if against:
        from ofa_profiler.commands.search_device import measure_files

        measure_files(paths[0], space, against, shapes, stated, target, pairs)
    carry_out = Search(method, Budget(population, generations, seconds or math.inf), seed, pareto, bound_seconds)
    space.require_resolutions(resolutions or ())
    wanted = space.resolutions_px if resolutions == () else resolutions
    accuracy = open_accuracy(source, space, evaluated, workers)
    question = Question(space, accuracy, limits_ms, asked, wanted, confidence)
    measured: dict[str, Any] = {}
    if verifies:
        from ofa_profiler.commands.search_device import verify_found

        problem, found, measured = verify_found(paths[0], question, carry_out, target, pairs)
    else:
        models = [LatencyModel.read(path, space) for path in paths]
        problem = question.to_problem(models)
        for line in filter(None, (lack_of_precision(model, space) for model in models)):
            say(line)
        for line in in_words(problem.left_out):
            say(line)
        found = carry_out(problem, limits_ms if len(paths) == 1 and not pareto else ())
    references = _references(paths[0]) if len(paths) == 1 else []
    summary = summarise(problem, found, method, seed) | measured | ({"page": str(page)} if page else {})
    summary |= {"references": [reference_facts(one) for one in references]} if references else {}
    report(problem, found, summary, method, question.latency_ms, paths, measured, out, page, as_json)
    for reason in found.unmet.values():
        say_error(reason)
    if found.failed:
        say_error(f"{found.failed}; this is the best of {counted(found.evaluated, 'network')} evaluated before")
        raise SystemExit(1)
    if found.interrupted:
        console.print(f"interrupted; this is the best of {counted(found.evaluated, 'network')} tried so far")
        raise SystemExit(130)
    if found.unmet:
        raise SystemExit(1)


def report(
    problem: Problem,
    found: Found,
    summary: dict[str, Any],
    method: str,
    limits_ms: Sequence[float],
    paths: Sequence[Path],
    measured: dict[str, Any],
    out: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Print the result, then write the files, so that a full disk does not lose the result."""
    if as_json:
        print_json(summary)
    else:
        print_answer(problem, found, method)
        if measured:
            print_measured(limits_ms[0], measured)
        if len(paths) == 1 and is_one(found):
            print_references(_references(paths[0]), problem, found.best[0], measured)
    if out is not None:
        with replacing(out) as file:
            file.write(json.dumps(summary).encode() + b"\n")
    if page is not None:
        _plot(problem, found, paths[0], page)
    if not as_json:
        for path in filter(None, (out, page)):
            answer.print(f"written to {escape(str(path))}")


def _check(
    paths: Sequence[Path],
    limits_ms: Sequence[float],
    caps: Mapping[str, float],
    confidence: float | None,
    pareto: bool,
    verifies: bool,
) -> None:
    if not (limits_ms or caps or pareto):
        raise UsageError(
            "--max-latency-ms is missing; set it, set another limit (--max-macs-m 200), or use --pareto for the whole "
            "front"
        )
    if confidence is not None and not (limits_ms or pareto):
        raise UsageError("--confidence needs a latency limit; add --max-latency-ms, or remove --confidence")
    if pareto and (len(paths) > 1 or len(limits_ms) > 1 or verifies):
        raise UsageError("--pareto takes one table and at most one --max-latency-ms, and does not support --verify")
    if verifies and not len(paths) == len(limits_ms) == 1:
        raise UsageError("--verify takes one table and one --max-latency-ms")


def lack_of_precision(model: LatencyModel, space: Space) -> str:
    """Describe how uncertain the predictions of a table are, and how to measure better; empty if they are not."""
    networks = space.sample(SAMPLED, np.random.default_rng(0), model.resolutions_px)
    half_width = float(np.median(model.half_widths(networks)))
    if not half_width > UNSTABLE_HALF_WIDTH:  # also without intervals
        return ""
    command = model.table.profile_command(space.given_as, *model.resolutions_px)
    return (
        f"{model.table.path}: predictions are uncertain by ±{half_width:.0%}; measure more while the device is idle: "
        f"{command} --effort thorough"
    )


def _page(table: Path, out: Path | None) -> Path:
    """Return the path of the plot. Raises UsageError if it is also the path of the JSON file."""
    if out is None:
        return table.with_name(f"{table.stem}-front.html")
    if out.suffix == ".html":
        raise UsageError(f"--out is the JSON file, and the plot is written next to it; use {out.with_suffix('.json')}")
    return out.with_suffix(".html")


def _plot(problem: Problem, found: Found, path: Path, page: Path) -> None:
    from ofa_profiler.report import write_front  # plots are slow to import

    write_front(problem, found, path, _references(path), page)


def _references(path: Path) -> list[MeasuredReference]:
    with LatencyTable.read(path) as table:
        return measured_references(table)


main = run(command, KEPT)
