"""A comparison as a table with one row per network."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ofa_nas.references import MeasuredReference
from ofa_profiler.comparison.statistics import (
    CALIBRATION,
    REFERENCE,
    TEST,
    ComparedNetwork,
    Comparison,
    passes_of,
    relative_errors,
)
from ofa_tables.store.measurement import NETWORK


def rows(comparison: Comparison) -> pd.DataFrame:
    """Return the tested networks, then calibration networks, then references.

    Each error column is relative to the pass in its name.
    """
    predicted = [
        _part(comparison, comparison.networks, TEST),
        _part(comparison, comparison.calibration_networks, CALIBRATION),
    ]
    parts = [*predicted, _references(comparison.references).reindex(columns=predicted[0].columns)]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _references(references: Sequence[MeasuredReference]) -> pd.DataFrame:
    """Return the columns of reference networks, which have no prediction."""
    return pd.DataFrame(
        {
            "name": [one.name for one in references],
            "role": [REFERENCE] * len(references),
            "key": [f"{NETWORK}{one.name}" for one in references],
            "resolution_px": [one.resolution_px for one in references],
            "macs": [one.macs for one in references],
            "pass_1_ms": [one.passes_ms[0] for one in references],
            "pass_2_ms": [one.passes_ms[1] for one in references],
        }
    )


def _part(comparison: Comparison, networks: tuple[ComparedNetwork, ...], role: str) -> pd.DataFrame:
    passes = passes_of(networks)
    raw = np.array([network.raw_ms for network in networks], dtype=np.float64)
    macs = np.array([network.macs for network in networks], dtype=np.float64)
    absent = np.full(len(networks), np.nan)
    summed = np.array([network.summed_ms for network in networks], dtype=np.float64)
    calibrated = absent if comparison.calibration is None else np.asarray(comparison.calibration(summed))
    line = absent if comparison.macs_line is None else comparison.macs_line(macs)
    columns = {
        "name": [_text(network.name) for network in networks],
        "role": [role] * len(networks),
        "key": [_text(network.key) for network in networks],
        "architecture": [json.dumps(network.architecture) for network in networks],
        "resolution_px": np.array([network.resolution_px for network in networks], dtype=np.int64),
        "macs": macs,
        "raw_ms": raw,
        "calibrated_ms": calibrated,
        "macs_baseline_ms": line,
        "pass_1_ms": passes[0],
        "pass_2_ms": passes[1],
    }
    for name, predicted in (("raw", raw), ("calibrated", calibrated), ("macs_baseline", line)):
        relative = relative_errors(predicted, passes)
        columns |= {f"{name}_error_1": relative[0], f"{name}_error_2": relative[1]}
    columns["flags"] = [_text(" ".join(network.flags)) for network in networks]
    return pd.DataFrame(columns)


def _text(value: str) -> str:
    """Replace characters that are invalid in UTF-8, which pandas rejects in Arrow strings."""
    return value.encode("utf-8", "replace").decode()
