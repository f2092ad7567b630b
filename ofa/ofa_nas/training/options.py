"""The options of a training run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# What may differ when a run is resumed: it changes no weight.
FREE = frozenset({"out", "workers", "threads", "checkpoint_minutes", "evaluate", "evaluations", "evaluate_images"})


@dataclass(frozen=True)
class Options:
    """``batch_size`` is the total of all processes. ``architecture`` is the network of the recipe independent;
    ``evaluate`` are the sub-networks whose accuracy is followed: published forms, as JSON or a file. ``batch_norm``
    computes statistics over all processes (shared), per process (own), or shared with several processes (auto).
    ``init`` is a checkpoint to start from, and ``first_stage`` the stage of the recipe to begin with, counted from 1.
    """

    space: str
    data: str
    recipe: str = "progressive"
    out: Path = Path("training")
    init: Path | None = None
    first_stage: int | None = None
    table: Path | None = None
    max_latency_ms: float | None = None
    epochs_scale: float = 1.0
    rate_scale: float = 1.0
    batch_size: int = 256
    resolutions: tuple[int, ...] | None = None
    train_images: int | None = None
    seed: int = 0
    architecture: str | None = None
    evaluate: str | None = None
    # Learning.
    dropout: float = 0.1
    label_smoothing: float = 0.1
    weight_decay: float = 3e-5
    momentum: float = 0.9
    distillation: float = 1.0
    ema: float | None = None
    accumulate: int = 1
    # Running.
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    batch_norm: str = "auto"
    threads: int | None = None
    workers: int = 0
    checkpoint_minutes: float = 15.0
    evaluations: int = 20
    evaluate_images: int = 2000
    statistics_images: int = 2000

    def settings(self) -> dict[str, Any]:
        """The options that determine the weights, as plain values."""
        return {name: _plain(value) for name, value in asdict(self).items() if name not in FREE}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
