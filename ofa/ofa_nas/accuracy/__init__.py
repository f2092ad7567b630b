"""Accuracy models, which rank networks in a search."""

from pathlib import Path

from ofa_nas.accuracy.files import read_members, write_members
from ofa_nas.accuracy.layers import Linear
from ofa_nas.accuracy.macs import MacsStandIn
from ofa_nas.accuracy.mlp import Mlp
from ofa_nas.accuracy.model import AccuracyModel, require_resolutions
from ofa_nas.spaces.space import Space
from ofa_tables.errors import FileError

__all__ = [
    "MACS",
    "AccuracyModel",
    "Linear",
    "MacsStandIn",
    "Mlp",
    "open_accuracy",
    "read_members",
    "require_resolutions",
    "write_members",
]

MACS = "macs"


def open_accuracy(source: str, space: Space) -> AccuracyModel:
    """Open the model in a file, or the stand-in if ``source`` is ``macs``. Raises FileError, UsageError."""
    if source == MACS:
        return MacsStandIn(space)
    path = Path(source)
    if not path.exists():
        raise FileError(f"{source}: no such accuracy model; give an .npz or .pth file, or macs")
    return Mlp(space, read_members(path), source)
