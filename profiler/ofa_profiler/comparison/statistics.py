"""Predicted against measured: the networks, and the statistics of the two. No device, no files.

Errors are relative to the measurement unless a name ends in ``_ms``; fractions, not percent. A figure that cannot be
had (Kendall's tau of one network, a relative error where a pass took 0 ms) is None, never NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ofa_nas.references import MeasuredReference
from ofa_tables.identity import Identity
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.ranks import kendall_tau

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

CSV = "comparison.csv"  # next to the report
TEST, CALIBRATION, REFERENCE = "test", "calibration", "reference"  # roles

# With fewer networks, an interval would be misleading.
FEWEST_FOR_INTERVAL = 10
RESAMPLES = 2000


@dataclass(frozen=True)
class ComparedNetwork:
    """One network, predicted and measured. Latencies are of one inference of the whole batch.

    ``raw_ms`` is the sum of the entries, ``stage_ms`` the same split by the stages of the Comparison. ``shifted_ms`` is
    the sum with the shifts of the calibration, or None. ``passes_ms`` are the two independent passes. ``name`` is a
    short label; ``macs`` are of one inference at batch 1.
    """

    name: str
    key: str
    architecture: dict[str, Any]
    resolution_px: int
    macs: float
    raw_ms: float
    stage_ms: tuple[float, ...]
    passes_ms: tuple[float, float]
    flags: tuple[str, ...] = ()
    shifted_ms: float | None = None

    @property
    def disturbed(self) -> bool:
        """Whether the device was disturbed during every trial."""
        return "disturbed" in self.flags

    @property
    def summed_ms(self) -> float:
        """The sum that the line of the calibration is applied to."""
        return self.raw_ms if self.shifted_ms is None else self.shifted_ms

    @property
    def measured_ms(self) -> float:
        """The mean of the two passes."""
        return sum(self.passes_ms) / 2


@dataclass(frozen=True)
class Errors:
    """The errors of a prediction relative to each of the two passes, averaged over the passes.

    ``within_5`` and ``within_10`` are fractions of the networks. ``excess_rms`` is √max(0, mean(e₁·e₂)) with eᵢ =
    predicted / passᵢ − 1: the noise of the passes is independent, so it averages out of the product.
    """

    mape: float | None
    bias: float | None
    rmse_ms: float | None
    rmspe: float | None
    within_5: float | None
    within_10: float | None
    kendall_tau: float | None
    excess_rms: float | None


@dataclass(frozen=True)
class Noise:
    """The difference of the two passes: each serves as the prediction of the other; the mean of both."""

    mape: float | None
    within_5: float | None
    within_10: float | None
    kendall_tau: float | None


@dataclass(frozen=True)
class MacsLine:
    """The baseline that knows nothing of the device: latency = ``base_ms`` + ``ms_per_mac`` · MACs."""

    base_ms: float
    ms_per_mac: float

    def __call__(self, macs: Any) -> Any:
        return self.base_ms + self.ms_per_mac * macs

    @classmethod
    def fit(cls, networks: Sequence[ComparedNetwork]) -> "MacsLine | None":
        """Fit by least squares of the relative error, the error that is reported.

        None with fewer than two different MACs, or if a pass is not a latency.
        """
        passes = passes_of(networks)
        macs = np.array([network.macs for network in networks], dtype=np.float64)
        usable = np.isfinite(passes).all() and (passes > 0).all() and np.isfinite(macs).all()
        if len(networks) < 2 or not usable or np.ptp(macs) == 0:
            return None
        unit = macs.max()  # hundreds of millions of MACs next to a constant of 1 are badly conditioned
        rows = np.concatenate([np.stack([1 / taken, macs / unit / taken], axis=1) for taken in passes])
        base, slope = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]
        return cls(float(base), float(slope / unit))


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    ``device`` is the agent's description, ``condition_after`` the condition at the end; any of their fields may be
    missing. ``networks`` are tested, ``calibration_networks`` are not; ``references`` belong to no space and have no
    prediction. ``measured_at`` is in seconds since 1970, ``seconds`` the duration.
    """

    table: str
    space: str
    identity: Identity
    device: dict[str, Any]
    condition_after: dict[str, Any]
    stages: tuple[str, ...]
    networks: tuple[ComparedNetwork, ...]
    calibration_networks: tuple[ComparedNetwork, ...]
    calibration: Calibration | None
    measured_at: float
    seconds: float
    references: tuple[MeasuredReference, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)  # by key, networks that could not be measured

    def __repr__(self) -> str:
        judged = self.calibrated or self.raw
        excess = "" if judged is None or judged.excess_rms is None else f", excess error {judged.excess_rms:.1%}"
        return f"Comparison({self.table!r}, {len(self.networks)} networks tested{excess})"

    def _repr_html_(self) -> str:
        import pandas as pd

        rows = {name: row for name, row in self.summary().items() if isinstance(row, dict)}
        html: str = pd.DataFrame(rows).T.to_html(float_format="{:.3g}".format)
        return f"<p>{escape(repr(self))}</p>{html}"

    @cached_property
    def passes_ms(self) -> FloatArray:
        """(2, networks)."""
        return passes_of(self.networks)

    @cached_property
    def raw_ms(self) -> FloatArray:
        return np.array([network.raw_ms for network in self.networks], dtype=np.float64)

    @cached_property
    def calibrated_ms(self) -> FloatArray | None:
        return None if self.calibration is None else np.array([self.calibration(n.summed_ms) for n in self.networks])

    @property
    def predicted_ms(self) -> FloatArray:
        """Calibrated, or raw without a calibration."""
        return self.raw_ms if self.calibrated_ms is None else self.calibrated_ms

    @cached_property
    def macs_line(self) -> MacsLine | None:
        return MacsLine.fit(self.calibration_networks)

    @cached_property
    def macs_ms(self) -> FloatArray | None:
        """(networks,) latencies predicted by the MACs line."""
        macs = np.array([network.macs for network in self.networks], dtype=np.float64)
        return None if self.macs_line is None else np.asarray(self.macs_line(macs))

    @cached_property
    def raw(self) -> Errors:
        return errors(self.raw_ms, self.passes_ms)

    @cached_property
    def calibrated(self) -> Errors | None:
        return None if self.calibrated_ms is None else errors(self.calibrated_ms, self.passes_ms)

    @cached_property
    def macs_baseline(self) -> Errors | None:
        return None if self.macs_ms is None else errors(self.macs_ms, self.passes_ms)

    @cached_property
    def noise(self) -> Noise:
        return noise(self.passes_ms)

    @property
    def is_of_references(self) -> bool:
        """Whether only reference networks were measured."""
        return not self.networks and bool(self.references)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Every network as JSON, with the columns of the CSV; reference networks have no prediction."""
        return [
            {
                "name": network.name,
                "role": role,
                "architecture": network.architecture,
                "predicted_ms": _finite(self._predict(network)),
                "passes_ms": [_finite(taken) for taken in network.passes_ms],
            }
            for role, networks in ((TEST, self.networks), (CALIBRATION, self.calibration_networks))
            for network in networks
        ] + [
            {
                "name": reference.name,
                "role": REFERENCE,
                "architecture": None,
                "predicted_ms": None,
                "passes_ms": list(reference.passes_ms),
            }
            for reference in self.references
        ]

    def _predict(self, network: ComparedNetwork) -> float:
        return network.raw_ms if self.calibration is None else float(self.calibration(network.summed_ms))

    def summary(self, report: Path | None = None) -> dict[str, Any]:
        """The JSON of ``ofa-compare --json``."""
        return {
            "networks": len(self.networks),
            "raw": asdict(self.raw),
            "calibrated": None if self.calibrated is None else asdict(self.calibrated),
            "macs_baseline": None if self.macs_baseline is None else asdict(self.macs_baseline),
            "noise": asdict(self.noise),
            "references": [
                {
                    "name": reference.name,
                    "latency_ms": reference.latency_ms,
                    "passes_ms": list(reference.passes_ms),
                    "top1": reference.top1,
                    "macs": reference.macs,
                    "parameters": reference.parameters,
                }
                for reference in self.references
            ],
            "measured": self.measured,
            "report": None if report is None else str(report),
            "csv": None if report is None else str(report.with_name(CSV)),
        }


def errors(predicted_ms: Sequence[float] | FloatArray, passes_ms: FloatArray) -> Errors:
    """``predicted_ms`` (networks,) against ``passes_ms`` (2, networks)."""
    predicted, passes = np.asarray(predicted_ms, dtype=np.float64), np.asarray(passes_ms, dtype=np.float64)
    relative = relative_errors(predicted, passes)
    return Errors(
        mape=_mean(np.abs(relative)),
        bias=_mean(relative),
        rmse_ms=_mean(_rms(predicted - passes)),
        rmspe=_mean(_rms(relative)),
        within_5=_share_within(relative, 0.05),
        within_10=_share_within(relative, 0.10),
        kendall_tau=_both(kendall_tau(predicted, passes[0]), kendall_tau(predicted, passes[1])),
        excess_rms=excess_rms(relative),
    )


def noise(passes_ms: FloatArray) -> Noise:
    """``passes_ms`` (2, networks)."""
    relative = noise_errors(passes_ms)
    return Noise(
        mape=_mean(np.abs(relative)),
        within_5=_share_within(relative, 0.05),
        within_10=_share_within(relative, 0.10),
        kendall_tau=kendall_tau(passes_ms[0], passes_ms[1]),
    )


def relative_errors(predicted_ms: FloatArray, passes_ms: FloatArray) -> FloatArray:
    """(2, networks): (predicted − pass) / pass; NaN or infinite where a pass is not a latency."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (predicted_ms - passes_ms) / passes_ms


