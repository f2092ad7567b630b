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
    """A request for one image: ``px`` square, augmented with ``seed``, or not augmented (None)."""

    image: int
    px: int
    seed: int | None


class Batch(NamedTuple):
    """``images`` (N, 3, px, px) float32, normalised, in channels-last memory; ``labels`` (N,) int64; ``broken`` are the
    paths of images that could not be decoded and were replaced.
    """

    images: Tensor
    labels: Tensor
    broken: tuple[str, ...]


class Images(ABC):
    """A dataset for torch's DataLoader that returns whole batches. ``labels`` (N,) int64; ``normalisation`` describes
    how pixels became network inputs.
    """

    labels: Array
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> "Images": ...

    @abstractmethod
    def digest(self) -> str:
        """A digest of the images, their order and their labels."""

    @abstractmethod
    def __getitems__(self, draws: Sequence[Draw]) -> Batch: ...

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])


class Broken:
    """Count images that cannot be decoded, each once; allow a hundredth of ``images``, at least ten."""

    SHARE, LEAST = 0.01, 10

    def __init__(self, images: int) -> None:
        self._bound = max(self.LEAST, round(self.SHARE * images))
        self.paths: set[str] = set()

    def add(self, paths: Iterable[str]) -> None:
        """Raises DataError beyond the allowed number."""
        self.paths.update(paths)
        if len(self.paths) > self._bound:
            examples = ", ".join(sorted(self.paths)[:3])
            raise DataError(
                f"{len(self.paths)} images cannot be decoded, more than the {self._bound} that are borne (e.g. "
                f"{examples}): fix or replace them, and resume (ofa-train --resume); to leave them out, start over"
            )

    def of_all(self, processes: Processes) -> list[str]:
        """The paths of all processes; every process must call this. Raises DataError as ``add`` does."""
        self.add(chain(*processes.gathered(sorted(self.paths))))
        return sorted(self.paths)


def mixed(seeds: Array) -> Array:
    """(N,) uint64 pseudo-random numbers from (N,) seeds: the last steps of SplitMix64 (Steele et al., OOPSLA 2014)."""
    z = seeds.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
