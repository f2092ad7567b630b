"""How long a model file and its layers took: what reports and ``--json`` are made of."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ofa_profiler.models.matching import Matcher
from ofa_profiler.models.model_file import ModelFile
from ofa_tables.estimates.entry import (
    FEWEST_TRIALS,
    MEDIAN_TO_MEAN,
    UNSTABLE,
    UNSTABLE_HALF_WIDTH,
    Entry,
    students_t,
)
from ofa_tables.identity import Identity
from ofa_tables.layers import LayerKey, parse_layer_key
from ofa_tables.store.measurement import LAYERS_ERROR, PEAK_MB
from ofa_tables.table import LatencyTable
from ofa_tables.words import counted

FLOPS = 2  # of one multiply-accumulate
SLOWEST = 3  # layers that are named first
LEAST_MS = 5e-6  # layers below are not executed: the runtime reports that they take no time


@dataclass(frozen=True)
class LayerProfile:
    """A layer in place. None: unknown.

    ``share`` is that of the whole model, and ``half_width`` half the 95 % interval of the share, relative to it. The
    interval of the whole model comes on top, for all layers alike.
    """

    name: str
    operator: str
    latency_ms: float
    half_width: float | None
    share: float
    macs: int | None = None
    moved_bytes: int | None = None

    @property
    def gflops(self) -> float | None:
        """Billions of floating-point operations in a second: two for each MAC."""
        return FLOPS * self.macs / self.latency_ms / 1e6 if self.macs and self.latency_ms > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "operator": self.operator,
            "latency_ms": self.latency_ms,
            "half_width": self.half_width,
            "share": self.share,
            "macs": self.macs,
            "gflops": self.gflops,
            "bytes": self.moved_bytes,
        }


@dataclass(frozen=True)
class ModelProfile:
    """A model file on one device. None: unknown. If ``failure`` is set, nothing was measured.

    ``half_width`` is half the 95 % interval, relative to the latency. ``first_ms`` is the first run, ``load_ms`` the
    time to load the model, ``peak_mb`` the most memory that both took. ``layers_error`` says why there are no layers.
    """

    name: str
    key: str
    table: str
    identity: Identity
    chip: str
    inputs: tuple[str, ...]
    file_bytes: int
    macs: int | None
    parameters: int | None
    latency_ms: float = float("nan")
    half_width: float | None = None
    first_ms: float | None = None
    load_ms: float | None = None
    peak_mb: float | None = None
    energy_mj: float | None = None
    trials: int = 0
    flags: tuple[str, ...] = ()
    layers: tuple[LayerProfile, ...] = ()
    layers_error: str = ""
    failure: str = ""

    @property
    def layers_ms(self) -> float:
        """The sum of the layers."""
        return sum(layer.latency_ms for layer in self.layers)

    @property
    def between_ms(self) -> float:
        """What the model takes beyond its layers: the runtime calls kernels and moves between them."""
        return max(0.0, self.latency_ms - self.layers_ms) if self.layers else 0.0

    @property
    def gflops(self) -> float | None:
        return FLOPS * self.macs / self.latency_ms / 1e6 if self.macs and self.latency_ms > 0 else None

    @property
    def slowest(self) -> list[LayerProfile]:
        """The layers that take longest, the slowest first."""
        return sorted(self.layers, key=lambda layer: -layer.latency_ms)[:SLOWEST]

    @property
    def advice(self) -> str:
        """What to do if the latency is too uncertain; empty if it is not."""
        if UNSTABLE not in self.flags:
            return ""
        return (
            f"the interval is wider than ±{UNSTABLE_HALF_WIDTH:.0%}: the device was probably busy; run the command "
            "again with --effort thorough while nothing else runs there"
        )

    def __repr__(self) -> str:
        made = self.identity
        what = self.failure or f"{self.latency_ms:.4g} ms, {counted(len(self.layers), 'layer')}"
        return f"ModelProfile({self.name!r} on {made.target}, {made.runtime}: {what})"

    def to_json(self) -> dict[str, Any]:
        if self.failure:
            return {"model": self.name, **self._where(), "failure": self.failure}
        return {
            "model": self.name,
            **self._where(),
            "inputs": list(self.inputs),
            "file_bytes": self.file_bytes,
            "latency_ms": self.latency_ms,
            "half_width": self.half_width,
            "first_ms": self.first_ms,
            "load_ms": self.load_ms,
            "peak_mb": self.peak_mb,
            "energy_mj": self.energy_mj,
            "macs": self.macs,
            "gflops": self.gflops,
            "parameters": self.parameters,
            "trials": self.trials,
            "flags": list(self.flags),
            "layers_ms": self.layers_ms if self.layers else None,
            "between_ms": self.between_ms if self.layers else None,
            "layers_error": self.layers_error,
            "layers": [layer.to_json() for layer in self.layers],
        }

    def _where(self) -> dict[str, Any]:
        made, settings = self.identity, self.identity.settings
        return {
            "target": made.target,
            "chip": self.chip,
            "runtime": made.runtime,
            "runtime_version": made.runtime_version,
            "precision": settings.precision,
            "threads": settings.threads,
            "table": self.table,
        }


def profile_of(table: LatencyTable, file: ModelFile, failure: str = "") -> ModelProfile:
    """Return what the table knows about a model file. ``failure`` is used if it has no measurement."""
    entry = table.entry(file.key)
    made = ModelProfile(
        name=file.name,
        key=file.key,
        table=str(table.path),
        identity=table.identity,
        chip=str(table.device.get("chip", "")),
        inputs=tuple(map(str, file.inputs)),
        file_bytes=len(file.content),
        macs=file.macs,
        parameters=file.parameters,
    )
    if entry is None or entry.failure:
        return replace(made, failure=failure or (entry.failure if entry else "") or "it was not measured")
    trials = [trial for trial in table.measurements if trial.key == file.key and trial.ok]
    conditions = [json.loads(trial.condition or "{}") for trial in trials]
    layers = tuple(_layers(table, file, entry))
    errors = [str(condition[LAYERS_ERROR]) for condition in conditions if LAYERS_ERROR in condition]
    return replace(
        made,
        latency_ms=entry.latency_ms,
        half_width=entry.half_width,
        first_ms=_median([trial.first_ns / 1e6 for trial in trials]),
        load_ms=_median([trial.load_ns / 1e6 for trial in trials]),
        peak_mb=max((float(condition.get(PEAK_MB, 0)) for condition in conditions), default=0.0) or None,
        energy_mj=entry.energy_mj,
        trials=entry.trials,
        flags=entry.flags,
        layers=layers,
        layers_error="" if layers else (errors or [""])[-1],
    )


def _layers(table: LatencyTable, file: ModelFile, whole: Entry) -> Iterator[LayerProfile]:
    """Yield the layers in order of execution.

    In each trial, a layer has a share of the whole model, both at the speed that the device had for each. Its latency
    is the median share of the latency of the whole model: the speed of a trial is in neither.
    """
    matcher = Matcher(file.operators)
    trials, found = _shares(table, file)
    for key, in_trials in sorted(found.items(), key=lambda item: np.median([place for place, _ in item[1]])):
        shares = [share for _, share in in_trials]
        operator = matcher.find(key.name, key.operator)
        share = float(np.median(shares + [0.0] * (trials - len(shares))))
        if share * whole.latency_ms < LEAST_MS:
            continue
        yield LayerProfile(
            name=(operator.label or operator.name) if operator else key.name,
            operator=key.operator or (operator.kind if operator else ""),
            latency_ms=share * whole.latency_ms,
            half_width=_half_width(shares),
            share=share,
            macs=operator.macs if operator else None,
            moved_bytes=(operator.moved_bytes if operator else None) or key.moved_bytes or None,
        )


def _shares(table: LatencyTable, file: ModelFile) -> tuple[int, dict[LayerKey, list[tuple[int, float]]]]:
    """Return the number of trials with layers, and the place and the share of each layer in each.

    Disturbed trials count only if there are too few others.
    """
    wholes = [trial for trial in table.measurements if trial.key == file.key and trial.ok and trial.median_ms]
    steady = {trial.trial_id for trial in table.measured.steady(wholes)}
    steady = steady if len(steady) >= FEWEST_TRIALS else {trial.trial_id for trial in wholes}
    of_trial = {trial.trial_id: trial for trial in wholes if trial.trial_id in steady}
    shares: dict[LayerKey, list[tuple[int, float]]] = defaultdict(list)
    divided = set()
    for layer in table.measurements:
        whole, key = of_trial.get(layer.taken_with), parse_layer_key(layer.key)
        if whole is not None and key is not None and key.digest == file.digest and layer.median_ms:
            assert whole.median_ms is not None
            speed = 1.0
            if whole.reference_ms and layer.reference_ms:
                speed = whole.reference_ms / layer.reference_ms
            place = int(layer.trial_id.rpartition("/")[2])
            shares[key].append((place, speed * layer.median_ms / whole.median_ms))
            divided.add(whole.trial_id)
    return len(divided), shares


def _half_width(shares: Sequence[float]) -> float | None:
    if len(shares) < 2:
        return None
    error = MEDIAN_TO_MEAN * float(np.std(np.log(shares), ddof=1)) / np.sqrt(len(shares))
    return float(students_t(max(3, len(shares) - 1)) * error)


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if value]
    return float(np.median(known)) if known else None
