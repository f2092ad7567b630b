"""``ofa-compare``: measures networks on the device and compares them with the table's predictions."""

from functools import partial
from pathlib import Path

import click
from rich.table import Table

from ofa_nas.cli import answer, console, example, json_option, print_json, run, say, say_error
from ofa_profiler import library
from ofa_profiler.commands.display import columns, print_wide
from ofa_profiler.commands.progress import CampaignProgress
from ofa_profiler.comparison.statistics import Comparison
from ofa_profiler.models.formats import is_model_file, stated_accuracies
from ofa_profiler.models.shapes import parse_shapes
from ofa_profiler.targets.target import parse_settings
from ofa_tables.errors import DeviceError, UsageError
from ofa_tables.words import counted

LISTED = 10  # the terminal lists at most this many networks; the report lists all

LABELS = {
    "calibrated": "calibrated",
    "raw": "raw sum",
    "macs_baseline": "MACs line",
    "noise": "pass vs. pass",
}


@click.command(
    name="ofa-compare",
    epilog=example(
        "ofa-compare --table local-onnxruntime-fp32-t1-b1.lut --networks 50 --calibrate 20",
        "ofa-compare --table local-onnxruntime-fp32-t1-b1.lut --networks mine.onnx --accuracy-of mine.onnx=0.752",
    ),
)
@click.option("--table", "path", required=True, type=click.Path(path_type=Path), help="Table to test.")
@click.option("--target", help="Target to measure on. [default: the target of the table]")
@click.option(
    "--space",
    "space_name",
    metavar="NAME|FILE",
    help="Search space. [default: the largest complete space in the table]",
)
@click.option(
    "--networks",
    multiple=True,
    help="Number of networks to test, a JSON file of architectures, FILE:NAME for one of them, smallest, largest, "
    'random:SEED, or "references" for published networks without a prediction (MobileNetV2 to ResNet50). A model file '
    "(.onnx, .tflite, .pt2) is measured as a reference; repeatable with model files. [default: 30]",
)
@click.option(
    "--accuracy-of",
    "stated",
    multiple=True,
    metavar="FILE=0.752",
    help="Accuracy of a model file, to show it with: a fraction. Repeatable.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="Shape of an input that a model file leaves open. Repeatable.",
)
@click.option("--calibrate", type=click.IntRange(min=0), help="Number of additional networks to calibrate with.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Setting of the target's connection.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory for report.html. [default: TABLE-comparison]")
@json_option
def compare(
    path: Path,
    target: str | None,
    space_name: str | None,
    networks: tuple[str, ...],
    stated: tuple[str, ...],
    shapes: tuple[str, ...],
    calibrate: int | None,
    seed: int,
    pairs: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure whole networks on the device and compare them with the table's predictions.

    Each network is measured in two independent passes. The measurements and the calibration are stored in the table.
    Without --calibrate, a table that fewer than 5 networks calibrate gets 10 more. Published networks and model
    files are never used for calibration.
    """
    files = [library.read_model(Path(text), parse_shapes(shapes)) for text in networks if is_model_file(text)]
    others = [text for text in networks if not is_model_file(text)]
    if len(others) > 1:
        raise UsageError(f"--networks can be repeated only with model files; remove {others[1]}")
    if shapes and not files:
        raise UsageError("--shape is the shape of an input of a model file; add --networks FILE.onnx, or remove it")
    comparison = library.compare(
        path,
        others[0] if others else None if files else "30",
        models=files,
        accuracies=stated_accuracies(stated, [file.name for file in files]),
        calibrate=calibrate,
        target=target,
        space=space_name,
        seed=seed,
        settings=parse_settings(pairs),
        say=say,
        show_progress=partial(CampaignProgress, console),
    )
    from ofa_profiler.report import write_report  # plots are slow to import, and not needed while measuring

    report = write_report(comparison, out or path.with_name(f"{path.stem}-comparison"))
    if as_json:
        print_json(comparison.summary(report))
    else:
        print_comparison(comparison, report)
    for file in files:
        if file.key in comparison.failures:
            say_error(f"{file.name}: {comparison.failures[file.key]}")
    if not comparison.networks and not comparison.is_of_references:
        reasons = "; ".join(dict.fromkeys(comparison.failures.values())) or "too few of their trials succeeded"
        raise DeviceError(f"no network was measured in both passes: {reasons}; run the command again to continue")
    if comparison.failures:
        raise SystemExit(1)


def print_comparison(comparison: Comparison, report: Path) -> None:
    if comparison.is_of_references:
        print_wide(list_references(comparison))
    else:
        print_errors(comparison)
    answer.print(f"report       {report}", markup=False)


def print_errors(comparison: Comparison) -> None:
    summary = comparison.summary()
    count = summary["networks"]
    if count <= LISTED:
        print_wide(list_networks(comparison))
        answer.print()
    figures = columns(counted(count, "network"), "excess", "MAPE", "bias", "±5 %", "±10 %", "tau")
    for name, label in LABELS.items():
        row = summary[name]
        if row is not None:
            percents = (row.get(key) for key in ("excess_rms", "mape", "bias", "within_5", "within_10"))
            tau = row["kendall_tau"]
            figures.add_row(label, *map(_percent, percents), "" if tau is None else f"{tau:.3f}")
    print_wide(figures)
    if comparison.calibration is not None:
        fitted = comparison.calibration
        answer.print(f"\ncalibration  {fitted}, fitted on {counted(fitted.networks, 'network')} outside the test")


def list_networks(comparison: Comparison) -> Table:
    """List the predicted and measured latency of each tested network, in ms."""
    listing = columns("network", "px", "predicted ms", "pass 1 ms", "pass 2 ms", "error", "flags")
    for network, predicted in zip(comparison.networks, comparison.predicted_ms, strict=True):
        error = predicted / network.measured_ms - 1
        latencies = (f"{latency:.3f}" for latency in (predicted, *network.passes_ms))
        flags = " ".join(network.flags)
        listing.add_row(network.name, str(network.resolution_px), *latencies, f"{error:+.1%}", flags)
    return listing


def list_references(comparison: Comparison) -> Table:
    """List the latency of each measured reference network, in ms, and its published or stated accuracy."""
    listing = columns("network", "px", "pass 1 ms", "pass 2 ms", "top-1")
    for reference in comparison.references:
        latencies = (f"{latency:.3f}" for latency in reference.passes_ms)
        px = str(reference.resolution_px) if reference.resolution_px else ""
        listing.add_row(reference.name, px, *latencies, _percent(reference.top1))
    return listing


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


main = run(compare)
