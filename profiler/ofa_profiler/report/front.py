"""The page of a searched front: accuracy over latency, with the reference networks that were measured as marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import numpy as np
from markupsafe import Markup

from ofa_nas.search import Found, Problem
from ofa_profiler.report import svg
from ofa_profiler.report.format import architecture_by_stage, latency, moment, percent, printable
from ofa_profiler.report.page import environment
from ofa_profiler.report.plots import figure_of, points
from ofa_tables.files import replacing


@dataclass(frozen=True)
class Mark:
    """A network that was measured: ``score`` is its published accuracy, or its MACs where those rank networks."""

    name: str
    latency_ms: float
    score: float


def write_front(problem: Problem, found: Found, table: Path, marks: Sequence[Mark], path: Path) -> Path:
    """Writes the page whole or not at all, and gives its path. Raises FileError."""
    rows = [
        (
            latency(network.prices[0, 0]),
            _score(problem, network.accuracy[0]),
            architecture_by_stage(architecture.to_json()),
        )
        for network in found.best
        for architecture in problem.space.decode(network.population)
    ]
    page = (
        environment()
        .get_template("front.html.j2")
        .render(
            space=problem.space.name,
            table=str(table),
            accuracy=problem.accuracy.name,
            scored="accuracy" if problem.accuracy.is_accuracy else "MACs, M",
            evaluated=f"{found.evaluated:,}",
            seconds=f"{found.seconds:.1f}",
            plot=plot(problem, found, marks),
            marks=[(mark.name, latency(mark.latency_ms), _score(problem, mark.score)) for mark in marks],
            rows=rows,
        )
    )
    with replacing(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def plot(problem: Problem, found: Found, marks: Sequence[Mark]) -> Markup:
    """What every front network takes and gives; references as squares with their names."""
    unit = 100 if problem.accuracy.is_accuracy else 1e-6
    prices = np.array([network.prices[0, 0] for network in found.best])
    scores = np.array([network.accuracy[0] for network in found.best]) * unit
    with matplotlib.style.context(svg.STYLE):
        figure, axes = figure_of()
        axes.step(prices, scores, where="post", color=svg.CALIBRATED, linewidth=1.1, alpha=0.6)
        points(axes, prices, scores, svg.CALIBRATED, gid="front")
        if marks:
            points(axes, [m.latency_ms for m in marks], [m.score * unit for m in marks], svg.RAW, "references", "s")
            for mark in marks:
                axes.annotate(
                    mark.name, (mark.latency_ms, mark.score * unit), (4, -10), textcoords="offset points", fontsize=9
                )
        score = "predicted top-1 accuracy, %" if problem.accuracy.is_accuracy else "MACs, millions"
        axes.set(xlabel=f"{problem.meters[0].name}, ms", ylabel=score)
    hover = {
        "front": [
            f"{latency(price)} · {_score(problem, network.accuracy[0])}"
            for price, network in zip(prices, found.best, strict=True)
        ],
        "references": [f"{mark.name} · {latency(mark.latency_ms)} measured" for mark in marks],
    }
    return svg.inline(figure, "front", "Accuracy over latency of the networks that were found", hover)


def _score(problem: Problem, score: float) -> str:
    return percent(score) if problem.accuracy.is_accuracy else f"{score / 1e6:,.0f} M"
