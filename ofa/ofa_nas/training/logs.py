"""The logs of a run: lines, CSV files, TensorBoard, and the curve of accuracy over milliseconds."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_nas.cli import NowAndThen, say
from ofa_nas.spaces import Architecture

EPOCHS, EVALUATIONS, CURVE = "epochs.csv", "evaluations.csv", "accuracy-latency.png"
END = "end"  # the stage of the last evaluation


@dataclass(frozen=True)
class Evaluated:
    """``predicted_ms`` is None without a table; ``simulated``: the table was computed. ``accuracy`` is top-1, 0…1."""

    label: str
    architecture: Architecture
    predicted_ms: float | None
    accuracy: float
    simulated: bool = False

    @property
    def unit(self) -> str:
        return "ms (simulated)" if self.simulated else "ms"


class Log:
    """The logs in directory ``out``. A resumed run continues the same files from epoch ``first``: what they contain of
    later epochs is written again. Only one process has a log.
    """

    def __init__(self, out: Path, first: int = 0) -> None:
        self._out = out
        self._due = NowAndThen()
        self._board = _board(out / "tensorboard", first)
        for name in (EPOCHS, EVALUATIONS):
            _cut_off(out / name, first)

    def say(self, text: str) -> None:
        say(text)

    def progress(self, text: str) -> None:
        """Print progress, unless a line was just printed."""
        if self._due():
            say(text)

    def epoch(self, number: int, stage: str, epoch: int, loss: float, rate: float, images_per_second: float) -> None:
        self._append(
            EPOCHS,
            {
                "epoch": number,
                "stage": stage,
                "epoch_of_stage": epoch,
                "loss": loss,
                "learning_rate": rate,
                "images_per_second": round(images_per_second, 1),
            },
        )
        self._scalars(number, {"loss": loss, "learning rate": rate, "images per second": images_per_second})

    def evaluations(self, number: int, stage: str, found: Sequence[Evaluated]) -> None:
        for each in found:
            self._append(
                EVALUATIONS,
                {
                    "epoch": number,
                    "stage": stage,
                    "network": each.label,
                    "predicted_ms": "" if each.predicted_ms is None else round(each.predicted_ms, 5),
                    "accuracy": round(each.accuracy, 5),
                    "architecture": json.dumps(each.architecture.to_json()),
                    **({"latencies": "simulated"} if each.simulated else {}),
                },
            )
        reported = ", ".join(_in_words(each) for each in found)
        say(f"accuracy of the {len(found)} followed sub-networks on held-out images: {reported}")
        self._scalars(number, {f"accuracy/{each.label}": each.accuracy for each in found})
        if any(each.predicted_ms is not None for each in found):
            draw_curve(self._out / EVALUATIONS, self._out / CURVE)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        path = self._out / name
        begun = path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if not begun:
                writer.writeheader()
            writer.writerow(row)

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()


def _in_words(each: Evaluated) -> str:
    return f"{each.accuracy:.1%}" + ("" if each.predicted_ms is None else f" at {each.predicted_ms:.3f} {each.unit}")


def _cut_off(path: Path, first: int) -> None:
    """Remove the rows of epochs from ``first`` on, of an unfinished end, and an incomplete row."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    whole = [row for row in rows if len(row) == len(head) > 1 and row[0].isdecimal() and len(row[0]) < 10]
    kept = [row for row in whole if int(row[0]) < first and row[1] != END]
    path.unlink()
    if kept:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *kept])


def draw_curve(evaluations: Path, picture: Path) -> None:
    """Plot accuracy over predicted latency in ms, one line per evaluated epoch, later ones darker."""
    from matplotlib.figure import Figure

    with evaluations.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["predicted_ms"]]
    epochs = sorted({int(row["epoch"]) for row in rows})
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for at, epoch in enumerate(epochs):
        points = sorted((float(r["predicted_ms"]), float(r["accuracy"])) for r in rows if int(r["epoch"]) == epoch)
        shade = 0.15 + 0.85 * (at + 1) / len(epochs)
        label = f"epoch {epoch}" if at in (0, len(epochs) - 1) else None
        axes.plot(*zip(*points, strict=True), "o-", color="tab:blue", alpha=shade, markersize=4, label=label)
    axes.set_xlabel("simulated latency (ms)" if "latencies" in rows[0] else "predicted latency (ms)")
    axes.set_ylabel("top-1 accuracy on held-out images")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=120)


def _board(folder: Path, first: int) -> Any:
    """None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first)
