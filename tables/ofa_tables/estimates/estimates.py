"""Estimates: a latency with an interval for every entry that was asked for, measured or not.

``estimate`` fits the cost model to the measured entries. The latencies of the measured entries are combined with what
the model says of them, by precision, so that one disturbed trial does not make an entry.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ofa_agent.operators import Block
from ofa_tables.estimates.cost_model import CostModel
from ofa_tables.estimates.entry import FEW_SAMPLES, UNSTABLE, UNSTABLE_HALF_WIDTH, Entry
from ofa_tables.estimates.physics import FloatArray, Works
from ofa_tables.estimates.prior import Hypotheses, Mixture, PriorTable, observed

PREDICTED = "predicted"  # flag of an entry without trials
PARTLY = "partly-measured"  # flag of an entry whose trials count less than what the model says

# The common errors of the entries are stored as this number of factors at most; they leave at most this fraction of
# the variance to the entries alone.
MOST_FACTORS = 96
LEFT_TO_ENTRIES = 0.01
MOST_LOG = 60.0  # of a stored value: e⁶⁰ ms are longer than any latency
FREEDOM = 100.0  # degrees of freedom of an estimated entry

# The times of a block on a GPU and on its host, and the relative error of those that were measured.
GPU_TIMES = ("device_ms", "launch_ms")
GPU_ERROR = 0.02


@dataclass(frozen=True)
class Estimates:
    """Latencies of blocks, and what is unknown about them.

    ``log_ms`` (blocks,). Their covariance is ``factors`` · ``factors``ᵀ + diag(``own``²), with ``factors`` (blocks,
    rank): entries that err together are known to. ``weights`` are those of the prior tables, by name. ``of`` identifies
    the measurements that the estimates were made from. ``gpu_log_ms`` has (blocks,) log times in ms by name
    (GPU_TIMES); it is empty unless all measured blocks have these times.
    """

    keys: tuple[str, ...]
    log_ms: FloatArray
    factors: FloatArray
    own: FloatArray
    weights: Mapping[str, float]
    of: str
    gpu_log_ms: Mapping[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def row(self) -> Mapping[str, int]:
        """The row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def errors(self) -> FloatArray:
        """(blocks,) relative standard errors."""
        return np.sqrt((self.factors**2).sum(axis=1) + self.own**2)

    def entry(self, key: str, measured: Entry | None, common_error: float = 0.0) -> Entry | None:
        """Combine the measured entry with the estimate of its key; return it unchanged without an estimate.

        ``common_error`` is the relative error that all entries of the table have in common.
        """
        row = self.row.get(key)
        if row is None or (measured is not None and measured.failure):
            return measured
        latency_ms, error = float(np.exp(self.log_ms[row])), float(self.errors[row])
        base = measured or self._predicted(key, latency_ms)
        flags = [flag for flag in base.flags if flag not in (UNSTABLE, FEW_SAMPLES)]
        if base.trial_error is not None and base.trial_error > np.sqrt(2) * error:
            flags.append(PARTLY)
        estimated = replace(
            base,
            latency_ms=latency_ms,
            standard_error=float(np.hypot(error, common_error)),
            degrees_of_freedom=FREEDOM,
            flags=tuple(flags),
        )
        return estimated.flagged(UNSTABLE) if (estimated.half_width or 0.0) > UNSTABLE_HALF_WIDTH else estimated

    def _predicted(self, key: str, latency_ms: float) -> Entry:
        gpu = {name: float(np.exp(log_ms[self.row[key]])) for name, log_ms in self.gpu_log_ms.items()}
        entry = Entry(key, latency_ms, latency_ms, 0.0, 0.0, 0, 0, flags=(PREDICTED,))
        return replace(entry, device_ms=gpu.get("device_ms"), launch_ms=gpu.get("launch_ms"))

    def to_json(self) -> dict[str, Any]:
        arrays = {name: _packed(getattr(self, name)) for name in ("log_ms", "factors", "own")}
        arrays |= {name: _packed(log_ms) for name, log_ms in self.gpu_log_ms.items()}
        return {"keys": list(self.keys), "weights": dict(self.weights), "of": self.of, **arrays}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Estimates":
        """Read what ``to_json`` returned. Raises ValueError if the arrays do not belong together."""
        keys = tuple(value["keys"])
        log_ms, own = _unpacked(value["log_ms"], len(keys), 1), _unpacked(value["own"], len(keys), 1)
        factors = _unpacked(value["factors"], len(keys))
        gpu = {name: _unpacked(value[name], len(keys), 1)[:, 0] for name in GPU_TIMES if name in value}
        return cls(keys, log_ms[:, 0], factors, own[:, 0], value["weights"], value["of"], gpu)


