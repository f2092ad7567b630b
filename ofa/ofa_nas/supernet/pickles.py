"""Read torch files without running code from them: tensors, plain values, and an allow-list of harmless types.

Checkpoints of other programs contain numpy scalars (``best_acc``), numpy arrays, paths and parsed arguments. The
stand-ins below take the places of these types while a file is read. They hold data, and call nothing.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_tables.errors import FileError

MAX_BYTES = 2 << 30
_NAMED = re.compile(r"GLOBAL (?:__builtin__|builtins)?[. ]?([\w.]+)|(?:class|function) '?([\w.]+)'?")


def load(path: Path) -> dict[str, Any]:
    """Read a dict of tensors and plain values. Raises FileError, which names the first type that is not allowed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path} has more than {MAX_BYTES >> 20} MiB, too much for a checkpoint")
        with torch.serialization.safe_globals(ALLOWED):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # torch raises anything for a damaged stream
        if isinstance(error, FileError):
            raise
        if any(word in str(error).lower() for word in ("unsupported", "weights_only", "allowlisted", "blocked")):
            raise FileError(_refusal(path, str(error))) from None
        raise FileError(f"{path} is not a checkpoint, or is damaged; copy or download it again") from None
    if not isinstance(found, dict):
        raise FileError(f"{path} holds a {type(found).__name__}; a checkpoint is a dict with a state_dict")
    return found


def _refusal(path: Path, message: str) -> str:
    if "operand" in message:  # an opcode of a newer pickle protocol
        return f"{path} was written with a pickle protocol above 2; write it again with torch.save's default"
    named = _NAMED.search(message)
    what = next(filter(None, named.groups())) if named else "something"
    return (
        f"{path} holds {what}, which is neither a tensor nor a plain value; it is not opened, because it could run "
        'code; where it was written, save only the weights: torch.save({"state_dict": model.state_dict()}, FILE)'
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
        self._code, self._order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        self._order = str(state[1]) if isinstance(state, tuple) and len(state) > 1 else "="

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
        _function(f"{module}.{name}", lambda *parts: "/".join(map(str, parts)))
        for module in ("pathlib", "pathlib._local")
        for name in _PATHS
    ),  # the second from Python 3.13
]
