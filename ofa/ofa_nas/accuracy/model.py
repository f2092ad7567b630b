"""The interface of accuracy models."""

from collections.abc import Iterable
from typing import Protocol

from ofa_nas.spaces.space import FloatArray, Population
from ofa_tables.errors import UsageError


class AccuracyModel(Protocol):
    """Ranks the networks of one Space: called on a Population, gives (N,) figures, higher is better.

    ``name`` says for people what it is. Where ``is_accuracy``, the figures are top-1 accuracies, 0…1; where not, they
    only stand in for them. ``resolutions_px`` are those that it knows.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_accuracy(self) -> bool: ...

    @property
    def resolutions_px(self) -> tuple[int, ...]: ...

    def __call__(self, population: Population) -> FloatArray: ...


def require_resolutions(model: AccuracyModel, resolutions_px: Iterable[int]) -> None:
    """Raises UsageError where the model does not know one of them."""
    unknown = [px for px in resolutions_px if px not in model.resolutions_px]
    if unknown:
        raise UsageError(
            f"{model.name} does not know the resolution{'s' if len(unknown) > 1 else ''} {_listed(unknown)}; "
            f"it knows {_listed(model.resolutions_px)}"
        )


def _listed(resolutions_px: Iterable[int]) -> str:
    return ", ".join(map(str, resolutions_px))