def estimate(
    blocks: Sequence[Block], entries: Sequence[Entry], of: str, priors: Sequence[PriorTable] = ()
) -> Estimates | None:
    """Estimate the latencies of ``blocks`` from the measured ``entries``; None without any. ``of`` see Estimates."""
    mixture = fitted(Hypotheses(blocks, priors), blocks, entries)
    return None if mixture is None else estimates_of(mixture, blocks, entries, of)


def fitted(hypotheses: Hypotheses, blocks: Sequence[Block], entries: Sequence[Entry]) -> Mixture | None:
    """Fit the hypotheses for ``blocks`` to the measured ``entries`` of these blocks; None without any."""
    number = {block.key: row for row, block in enumerate(blocks)}
    measured = [entry for entry in entries if (entry.measured_ms or 0.0) > 0 and entry.key in number]
    if not measured:
        return None
    return hypotheses.fit([number[entry.key] for entry in measured], *observed(measured))


def estimates_of(mixture: Mixture, blocks: Sequence[Block], entries: Sequence[Entry], of: str) -> Estimates:
    """Return the estimates of ``blocks`` by a mixture that was fitted to ``entries``; ``of`` see Estimates."""
    factors, own = _factored(mixture.covariance)
    keys = tuple(block.key for block in blocks)
    return Estimates(keys, mixture.mean, factors, own, mixture.weights, of, _gpu_times(blocks, entries))


def _gpu_times(blocks: Sequence[Block], entries: Sequence[Entry]) -> dict[str, FloatArray]:
    """Return (blocks,) log times in ms by name, from the cost model of each; empty if a measured block lacks one."""
    number = {block.key: row for row, block in enumerate(blocks)}
    measured = [entry for entry in entries if (entry.measured_ms or 0.0) > 0 and entry.key in number]
    times = np.array([[entry.device_ms or 0.0, entry.launch_ms or 0.0] for entry in measured])
    if not measured or (times <= 0).any() or len(measured) == len(blocks):
        return {}
    model, rows = CostModel(Works.of(blocks)), [number[entry.key] for entry in measured]
    errors = np.full(len(rows), GPU_ERROR)
    return {name: model.fit(rows, np.log(times[:, at]), errors).mean for at, name in enumerate(GPU_TIMES)}


def _factored(covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Split a covariance (n, n) into factors (n, rank) and the standard deviations (n,) that are left.

    A pivoted Cholesky decomposition (Harbrecht, Peters and Schneider 2012) that stops early.
    """
    left = np.diag(covariance).copy()
    whole = float(left.sum())
    columns: list[FloatArray] = []
    while len(columns) < min(MOST_FACTORS, len(left)) and left.sum() > LEFT_TO_ENTRIES * whole:
        pivot = int(np.argmax(left))
        column = covariance[:, pivot] - sum((known * known[pivot] for known in columns), np.zeros(len(left)))
        column = column / np.sqrt(left[pivot])
        columns.append(column)
        left = np.maximum(left - column**2, 0.0)
    return np.array(columns).reshape(len(columns), len(left)).T, np.sqrt(left)


def _packed(values: FloatArray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _unpacked(text: str, rows: int, columns: int | None = None) -> FloatArray:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(float)
    if not rows or len(values) % rows or not (np.abs(values) <= MOST_LOG).all():
        raise ValueError("the estimates do not have one finite value per key")
    array = values.reshape(rows, -1)
    if columns is not None and array.shape[1] != columns:
        raise ValueError("the estimates do not have one value per key")
    return array
