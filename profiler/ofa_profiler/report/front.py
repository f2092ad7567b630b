"""HTML page of a Pareto front: accuracy over latency, with the measured reference networks."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import LogLocator, NullLocator

from ofa_nas.references import MeasuredReference
from ofa_nas.search import Found, Problem
from ofa_profiler.report import svg
from ofa_profiler.report.format import UNKNOWN, architecture_by_stage, latency, percent
from ofa_profiler.report.page import environment
from ofa_profiler.report.plots import figure_of, points
from ofa_tables.store.files import replacing
from ofa_tables.words import counted

LABEL_HEIGHT = 0.045  # as a share of the plot height


def write_front(
    problem: Problem, found: Found, table: Path, references: Sequence[MeasuredReference], path: Path
) -> Path:
    """Write the page atomically and return its path. Raises FileError."""
    template = environment().get_template("front.html.j2")
    page = template.render(
        space=problem.space.name,
        table=str(table),
        accuracy=problem.accuracy.name,
        scored="accuracy" if problem.accuracy.is_accuracy else "MACs",
        networks=counted(len(found.best), "network"),
        evaluated=counted(found.evaluated, "network"),
        seconds=f"{found.seconds:.1f}",
        plot=plot(problem, found, references),
        references=[
            (one.name, latency(one.latency_ms), percent(one.top1), UNKNOWN if one.macs is None else _macs(one.macs))
            for one in references
        ],
        limited=problem.metrics[0].name,
        exact=problem.metrics[0].exact,
        simulated=problem.simulated,
        rows=[
            (
                latency(problem.predicted_ms(network.population)[0]),
                latency(network.prices[0, 0]),
                _text(problem, network.accuracy[0]),
                architecture_by_stage(of_one.to_json()),
            )
            for network in found.best
            for of_one in problem.space.decode(network.population)
        ],
    )
    with replacing(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def plot(problem: Problem, found: Found, references: Sequence[MeasuredReference]) -> Markup:
    """Plot score over latency of the front; references with a known score are squares with labels."""
    unit = 100 if problem.accuracy.is_accuracy else 1e-6
    prices = np.array([network.prices[0, 0] for network in found.best])
    scores = np.array([network.accuracy[0] for network in found.best]) * unit
    known = [(one, one.top1 if problem.accuracy.is_accuracy else one.macs) for one in references]
    references = [one for one, score in known if score is not None]
    taken = [one.latency_ms for one in references]
    published = [unit * score for _, score in known if score is not None]
    with matplotlib.style.context(svg.STYLE):
        figure, axes = figure_of()
        axes.step(prices, scores, where="post", color=svg.CALIBRATED, linewidth=1.1, alpha=0.6)
        points(axes, prices, scores, svg.CALIBRATED, gid="front")
        if references:
            points(axes, taken, published, svg.RAW, gid="references", marker="s")
        axes.set_xscale("log")  # the latencies of published networks go far beyond the range of a space
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        places = _apart(published, LABEL_HEIGHT * float(np.ptp([*scores, *published])))
        for one, x, y, place in zip(references, taken, published, places, strict=True):
            line = {"arrowstyle": "-", "color": svg.MUTED, "linewidth": 0.5}
            axes.annotate(one.name, (x, y), (1.12 * x, place), va="center", fontsize=9, arrowprops=line)
        score = "top-1 accuracy, %" if problem.accuracy.is_accuracy else "MACs, millions"
        axes.set(xlabel=f"{problem.metrics[0].name}, ms", ylabel=score)
    hover = {
        "front": [
            f"{latency(price)}{' simulated' if problem.simulated else ''} · {_text(problem, network.accuracy[0])}"
            for price, network in zip(prices, found.best, strict=True)
        ],
        "references": [f"{one.name} · {latency(one.latency_ms)} measured" for one in references],
    }
    of = "simulated latency" if problem.simulated else "latency"
    return svg.inline(figure, "front", f"Accuracy over {of} of the networks on the Pareto front", hover)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Move labels up so that they do not overlap."""
    places: dict[int, float] = {}
    below = -np.inf
    for at in np.argsort(heights):
        below = places[int(at)] = max(float(heights[at]), below + least)
    return [places[at] for at in range(len(heights))]


def _text(problem: Problem, score: float) -> str:
    return percent(score) if problem.accuracy.is_accuracy else _macs(score)


def _macs(count: float) -> str:
    return f"{count / 1e6:,.0f} M"
