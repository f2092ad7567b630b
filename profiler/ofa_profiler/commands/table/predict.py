"""``ofa-table predict``: predicts the latency of a network and of its blocks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape

from ofa_nas.cli import answer, example, json_option, print_json
from ofa_nas.selection import read_networks
from ofa_nas.spaces import Architecture, Space
from ofa_nas.spaces.recorded import find_space_of
from ofa_profiler.commands.display import TABLE, columns, print_wide
from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.estimates import PREDICTED
from ofa_tables.model.calibration import SUM
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import LatencyTable


@click.command(
    short_help="Predict the latency of a network.",
    epilog=example("ofa-table predict note10.lut --space ofa-mbv3-w1.2 --architecture net.json"),
)
@click.argument("path", metavar="T", type=TABLE)
@click.option("--space", "space_name", metavar="NAME|FILE", required=True, help="Search space of the network.")
@click.option(
    "--architecture",
    required=True,
    metavar="FILE[:NAME]|JSON|WORD",
    help="Architecture, a list of them, a published net.config, or smallest, largest or random:SEED.",
)
@click.option("--raw", is_flag=True, help="Ignore the calibration of the table.")
@json_option
def predict(path: Path, space_name: str, architecture: str, raw: bool, as_json: bool) -> None:
    """Predict the latency of a network and of each of its blocks from table T.

    Block latencies are the entries of the table; their sum is the raw prediction.
    """
    with LatencyTable.read(path) as opened:
        space = find_space_of(space_name, opened)
        model = LatencyModel(opened, space) if raw else LatencyModel.calibrated(opened, space)
        architectures, many = read_networks(architecture, space, model.resolutions_px)
        predictions = _predictions(model, space, architectures)
        lack = model.lack_of_intervals(sorted({architecture.resolution_px for architecture in architectures}))
    if as_json:
        print_json({"predictions": predictions} if many else predictions[0])
    elif many:
        _print_predictions(architectures, predictions)
    else:
        _print_prediction(predictions[0])
        if predictions[0]["low_ms"] is None:
            answer.print(f"\nno interval: {lack}", markup=False)


def _predictions(model: LatencyModel, space: Space, architectures: Sequence[Architecture]) -> list[dict[str, Any]]:
    """Return one JSON object per architecture. Raises EntriesMissing."""
    population = space.encode(architectures)
    resolutions = sorted({architecture.resolution_px for architecture in architectures})
    model.require(resolutions)
    entries = {px: {key: model.table.entry(key, px) for key in space.keys(px)} for px in resolutions}
    halves = [None if np.isnan(half) else float(half) for half in model.half_widths(population)]
    return [
        {
            "latency_ms": float(latency_ms),
            "low_ms": None if half is None else float(latency_ms * (1 - half)),
            "high_ms": None if half is None else float(latency_ms * (1 + half)),
            "calibrated": model.calibration is not None,
            "model": model.kind,
            "simulated": model.simulated,
            "blocks": [
                _block(entries[architecture.resolution_px][block.key]) for block in space.network_blocks(architecture)
            ],
        }
        for architecture, latency_ms, half in zip(architectures, model.predict(population), halves, strict=True)
    ]


def _block(entry: Entry | None) -> dict[str, Any]:
    assert entry is not None  # model.require() has checked that the resolutions are complete
    return {"key": entry.key, "latency_ms": entry.latency_ms, "predicted": PREDICTED in entry.flags}


def _unit(prediction: dict[str, Any]) -> str:
    return "simulated ms" if prediction["simulated"] else "ms"


def _print_prediction(prediction: dict[str, Any]) -> None:
    listing = columns("block", _unit(prediction), "share")
    total = sum(block["latency_ms"] for block in prediction["blocks"])
    for block in prediction["blocks"]:
        key = escape(block["key"]) + (" [dim](predicted)[/]" if block["predicted"] else "")
        listing.add_row(key, f"{block['latency_ms']:.4f}", f"{block['latency_ms'] / total:.1%}")
    listing.add_section()
    if prediction["calibrated"]:
        listing.add_row("sum of the blocks", f"{total:.4f}", "")
        listing.add_row("[bold]calibrated[/]", f"[bold]{prediction['latency_ms']:.4f}[/]", "")
    elif prediction["model"] == SUM:
        listing.add_row("[bold]sum[/]", f"[bold]{prediction['latency_ms']:.4f}[/]", "")
    else:
        listing.add_row("sum of the blocks", f"{total:.4f}", "")
        listing.add_row(f"[bold]{prediction['model']}[/]", f"[bold]{prediction['latency_ms']:.4f}[/]", "")
    if prediction["low_ms"] is not None:
        listing.add_row("95 % interval", f"{prediction['low_ms']:.4f} – {prediction['high_ms']:.4f}", "")
    print_wide(listing)


def _print_predictions(architectures: Sequence[Architecture], predictions: Sequence[dict[str, Any]]) -> None:
    calibrated = "calibrated " if predictions[0]["calibrated"] else ""
    listing = columns("network", "px", "blocks", calibrated + _unit(predictions[0]))
    for number, (architecture, prediction) in enumerate(zip(architectures, predictions, strict=True), start=1):
        blocks = str(len(prediction["blocks"]))
        listing.add_row(str(number), str(architecture.resolution_px), blocks, f"{prediction['latency_ms']:.4f}")
    print_wide(listing)
