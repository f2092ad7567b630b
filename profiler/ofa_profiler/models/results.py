"""How long a model file and its layers took: what reports and ``--json`` are made of."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ofa_profiler.models.matching import Matcher
from ofa_profiler.models.model_file import ModelFile
from ofa_tables.identity import Identity
from ofa_tables.layers import LayerKey, parse_layer_key
from ofa_tables.store.measurement import LAYERS_ERROR, PEAK_MB
from ofa_tables.table import LatencyTable

FLOPS = 2  # of one multiply-accumulate


@dataclass(frozen=True)
class LayerProfile:
    """A layer in place, in order of execution. None: unknown.

    ``half_width`` is half the 95 % interval, relative to the latency. ``share`` is that of the whole model.
    """

    index: int
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
            "index": self.index,
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
    layers = tuple(_layers(table, file, entry.latency_ms))
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


def _layers(table: LatencyTable, file: ModelFile, whole_ms: float) -> Iterator[LayerProfile]:
    matcher = Matcher(file.operators)
    found: list[tuple[LayerKey, Any]] = []
    for entry in table.entries:
        key = parse_layer_key(entry.key)
        if key is not None and key.digest == file.digest and not entry.failure:
            found.append((key, entry))
    for key, entry in sorted(found, key=lambda pair: pair[0].index):
        operator = matcher.find(key.name, key.operator)
        yield LayerProfile(
            index=key.index,
            name=(operator.label or operator.name) if operator else key.name,
            operator=key.operator or (operator.kind if operator else ""),
            latency_ms=entry.latency_ms,
            half_width=entry.half_width,
            share=entry.latency_ms / whole_ms,
            macs=operator.macs if operator else None,
            moved_bytes=(operator.moved_bytes if operator else None) or key.moved_bytes or None,
        )


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if value]
    return float(np.median(known)) if known else None
