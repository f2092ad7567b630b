"""Plots of the report. Each takes a Comparison with at least one network and returns inline SVG."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ofa_profiler.comparison.statistics import (
    ComparedNetwork,
    Comparison,
    FloatArray,
    noise_errors,
    passes_of,
    relative_errors,
)
from ofa_profiler.report import svg
from ofa_profiler.report.format import latency, percent, printable

# In points, which are the units of the SVG: narrow enough to be readable on a phone.
WIDTH, HEIGHT = 420, 330
LIKELY = 0.10


def predicted_measured(comparison: Comparison) -> Markup:
    """Plot measured over predicted latency; a bar connects the two passes of a network."""
    with matplotlib.style.context(svg.STYLE):
        figure, axes = figure_of()
        passes, predicted = comparison.passes_ms, comparison.predicted_ms
        both = np.concatenate([passes.ravel(), predicted, comparison.raw_ms])
        low, high = both.min() * 0.9, both.max() * 1.06
        ends = np.array([low, high])
        axes.fill_between(ends, ends * (1 - LIKELY), ends * (1 + LIKELY), color=svg.NOISE, alpha=0.14, linewidth=0)
        axes.plot(ends, ends, color=svg.MUTED, linewidth=0.9)
        hover = {}
        if comparison.calibration is not None:
            points(axes, comparison.raw_ms, passes.mean(axis=0), svg.RAW, hollow=True)
        _bars(axes, predicted, passes, _colour(comparison))
        hover["networks"] = _hover(comparison)
        points(axes, predicted, passes.mean(axis=0), _colour(comparison), gid="networks")
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="predicted, ms", ylabel="measured, ms")
    return svg.inline(figure, "scatter", "Measured over predicted latency of every tested network", hover)


def error_histogram(comparison: Comparison) -> Markup:
    """Plot histograms of the raw errors, the calibrated errors, and the differences between passes on one axis."""
    passes = comparison.passes_ms
    series = [("raw sum", relative_errors(comparison.raw_ms, passes), svg.RAW)]
    if comparison.calibrated_ms is not None:
        series.append(("calibrated", relative_errors(comparison.calibrated_ms, passes), svg.CALIBRATED))
    series.append(("pass vs. pass", noise_errors(passes), svg.NOISE))
    edges = _edges(np.concatenate([values.ravel() for _, values, _ in series]))
    with matplotlib.style.context(svg.STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        for axes, (name, values, colour) in zip(
            figure.subplots(len(series), sharex=True, sharey=True, squeeze=False)[:, 0], series, strict=True
        ):
            flat = values.ravel()
            axes.hist(flat, bins=edges, weights=np.full(flat.size, 1 / flat.size), color=colour, rwidth=0.92)
            axes.axvline(0, color=svg.INK, linewidth=0.8)
            axes.set_title(name, loc="left", color=svg.INK, fontsize=10.5, pad=3)
            axes.set_title(
                f"mean {percent(flat.mean(), signed=True)}", loc="right", color=svg.MUTED, fontsize=10, pad=3
            )
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(_percent_ticks())
        axes.set_xlabel("relative error")
    return svg.inline(figure, "errors", "Histograms of the errors and of the differences between passes")


def error_by_latency(comparison: Comparison) -> Markup:
    """Plot the prediction error over measured latency; a bar connects the two passes of a network."""
    relative = relative_errors(comparison.predicted_ms, comparison.passes_ms)
    measured = comparison.passes_ms.mean(axis=0)
    floor = float(np.abs(noise_errors(comparison.passes_ms)).mean())
    with matplotlib.style.context(svg.STYLE):
        figure, axes = figure_of()
        axes.axhspan(-floor, floor, color=svg.NOISE, alpha=0.2, linewidth=0)
        axes.axhline(0, color=svg.INK, linewidth=0.8)
        _bars(axes, measured, relative, _colour(comparison))
        flagged = np.array([bool(network.flags) for network in comparison.networks])
        middle = relative.mean(axis=0)
        titles = np.array(_hover(comparison))
        for gid, which in (("clean", ~flagged), ("flagged", flagged)):
            points(axes, measured[which], middle[which], _colour(comparison), gid=gid, hollow=gid == "flagged")
        reach = 1.15 * max(float(np.abs(relative).max()), floor, 0.01)
        axes.set(ylim=(-reach, reach), xlabel="measured, ms", ylabel="prediction error")
        axes.yaxis.set_major_formatter(_percent_ticks())
    hover = {"clean": titles[~flagged].tolist(), "flagged": titles[flagged].tolist()}
    return svg.inline(figure, "residuals", "Prediction error over measured latency", hover)


def latency_by_macs(comparison: Comparison) -> Markup:
    """Plot measured latency over MACs, and the line fitted on the calibration networks."""
    macs = np.array([network.macs for network in comparison.networks]) / 1e6
    calibration_networks = comparison.calibration_networks
    with matplotlib.style.context(svg.STYLE):
        figure, axes = figure_of()
        if comparison.macs_line is not None:
            fitted = np.array([network.macs for network in calibration_networks]) / 1e6
            ends = np.array([min(macs.min(), fitted.min()), max(macs.max(), fitted.max())])
            axes.plot(ends, comparison.macs_line(ends * 1e6), color=svg.BASELINE, linewidth=1.4)
            points(axes, fitted, passes_of(calibration_networks).mean(axis=0), svg.BASELINE, marker="s", hollow=True)
        _bars(axes, macs, comparison.passes_ms, svg.INK)
        points(axes, macs, comparison.passes_ms.mean(axis=0), svg.INK, gid="networks")
        axes.set(xlabel="MACs, millions", ylabel="measured, ms")
    hover = {
        "networks": [f"{title} · {mega:,.0f} M MACs" for title, mega in zip(_hover(comparison), macs, strict=True)]
    }
    return svg.inline(figure, "macs", "Measured latency over multiply-accumulates", hover)


def stages_ms(comparison: Comparison, picked: Sequence[tuple[str, ComparedNetwork]]) -> Markup:
    """Plot the raw sum by stage, and the measured latency, in ms."""
    with matplotlib.style.context(svg.STYLE):
        figure, axes = _stacked(comparison, picked, lambda network: np.array(network.stage_ms))
        for row, (_, network) in enumerate(picked):
            axes.plot([network.measured_ms] * 2, [row - 0.29, row + 0.29], color=svg.INK, linewidth=2.2)
        ends = [max(sum(network.stage_ms), network.measured_ms) for _, network in picked]
        axes.set(xlim=(0, 1.02 * max(ends)), xlabel="ms")
    return svg.inline(figure, "stage-ms", "Latency by stage of the network")


def stages_share(comparison: Comparison, picked: Sequence[tuple[str, ComparedNetwork]]) -> Markup:
    """Plot the share of each stage in the raw sum."""
    with matplotlib.style.context(svg.STYLE):
        figure, axes = _stacked(comparison, picked, lambda network: _share(network.stage_ms))
        for row, (_, network) in enumerate(picked):
            share = _share(network.stage_ms)
            for colour, part, end in zip(stage_colours(len(share)), share, np.cumsum(share), strict=True):
                if part >= 0.07:
                    ink = "#ffffff" if _dark(colour) else "#111111"
                    axes.text(
                        end - part / 2, row, f"{100 * part:.0f}", ha="center", va="center", color=ink, fontsize=10
                    )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes.set(xlim=(0, 1), xlabel="share of the raw sum")
    return svg.inline(figure, "stage-share", "Share of each stage in the latency")


def stage_colours(count: int) -> list[str]:
    """Return ordered colours that differ in lightness (viridis)."""
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0.1, 0.93, max(count, 1)))]


def _stacked(
    comparison: Comparison,
    picked: Sequence[tuple[str, ComparedNetwork]],
    parts: Callable[[ComparedNetwork], FloatArray],
) -> tuple[Figure, Axes]:
    figure, axes = figure_of(height=64 * len(picked) + 52)
    colours = stage_colours(len(comparison.stages))
    for row, (_, network) in enumerate(picked):
        widths = parts(network)
        starts = np.cumsum(widths) - widths
        axes.barh([row] * len(widths), widths, left=starts, height=0.42, color=colours, edgecolor=svg.PAPER, lw=0.8)
        title = f"{picked[row][0]} · {latency(network.raw_ms)}"
        axes.text(0, row - 0.33, title, ha="left", va="bottom", color=svg.INK, fontsize=10.5)
    axes.set(ylim=(len(picked) - 0.6, -0.8), yticks=[])
    axes.spines["left"].set_visible(False)
    return figure, axes


def _share(stage_ms: Sequence[float]) -> FloatArray:
    parts = np.array(stage_ms, dtype=np.float64)
    return parts / parts.sum() if parts.sum() > 0 else parts


def figure_of(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.subplots()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    return figure, axes


def points(
    axes: Axes, x: Any, y: Any, colour: str, gid: str | None = None, marker: str = "o", hollow: bool = False
) -> None:
    size = 32 if len(x) <= 60 else 15
    face, edge, width = ("none", colour, 0.9) if hollow else (colour, svg.PAPER, 0.5)
    axes.scatter(x, y, s=size, marker=marker, facecolors=face, edgecolors=edge, linewidths=width, gid=gid, zorder=3)


def _bars(axes: Axes, x: FloatArray, ends: FloatArray, colour: str) -> None:
    axes.vlines(x, ends[0], ends[1], color=colour, linewidth=1.1, alpha=0.6, zorder=2)


def _colour(comparison: Comparison) -> str:
    return svg.RAW if comparison.calibration is None else svg.CALIBRATED


def _hover(comparison: Comparison) -> list[str]:
    relative = relative_errors(comparison.predicted_ms, comparison.passes_ms).mean(axis=0)
    return [
        f"{printable(network.name)} · predicted {latency(predicted)}, measured "
        f"{latency(network.passes_ms[0])} and {latency(network.passes_ms[1])} · {percent(error, signed=True)}"
        for network, predicted, error in zip(comparison.networks, comparison.predicted_ms, relative, strict=True)
    ]


def _edges(values: FloatArray) -> FloatArray:
    """Return the edges of at most about 40 bins of a round width; one edge is 0."""
    low, high = min(values.min(), -0.01), max(values.max(), 0.01)
    width = next((w for w in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / w <= 40), 0.0)
    width = width or (high - low) / 40
    return width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)


def _percent_ticks() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{100 * value:+g} %".replace("-", "−") if round(value, 9) else "0")


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
