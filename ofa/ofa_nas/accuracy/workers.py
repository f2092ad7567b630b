"""Call a function of the user on many networks, in this process or in several others."""

import itertools
import math
import pickle
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import numpy as np

from ofa_nas.accuracy.loading import Loaded, said
from ofa_nas.errors import FunctionFailed
from ofa_nas.spaces.architecture import Architecture, short
from ofa_tables.errors import UsageError
from ofa_tables.words import counted


class Workers:
    """Calls ``function``; with a ``count`` above 1, in that number of processes, which start with the first call.

    Raises UsageError if the function cannot be sent to them.
    """

    def __init__(self, function: Loaded, count: int) -> None:
        self.count = count
        self._function = function
        self._pool: ProcessPoolExecutor | None = None
        if count > 1:
            try:
                pickle.dumps(function)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise UsageError(
                    f"{function.name} cannot be sent to other processes ({said(error)}); use a function of a module, "
                    "or one worker"
                ) from None

    def __call__(self, networks: Sequence[Architecture]) -> list[float]:
        """Return the accuracies. Raises FunctionFailed."""
        if self.count == 1:
            return _called(self._function, list(networks))
        if self._pool is None:
            context = get_context("spawn")  # a fork would copy the threads' locks of the libraries of the user
            self._pool = ProcessPoolExecutor(self.count, context, _end_when_interrupted)
        shares = [list(share) for share in _shares(networks, self.count)]
        try:
            found = list(self._pool.map(_called, [self._function] * len(shares), shares))
        except BrokenProcessPool:
            raise FunctionFailed(
                f"a worker of {self._function.name} ended: it was killed, or has too little memory; use fewer workers"
            ) from None
        return [accuracy for share in found for accuracy in share]


def _shares(networks: Sequence[Architecture], count: int) -> list[Sequence[Architecture]]:
    """Split into at most ``count`` parts of almost equal size, in order."""
    ends = [len(networks) * at // count for at in range(count + 1)]
    return [networks[start:end] for start, end in itertools.pairwise(ends) if end > start]


def _end_when_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process; a worker ends without a traceback


def _called(function: Loaded, networks: list[Architecture]) -> list[float]:
    try:
        returned = function.function(networks)
    except (Exception, SystemExit) as error:  # the code of the user can raise anything
        raise FunctionFailed(f"{function.name} failed: {said(error)}") from None
    return _checked(function.name, returned, len(networks))


def _checked(name: str, returned: Any, count: int) -> list[float]:
    wanted = f"it must return one accuracy, 0…1, for each network: a list of {count}"
    try:
        values = np.asarray(returned, dtype=np.float64)
    except (ValueError, TypeError):
        raise FunctionFailed(f"{name} returned {short(returned)}; {wanted}") from None
    if values.shape != (count,):
        raise FunctionFailed(f"{name} returned {_form(values)} for {count} networks; {wanted}")
    for value in values.tolist():
        if not (math.isfinite(value) and 0 <= value <= 1):
            hint = "; divide percentages by 100" if 1 < value <= 100 else ""
            raise FunctionFailed(f"{name} returned {value:g}; an accuracy is a number, 0…1{hint}")
    return [float(value) for value in values]


def _form(values: "np.ndarray[Any, Any]") -> str:
    return counted(len(values), "value") if values.ndim == 1 else f"an array of shape {values.shape}"
