"""Fit the parameters of an engine to measured latencies: four scales, one for each term of the model."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_agent.operators import Block
from ofa_nas.spaces import Space, architecture_in
from ofa_profiler.simulation.engine import TERMS, Engine, FloatArray
from ofa_tables.errors import FileError
from ofa_tables.formats.csv_file import read_rows
from ofa_tables.formats.format import PublishedEntry, short

# Keeps a scale near 1 if the measurements do not determine it: its error counts as much as this relative error of one
# measurement.
PRIOR = 0.02
SMALLEST_SCALE = 0.01
ROUNDS = 20


@dataclass(frozen=True)
class Fit:
    """``scales`` by term. ``error_before`` and ``error`` are mean absolute relative errors on the same ``rows``."""

    file: str
    rows: int
    scales: dict[str, float]
    error_before: float
    error: float

    def __str__(self) -> str:
        scales = ", ".join(f"{term} × {scale:.3g}" for term, scale in self.scales.items())
        return f"{scales}; mean error on the {self.rows} rows {self.error_before:.1%} before, {self.error:.1%} after"


def fit(engine: Engine, file: Path, space: Space, batch: int, precision: str) -> tuple[Engine, Fit]:
    """Scale the parameters by non-negative least squares on the relative errors. Raises FileError.

    The rows of ``file`` (CSV) have a ``key`` and a ``latency_ms``. A key is that of a block, or the JSON of an
    architecture for a whole network.
    """
    rows = [row for row in read_rows(file) if row.latency_ms is not None]
    if not rows:
        raise FileError(f"{file} has no latencies; add rows with key and latency_ms")
    if marked := next((row for row in rows if row.simulated), None):
        raise FileError(f"{file}, line {marked.line}: {short(marked.key)} is simulated; fit only measured latencies")
    blocks = _blocks(file, rows, space)
    measured_ms = np.array([row.latency_ms for row in rows], dtype=float)

    def terms_ms(scales: FloatArray) -> FloatArray:
        scaled = engine.scaled(scales)
        return np.array([scaled.terms_ms(block, batch, precision) for block in blocks])

    def error(scales: FloatArray) -> float:
        return float(np.abs(terms_ms(scales).sum(axis=1) / measured_ms - 1).mean())

    scales = best = np.ones(len(TERMS))
    for _ in range(ROUNDS):  # the term that dominates a layer can change with the scales
        shares = terms_ms(scales) / scales / measured_ms[:, None]
        scales = np.maximum(_least_squares(shares), SMALLEST_SCALE)
        best = min(best, scales, key=error)
    by_term = dict(zip(TERMS, map(float, best), strict=True))
    return engine.scaled(best), Fit(str(file), len(rows), by_term, error(np.ones(len(TERMS))), error(best))


def _least_squares(shares: FloatArray) -> FloatArray:
    """Return (4,) non-negative scales that minimise |shares · scales − 1|² + (PRIOR · |scales − 1|)².

    Every set of scales that are zero is tried, which is exact and fast for four scales.
    """
    count = shares.shape[1]
    rows, wanted = np.vstack([shares, PRIOR * np.eye(count)]), np.append(np.ones(len(shares)), np.full(count, PRIOR))
    best, least = np.zeros(count), np.inf
    for free in itertools.product((False, True), repeat=count):
        scales = np.zeros(count)
        scales[list(free)] = np.linalg.lstsq(rows[:, list(free)], wanted, rcond=None)[0]
        off = float(((rows @ scales - wanted) ** 2).sum())
        if scales.min() >= 0 and off < least:
            best, least = scales, off
    return best


def _blocks(file: Path, rows: Sequence[PublishedEntry], space: Space) -> list[Block]:
    by_key = {block.key: block for px in space.resolutions_px for block in space.blocks(px)}
    return [by_key.get(row.key) or _network(file, row, space) for row in rows]


def _network(file: Path, row: PublishedEntry, space: Space) -> Block:
    try:
        value = json.loads(row.key)
    except ValueError:
        raise FileError(
            f"{file}, line {row.line}: {space.name} has no block {short(row.key)}; use a key of ofa-table show --keys, "
            "or the JSON of an architecture"
        ) from None
    return space.network(architecture_in(value, space))
