"""The part of spaces and populations that the latency model uses."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from ofa_agent.operators import Block


class Population(Protocol):
    """Encoded networks. ``genes[-1]`` is the resolution of each network, an index into those of the space."""

    @property
    def genes(self) -> Any: ...

    def __len__(self) -> int: ...


class Pricer(Protocol):
    """Sums a value per entry over each network of a population."""

    def __call__(self, population: Any) -> np.ndarray: ...

    def cheapest(self, resolutions_px: Iterable[int] | None = None) -> tuple[float, Any]: ...


class Space(Protocol):
    """The part of a space that the model uses."""

    name: str

    @property
    def given_as(self) -> str: ...

    @property
    def resolutions_px(self) -> tuple[int, ...]: ...

    @property
    def positions(self) -> Sequence[Any]: ...

    def keys(self, resolution_px: int) -> list[str]: ...

    def blocks(self, resolution_px: int) -> tuple[Block, ...]: ...

    def resembling(self, keys: Collection[str], resolution_px: int) -> str: ...

    def entry_indices(self, population: Any) -> np.ndarray: ...

    def pricer(self, figures: np.ndarray) -> Pricer: ...


SpaceT = TypeVar("SpaceT", bound=Space)
