"""Accuracy models, which rank networks in a search."""

from pathlib import Path

from ofa_nas.accuracy.files import read_members, write_members
from ofa_nas.accuracy.function import FunctionAccuracy
from ofa_nas.accuracy.layers import Linear
from ofa_nas.accuracy.loading import is_function, load
from ofa_nas.accuracy.macs import MacsStandIn
from ofa_nas.accuracy.mlp import Mlp
from ofa_nas.accuracy.model import AccuracyModel, require_resolutions
from ofa_nas.spaces.space import Space
from ofa_tables.errors import FileError, UsageError

__all__ = [
    "MACS",
    "AccuracyModel",
    "FunctionAccuracy",
    "Linear",
    "MacsStandIn",
    "Mlp",
    "open_accuracy",
    "read_members",
    "require_resolutions",
    "write_members",
]

MACS = "macs"


def open_accuracy(source: str, space: Space, evaluated: Path | None = None, workers: int = 1) -> AccuracyModel:
    """Open the model in a file, the function ``module:function`` or ``file.py:function``, or the stand-in ``macs``.

    ``evaluated`` and ``workers`` are for functions (``function.py``). Raises FileError, UsageError.
    """
    if is_function(source):
        return FunctionAccuracy(space, load(source), evaluated, workers)
    if evaluated is not None or workers != 1:
        raise UsageError(
            "--evaluated and --workers apply to a function; give --accuracy module:function, or remove them"
        )
    if source == MACS:
        return MacsStandIn(space)
    path = Path(source)
    if not path.exists():
        raise FileError(
            f"{source}: no such accuracy model; give an .npz or .pth file, a function (module:function), or macs"
        )
    return Mlp(space, read_members(path), source)
