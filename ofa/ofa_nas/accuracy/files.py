"""Read and write the weights of accuracy models.

Our files are npz without pickles. Each Linear layer has two float arrays: ``<n>.weight`` (outputs, inputs) and
``<n>.bias`` (outputs,). Layers are in the order of n, with a ReLU between them. The names are those of the state dict
of a ``torch.nn.Sequential``, in which ReLUs also have a number: 0, 2, 4, 6 for three hidden layers. The names of an
ensemble are those of a ``torch.nn.ModuleList``: ``<member>.<n>.weight``.

The published file is such a state dict, saved by torch. Reading it requires torch.
"""

import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np

from ofa_nas.accuracy.layers import Linear
from ofa_nas.spaces.space import FloatArray
from ofa_tables.errors import FileError
from ofa_tables.reading import opened, zip_problem
from ofa_tables.store.files import replacing

MAX_BYTES = 256 << 20
MAX_ARRAYS = 1024
_PARAMETER = re.compile(r"(?:(\d{1,3})\.)?(\d{1,6})\.(weight|bias)")
# Exceptions for an unknown or damaged zip file or array.
_DAMAGED = (
    *(ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, tokenize.TokenError),  # a header is a Python literal
)


def read_members(path: Path) -> list[list[Linear]]:
    """Read the layers of each member from an npz or a torch file, detected by content.

    A single model is an ensemble of one member. Raises FileError.
    """
    try:
        with opened(path, MAX_BYTES, "an accuracy model") as file:
            arrays = _read_torch(path) if _is_torch(file) else _read_npz(file)
    except _DAMAGED as error:
        raise FileError(
            f"{path} is not an accuracy model, or is damaged ({str(error)[:200]}); "
            "give an .npz that ofa-accuracy fit or import wrote, or a .pth that torch saved"
        ) from None
    return _members(path, arrays)


def write_members(path: Path, members: Sequence[Sequence[Linear]]) -> None:
    """Write an npz atomically. Raises FileError."""
    arrays: dict[str, Any] = {}
    for number, layers in enumerate(members):
        prefix = f"{number}." if len(members) > 1 else ""
        for at, layer in enumerate(layers):
            arrays |= {f"{prefix}{2 * at}.weight": layer.weight, f"{prefix}{2 * at}.bias": layer.bias}
    with replacing(path) as file:
        np.savez(file, **arrays)


# npz.


def _read_npz(file: BufferedReader) -> dict[str, FloatArray]:
    problem = zip_problem(file, MAX_ARRAYS)
    if problem:
        raise ValueError(problem)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS or sum(member.file_size for member in members) > MAX_BYTES:
            raise ValueError(f"{len(members)} arrays, too many or too large for an accuracy model")
        return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> FloatArray:
    """Read an array. The header is checked first, because numpy allocates the size that a header claims."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError(f"{member.filename} has a compression method that numpy does not write")
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
    if any(type(size) is not int or size < 0 for size in shape):  # True is an int for numpy
        raise ValueError(f"{member.filename} claims the shape {shape}")
    if dtype.kind != "f" or len(shape) > 2 or math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} claims {dtype} {shape} in {member.file_size} bytes")
    with archive.open(member) as file:
        array: FloatArray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


# torch.


def _is_torch(file: BufferedReader) -> bool:
    start = file.read(2)
    file.seek(0)
    if start != b"PK":
        return start == b"\x80\x02"  # the pickle at the start of older torch files
    if zip_problem(file, MAX_ARRAYS):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def _read_torch(path: Path) -> dict[str, FloatArray]:
    try:
        import torch  # noqa: F401

        from ofa_nas.supernet.pickles import load
        from ofa_nas.supernet.state_dicts import state_of
    except ImportError:
        raise FileError(
            f"{path} is a torch file, but torch is not installed; on a machine with torch, run "
            f"ofa-accuracy import {path} --out {path.with_suffix('.npz').name} and use the .npz"
        ) from None
    state = state_of(load(path, MAX_BYTES, "an accuracy model")) or {}
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


# Both.


def _members(path: Path, arrays: Mapping[str, FloatArray]) -> list[list[Linear]]:
    found: dict[str, dict[int, dict[str, FloatArray]]] = {}
    for name, array in arrays.items():
        match = _PARAMETER.fullmatch(name)
        if match is None:
            raise FileError(f"{path} contains {name!r}; an accuracy model contains only 0.weight, 0.bias, 2.weight …")
        layers = found.setdefault(match[1] or "", {})
        layers.setdefault(int(match[2]), {})[match[3]] = array
    if not found:
        raise FileError(f"{path} is empty; an accuracy model contains 0.weight, 0.bias, 2.weight …")
    if "" in found and len(found) > 1:
        raise FileError(f"{path} contains both the layers of one model (0.weight …) and of an ensemble (0.0.weight …)")
    return [_layers(path, f"{member}." if member else "", found[member]) for member in sorted(found)]


def _layers(path: Path, prefix: str, found: Mapping[int, Mapping[str, FloatArray]]) -> list[Linear]:
    layers: list[Linear] = []
    for number in sorted(found):
        name = f"{prefix}{number}"
        layer = _layer(path, name, found[number])
        inputs, before = layer.weight.shape[1], layers[-1].weight.shape[0] if layers else None
        if before not in (None, inputs):
            raise FileError(
                f"{path}: {name}.weight takes {inputs} inputs, but the layer before it has {before} outputs"
            )
        layers.append(layer)
    return layers


def _layer(path: Path, name: str, parameters: Mapping[str, FloatArray]) -> Linear:
    if len(parameters) != 2:
        raise FileError(f"{path} has only {name}.{next(iter(parameters))}; each layer needs a weight and a bias")
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which is rejected below
        weight, bias = (np.ascontiguousarray(parameters[part], dtype=np.float32) for part in ("weight", "bias"))
    if weight.ndim != 2 or not weight.size or bias.shape != weight.shape[:1]:
        raise FileError(f"{path}: {name}.weight {weight.shape} and {name}.bias {bias.shape} do not form a layer")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise FileError(f"{path}: layer {name} has a weight that is not finite")
    return Linear(weight, bias)