def noise_errors(passes_ms: FloatArray) -> FloatArray:
    """(2, networks): each pass as the prediction of the other."""
    return relative_errors(passes_ms[::-1], passes_ms)


def excess_rms(relative: FloatArray) -> float | None:
    """√max(0, mean(e₁·e₂)) of ``relative`` (2, networks)."""
    with np.errstate(invalid="ignore"):
        product = _mean(relative[0] * relative[1])
    return None if product is None else float(np.sqrt(max(0.0, product)))


def excess_interval(relative: FloatArray) -> tuple[float, float] | None:
    """The 95 % interval of ``excess_rms``: a percentile bootstrap over networks with a fixed seed.

    None for fewer than ten networks.
    """
    if relative.shape[1] < FEWEST_FOR_INTERVAL or not np.isfinite(relative).all():
        return None
    products = relative[0] * relative[1]
    draws = np.random.default_rng(0).integers(0, len(products), size=(RESAMPLES, len(products)))
    resampled = np.sqrt(np.maximum(0.0, products[draws].mean(axis=1)))
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)


def passes_of(networks: Sequence[ComparedNetwork]) -> FloatArray:
    """(2, networks)."""
    return np.array([network.passes_ms for network in networks], dtype=np.float64).reshape(-1, 2).T


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _rms(values: FloatArray) -> FloatArray:
    """(2,) root mean squares, one per pass."""
    return np.sqrt(np.mean(values**2, axis=1)) if values.size else np.empty(0)


def _share_within(relative: FloatArray, limit: float) -> float | None:
    return float(np.mean(np.abs(relative) <= limit)) if relative.size and np.isfinite(relative).all() else None


def _both(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2
