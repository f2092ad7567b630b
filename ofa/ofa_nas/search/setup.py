"""Make a Problem from tables, limits and an accuracy model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ofa_nas.accuracy.model import AccuracyModel
from ofa_nas.search.constraints import (
    MEMORY,
    Metric,
    energy_metric,
    latency_metric,
    macs_metric,
    memory_metric,
    parameters_metric,
    upper_metric,
)
from ofa_nas.search.problem import Problem
from ofa_nas.search.resolutions import left_out, usable_resolutions
from ofa_nas.spaces.space import Space
from ofa_tables.errors import UsageError
from ofa_tables.model.latency_model import LatencyModel


@dataclass(frozen=True)
class Question:
    """The request of a user, without the tables.

    ``latency_ms`` has one limit for each table. With one table, it may have several limits, one network each; it is
    empty if latency is not limited. ``caps`` are the other limits by metric: ``energy`` (mJ), ``macs`` and
    ``parameters`` (millions), ``memory`` (MB). With ``confidence``, latency limits apply to the upper end of the
    interval. ``resolutions_px`` None means all usable resolutions.
    """

    space: Space
    accuracy: AccuracyModel
    latency_ms: tuple[float, ...]
    caps: Mapping[str, float] = field(default_factory=dict)
    resolutions_px: tuple[int, ...] | None = None
    confidence: float | None = None

    def to_problem(self, models: Sequence[LatencyModel]) -> Problem:
        """Make the Problem. Several limits on one table: the first one applies. Raises UsageError, EntriesMissing."""
        if len(models) > 1 and len(self.latency_ms) not in (0, len(models)):
            raise UsageError(
                f"{len(models)} tables need {len(models)} latency limits, one per table in the same order, not "
                f"{len(self.latency_ms)}; give --max-latency-ms {' '.join(['X'] * len(models))}"
            )
        resolutions_px = usable_resolutions(models, self.accuracy, self.resolutions_px)
        names = _names(models)
        latencies = [self._latency(*each, resolutions_px) for each in zip(models, names, strict=True)]
        others = [self._metric(kind, models[0], resolutions_px, names[0]) for kind in self.caps]
        limits = self.latency_ms[: len(models)] or [metric.largest(self.space, resolutions_px) for metric in latencies]
        return Problem(
            self.space,
            self.accuracy,
            (*latencies, *others),
            (*limits, *self.caps.values()),
            resolutions_px,
            left_out(models, self.accuracy) if self.resolutions_px is None else (),
            free=0 if self.latency_ms else len(models),
        )

    def _latency(self, model: LatencyModel, of: str, resolutions_px: Sequence[int]) -> Metric:
        name = f"simulated latency{of}" if model.simulated else f"latency{of}"
        if self.confidence is None:
            return latency_metric(model, name)
        return upper_metric(model, self.confidence, resolutions_px, name)

    def _metric(self, kind: str, model: LatencyModel, resolutions_px: Sequence[int], of: str) -> Metric:
        """Make the metric of a cap. With several tables, ``model`` is that of the first table."""
        if kind == "energy":
            return energy_metric(model, resolutions_px, f"energy{of}")
        if kind == "memory":
            settings = model.table.identity.settings
            return memory_metric(self.space, settings.precision, settings.batch, f"{MEMORY}{of}")
        return {"macs": macs_metric, "parameters": parameters_metric}[kind](self.space)


def _names(models: Sequence[LatencyModel]) -> list[str]:
    """Return the suffix of the metric names of each table.

    With several tables, it is the target, or the file name if two targets are equal.
    """
    if len(models) == 1:
        return [""]
    targets = [model.table.identity.target for model in models]
    if len(set(targets)) < len(targets):
        targets = [model.table.path.name for model in models]
    return [f" on {target}" for target in targets]
