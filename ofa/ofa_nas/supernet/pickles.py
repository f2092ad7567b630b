"""Read torch files without running code from them: tensors, plain values, and an allow-list of harmless types.

Checkpoints of other programs contain numpy scalars (``best_acc``), numpy arrays, paths and parsed arguments. The
stand-ins below take the places of these types while a file is read. They hold data, and call nothing.
"""

import os
import re
import warnings
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_nas.supernet.archives import archive_problem
from ofa_nas.supernet.plain_values import values_problem
from ofa_tables.errors import FileError
from ofa_tables.reading import opened

MAX_BYTES = 2 << 30
_WRITE_AGAIN = 'where it was written, save only the weights: torch.save({"state_dict": model.state_dict()}, FILE)'
_NAMED = re.compile(r"GLOBAL (?:__builtin__|builtins)?[. ]?([\w.]+)|(?:class|function) '?([\w.]+)'?")


def load(path: Path, most_bytes: int = MAX_BYTES, what: str = "a checkpoint") -> dict[str, Any]:
    """Read a dict of tensors and plain values. Raises FileError, which names the first type that is not allowed.

    The tensors are dense, in memory, and have all the elements that their shapes claim.
    """
    with opened(path, most_bytes, what) as file:
        found = _load(path, file, what)
    problem = values_problem(found, most_bytes)
    if problem:
        raise FileError(f"{path} is not {what}: {problem}; {_WRITE_AGAIN}")
    if not isinstance(found, dict):
        raise FileError(f"{path} holds a {type(found).__name__}; a checkpoint is a dict with a state_dict")
    return found


def _load(path: Path, file: BufferedReader, what: str) -> Any:
    damaged = FileError(f"{path} is not {what}, or is damaged; copy or download it again")
    try:
        problem = archive_problem(file, os.fstat(file.fileno()).st_size)
        if problem:
            raise FileError(f"{path} is not {what}, or is damaged ({problem}); copy or download it again")
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the file
            return torch.load(file, map_location="cpu", weights_only=True)
    except (FileError, OSError):
        raise
    except Exception as error:  # torch raises anything for a damaged stream
        if any(word in str(error).lower() for word in ("unsupported", "weights_only", "allowlisted", "blocked")):
            raise FileError(_refusal(path, str(error))) from None
        raise damaged from None


def _refusal(path: Path, message: str) -> str:
    if "operand" in message:  # an opcode of a newer pickle protocol
        return f"{path} was written with a pickle protocol above 2; write it again with torch.save's default"
    named = _NAMED.search(message)
    what = next(filter(None, named.groups())) if named else "something"
    return (
        f"{path} holds {what}, which is neither a tensor nor a plain value; it is not opened, because it could run "
        f"code; {_WRITE_AGAIN}"
    )


# Stand-ins. torch finds them by the module and the name that the file contains.


def _named(place: str, stand_in: Any) -> Any:
    stand_in.__module__, _, stand_in.__name__ = place.rpartition(".")
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


def _function(place: str, function: Callable[..., Any]) -> Any:
    return _named(place, lambda *given: function(*given))


class _Dtype:
    """A dtype of numbers. Anything else becomes None."""

    def __init__(self, code: str = "", *flags: bool) -> None:
        # str() of a prepared value may not end: see plain_values.
        self._code, self._order = code if isinstance(code, str) else "", "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        self._order = order if isinstance(order, str) else "="

    def numpy(self) -> "np.dtype[Any] | None":
        if re.fullmatch(r"[biufc]\d{1,2}", self._code) is None or self._order not in "<>=|":
            return None
        try:
            return np.dtype(self._order.replace("|", "=") + self._code)
        except TypeError:
            return None


class _Array:
    """An array. Its contents are not used."""

    def __init__(self, *parts: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Attributes:
    """Parsed arguments. They are not used."""

    def __setstate__(self, state: Any) -> None: ...


def _scalar(dtype: Any = None, content: Any = b"") -> Any:
    """Return the number, or None."""
    numbers = dtype.numpy() if isinstance(dtype, _Dtype) else None
    if numbers is None or not isinstance(content, bytes | bytearray) or len(content) != numbers.itemsize:
        return None
    return np.frombuffer(bytes(content), numbers)[0].item()


_CORES = ("numpy.core", "numpy._core")  # numpy 1 and 2
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
ALLOWED = [
    _named("numpy.dtype", _Dtype),
    _named("numpy.ndarray", _Array),
    _named("argparse.Namespace", _Attributes),
    *(_function(f"{core}.multiarray.scalar", _scalar) for core in _CORES),
    *(_function(f"{core}.multiarray._reconstruct", _Array) for core in _CORES),
    *(
        _function(f"{module}.{name}", lambda *parts: "/".join(part for part in parts if isinstance(part, str)))
        for module in ("pathlib", "pathlib._local")
        for name in _PATHS
    ),  # the second from Python 3.13
]
