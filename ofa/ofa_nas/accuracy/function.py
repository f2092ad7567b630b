"""Accuracies from a function of the user, which takes a list of Architectures and returns their accuracies, 0…1.

    def evaluate(architectures):
        return [accuracy_of(architecture.genes, architecture.resolution_px) for architecture in architectures]

Every network is evaluated once. Each result is kept at once, in a pairs file if there is one, so that an interrupt or
an error loses only the batch that runs. Batches start with one network for each worker, and grow while the function is
fast.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ofa_nas.accuracy.loading import Loaded
from ofa_nas.accuracy.pairs import Pair, add_pairs, begin_pairs
from ofa_nas.accuracy.workers import Workers
from ofa_nas.errors import FunctionFailed, FunctionInterrupted
from ofa_nas.spaces.architecture import Architecture
from ofa_nas.spaces.recorded import about
from ofa_nas.spaces.space import FloatArray, Population, Space

FAST_S, SLOW_S = 1.0, 10.0  # batches double below the first, and halve above the second
LARGEST = 1024  # networks in the batch of a worker


class FunctionAccuracy:
    """The accuracy model of a function of the user.

    ``evaluated`` is a pairs file: its networks are known, and every other one that the function evaluates is appended.
    ``workers`` processes share each batch; one worker is this process. Raises UsageError, FileError.
    """

    is_accuracy = True

    def __init__(self, space: Space, function: Loaded, evaluated: Path | None = None, workers: int = 1) -> None:
        self.name = function.name
        self._space = space
        self._workers = Workers(function, workers)
        self._size = workers
        self._path = evaluated
        self._known: dict[int, float] = {}
        if evaluated is not None:
            pairs = begin_pairs(evaluated, {**about(space), "accuracy": function.name}, "--evaluated")
            digests = space.digests(space.encode(pairs.architectures)).tolist()
            self._known.update(zip(digests, pairs.accuracies.tolist(), strict=True))

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        return self._space.resolutions_px

    def __call__(self, population: Population) -> FloatArray:
        """Return (N,) accuracies, 0…1.

        Raises FunctionFailed and FunctionInterrupted, which have the accuracies of the networks before.
        """
        digests: list[int] = self._space.digests(population).tolist()
        first = {digest: at for at, digest in reversed(list(enumerate(digests))) if digest not in self._known}
        waiting = sorted(first.values())
        architectures = self._space.decode(self._space.canonical(population[np.array(waiting, dtype=int)]))
        try:
            at = 0
            while at < len(waiting):
                batch = architectures[at : at + self._size]
                self._keep(batch, [digests[one] for one in waiting[at : at + self._size]])
                at += len(batch)
        except FunctionFailed as error:
            raise FunctionFailed(str(error), self._done(digests)) from None
        except KeyboardInterrupt:
            raise FunctionInterrupted(self._done(digests)) from None
        return np.array([self._known[digest] for digest in digests], dtype=np.float64)

    def _done(self, digests: Sequence[int]) -> list[float]:
        known = [self._known.get(digest, math.nan) for digest in digests]
        return known[: next((at for at, one in enumerate(known) if math.isnan(one)), len(known))]

    def _keep(self, batch: Sequence[Architecture], digests: Sequence[int]) -> None:
        started = time.monotonic()
        accuracies = self._workers(batch)
        took_s = time.monotonic() - started
        if self._path is not None:
            pairs = [Pair(one, accuracy, (accuracy, accuracy)) for one, accuracy in zip(batch, accuracies, strict=True)]
            add_pairs(self._path, pairs)
        self._known.update(zip(digests, accuracies, strict=True))
        if took_s < FAST_S and len(batch) == self._size:
            self._size = min(2 * self._size, LARGEST * self._workers.count)
        elif took_s > SLOW_S:
            self._size = max(self._size // 2, self._workers.count)
