"""Genes and positions of a Space, and many of its networks at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[Any]]
FloatArray = np.ndarray[Any, np.dtype[Any]]

ABSENT = -1


@dataclass(frozen=True)
class GeneGroup:
    """Genes of one kind: ``count`` genes, each with one of ``choices``."""

    name: str
    choices: tuple[int, ...] | tuple[float, ...]
    count: int


@dataclass(frozen=True)
class Position:
    """One place of a network, which has one entry or none.

    ``stage`` is an index into the ``stages`` of the Space. ``genes`` are rows of a Population. Their joint code (mixed
    radix, the last one fastest) indexes ``entries``, ``kernels``, and ``expands``. These are the indices of the entry,
    of its kernel size, and of its expand ratio in the Space, or ABSENT.
    """

    stage: int
    genes: tuple[int, ...]
    radices: tuple[int, ...]
    entries: IntArray
    kernels: IntArray
    expands: IntArray


@dataclass(frozen=True)
class Population:
    """Many Architectures of one Space: ``genes[g, n]`` is the choice index of gene g in Architecture n (uint8)."""

    genes: IntArray

    def __len__(self) -> int:
        return int(self.genes.shape[1])

    def __getitem__(self, which: Any) -> "Population":
        return Population(self.genes[:, which])

    @staticmethod
    def concatenate(parts: Sequence["Population"]) -> "Population":
        return Population(np.concatenate([part.genes for part in parts], axis=1))
