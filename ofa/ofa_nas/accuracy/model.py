"""The interface of accuracy models."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.space import FloatArray, Population
from ofa_tables.errors import UsageError


class AccuracyModel(Protocol):
    """Ranks the networks of one Space. Called on a Population, it returns (N,) values; higher is better.

    ``name`` is a description for reports. If ``is_accuracy``, the values are top-1 accuracies, 0…1; otherwise they only
    rank. ``resolutions_px`` are the resolutions that the model supports.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_accuracy(self) -> bool: ...

    @property
    def resolutions_px(self) -> tuple[int, ...]: ...

    def __call__(self, population: Population) -> FloatArray: ...


@runtime_checkable
class Differentiable(AccuracyModel, Protocol):
    """An accuracy model that also says what each choice of a network is worth.

    ``features`` say which feature each joint code of some genes selects; ABSENT, or the number of features, stands for
    none. ``worths`` returns (N,) values, and (N, features + 1) worths; the last worth is 0. To first order, networks at
    one resolution differ in value by the difference of their sums of worths.
    """

    @property
    def features(self) -> tuple[Gather, ...]: ...

    def worths(self, population: Population) -> tuple[FloatArray, FloatArray]: ...


def require_resolutions(model: AccuracyModel, resolutions_px: Iterable[int]) -> None:
    """Raise UsageError if the model does not support one of the resolutions."""
    unknown = [px for px in resolutions_px if px not in model.resolutions_px]
    if unknown:
        raise UsageError(
            f"{model.name} does not support resolution{'s' if len(unknown) > 1 else ''} {_listed(unknown)}; "
            f"it supports {_listed(model.resolutions_px)}"
        )


def _listed(resolutions_px: Iterable[int]) -> str:
    return ", ".join(map(str, resolutions_px))
