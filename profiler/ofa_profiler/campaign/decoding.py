"""Decode the results of a trial into Measurements."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ofa_agent.conditions.thermal import hottest_c
from ofa_agent.text import one_line
from ofa_tables.layers import layer_key
from ofa_tables.store.measurement import (
    DEVICE,
    DEVICE_MS,
    GAP_MS,
    HOT,
    LAUNCH_MS,
    LAYERS_ERROR,
    PEAK_MB,
    POWER_OF,
    POWER_W,
    REFERENCE_MEAN_MS,
    THROTTLED,
    Measurement,
    statistics,
)


def measurement_of(message: Any, number: int, device: str = "") -> Measurement:
    """The Measurement of a whole job, in round ``number``; ``device`` names it if several share the campaign."""
    measurement = Measurement(
        trial_id=message.trial_id,
        key=message.key,
        status=message.status,
        error=message.error,
        round=number,
        warmup_runs=message.warmup_runs,
        first_ns=message.first_ns,
        timed_ns=message.timed_ns,
        load_ns=message.load_ns,
        warm=message.warm,
        narrow=message.narrow,
        reference_before_ns=message.reference_before_ns,
        reference_after_ns=message.reference_after_ns,
        condition=_json({**_condition(message, device), **_gpu_times([message])}),
        started_at=message.started_at,
    )
    if message.status != "ok":
        return measurement
    if not message.samples_ns:
        return replace(measurement, **_of_summary(message.summary))
    return replace(measurement, **statistics(message.samples_ns))


def is_divided(message: Any) -> bool:
    """Whether the trial was to time parts of the job, too."""
    return bool(message.parts or message.layers or message.layers_error)


def latency_ms(message: Any) -> float:
    """The median latency of one run in ms; the mean if the runtime reports nothing else."""
    if message.samples_ns:
        return float(np.median(message.samples_ns)) / 1e6
    return (message.summary.median_ns or message.summary.mean_ns) / 1e6


def _of_summary(summary: Any) -> dict[str, Any]:
    """The fields of a Measurement for which the runtime reports no samples."""
    return {
        "count": summary.count,
        "median_ms": (summary.median_ns or summary.mean_ns) / 1e6,
        "mean_ms": summary.mean_ns / 1e6,
        "std_ms": summary.std_ns / 1e6,
    }


def parts_of(message: Any, whole: Measurement) -> list[Measurement]:
    """One Measurement for each block that was timed inside a network, or for each layer of a model file.

    A block that occurs twice gets all samples.
    """
    occurrences: dict[str, list[Any]] = defaultdict(list)
    for part in message.parts:
        occurrences[part.key].append(part)
    alike: Counter[tuple[str, str, int]] = Counter()
    for layer in message.layers:
        named = layer.operator, layer.name, layer.bytes
        occurrences[layer_key(message.key, alike[named], *named)].append(layer)
        alike[named] += 1
    inside = replace(
        whole,
        timed_ns=0,
        reference_before_ns=message.reference_before_parts_ns,
        reference_after_ns=message.reference_before_ns,
    )
    of_network = json.loads(whole.condition)
    on_gpu = any(part.device_ns for part in message.parts)
    return [
        replace(
            inside,
            trial_id=f"{whole.trial_id}/{index}",
            key=key,
            condition=_json({**of_network, **_gpu_times(parts)}) if on_gpu else whole.condition,
            **statistics([sample for part in parts for sample in part.samples_ns]),
        )
        for index, (key, parts) in enumerate(occurrences.items())
    ]


def _gpu_times(occurrences: Sequence[Any]) -> dict[str, float]:
    """The times on GPU and host, means over the occurrences of a block, in ms; 0 without a GPU."""
    return {
        name: round(float(np.mean([getattr(part, field, 0) for part in occurrences])) / 1e6, 6)
        for name, field in ((DEVICE_MS, "device_ns"), (LAUNCH_MS, "launch_ns"), (GAP_MS, "gap_ns"))
    }


def _condition(message: Any, device: str) -> dict[str, Any]:
    """The condition of the device and its changes during the trial."""
    before, after = message.condition_before, message.condition_after
    throttled = before.throttled or after.throttled or after.throttle_count > before.throttle_count
    return {
        "clock_mhz": [before.clock_mhz, after.clock_mhz],
        "gpu_clock_mhz": [before.gpu_clock_mhz, after.gpu_clock_mhz],
        "temperature_c": [_hottest(before), _hottest(after)],
        "load": [before.load, after.load],
        "stolen_s": round(after.stolen_s - before.stolen_s, 2),
        "involuntary_switches": after.involuntary_switches - before.involuntary_switches,
        "cooled_s": round(message.cooled_s, 1),
        POWER_W: round(message.power_w, 4),
        POWER_OF: message.power_of,
        REFERENCE_MEAN_MS: round(message.reference_mean_ns / 1e6, 4),
        HOT: before.hot or after.hot,
        THROTTLED: throttled,
        DEVICE: device,
        PEAK_MB: round(message.peak_bytes / 1e6, 2),
        LAYERS_ERROR: one_line(message.layers_error),
    }


def _json(facts: Mapping[str, Any]) -> str:
    """The facts as JSON, without unknown values."""
    return json.dumps(
        {name: value for name, value in facts.items() if any(value if isinstance(value, list) else [value])}
    )


def _hottest(condition: Any) -> float:
    return hottest_c(condition.temperatures_c) or 0.0
