"""The interface of all image sets."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ofa_nas.errors import DataError
from ofa_nas.normalisation import Normalisation
from ofa_nas.training.processes import Processes

Array = np.ndarray[Any, np.dtype[Any]]


class Draw(NamedTuple):
    """One image as it is asked for: ``px`` square, augmented by what ``seed`` says, or not at all (None)."""

    image: int
    px: int
    seed: int | None


class Batch(NamedTuple):
    """``images`` (N, 3, px, px) float32, normalised, channels last in memory; ``labels`` (N,) int64; ``broken`` are the
    paths of those that could not be decoded, in whose places others stand."""

    images: Tensor
    labels: Tensor
    broken: tuple[str, ...]


class Images(ABC):
    """What torch's DataLoader takes: a whole batch is asked for at once. ``labels`` (N,) int64; ``normalisation`` is
    what the batches' images have been through."""

    labels: Array
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> "Images": ...

    @abstractmethod
    def digest(self) -> str:
        """Of which images they are, in their order, and of their labels."""

    @abstractmethod
    def __getitems__(self, draws: Sequence[Draw]) -> Batch: ...

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])


class Broken:
    """Counts images that cannot be decoded, each once, and bears a hundredth of ``images``, or ten."""

    SHARE, LEAST = 0.01, 10

    def __init__(self, images: int) -> None:
        self._bound = max(self.LEAST, round(self.SHARE * images))
        self.paths: set[str] = set()

    def add(self, paths: Iterable[str]) -> None:
        """Raises DataError beyond the bound."""
        self.paths.update(paths)
        if len(self.paths) > self._bound:
            examples = ", ".join(sorted(self.paths)[:3])
            raise DataError(
                f"{len(self.paths)} images cannot be decoded, more than the {self._bound} that are borne (e.g. "
                f"{examples}): fix or replace them, and resume (ofa-train --resume); to leave them out, start over"
            )

    def of_all(self, processes: Processes) -> list[str]:
        """Paths, of all processes; every one is there then. Raises DataError as ``add`` does."""
        self.add(chain(*processes.gathered(sorted(self.paths))))
        return sorted(self.paths)


def mixed(seeds: Array) -> Array:
    """(N,) uint64 that look random, from (N,) seeds: SplitMix64's last steps (Steele et al., OOPSLA 2014)."""
    z = seeds.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
