"""Supernet checkpoints in the published form, ``{"state_dict": …}``; ours also name their space."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_nas.normalisation import Normalisation
from ofa_nas.spaces import Space, find_space, parse_architecture
from ofa_nas.supernet.alone import OneNetwork
from ofa_nas.supernet.build import build_supernet
from ofa_nas.supernet.network import Supernet
from ofa_tables.errors import FileError, UsageError
from ofa_tables.store.files import replacing

MAX_BYTES = 2 << 30
OLDER, NEWER = ".mobile_inverted_conv.", ".conv."
ALONE = "architecture"  # of a network that was trained separately
_CLASSIFIERS = ("classifier.linear.weight", "classifier.linear.linear.weight")


def save_supernet(path: Path, supernet: Supernet, **reported: Any) -> None:
    """The published form, with the name of the space and the plain values ``reported``. Raises FileError."""
    alone = {ALONE: supernet.architecture.to_json()} if isinstance(supernet, OneNetwork) else {}
    save(path, {"state_dict": supernet.state_dict(), "space": supernet.space.name, **alone, **reported})


def load_supernet(path: Path, space: Space | None = None) -> Supernet:
    """Read a published checkpoint, which needs ``space``, or one of ours, which names its space.

    Raises FileError if it is damaged, contains anything but tensors, or fits another space; UsageError if the space is
    neither given nor named, or the file contains one network that was trained separately.
    """
    found = load_network(path, space)
    if isinstance(found, OneNetwork):
        raise UsageError(f"{path} holds one network that was trained alone; this takes a supernet's checkpoint")
    return found


def load_network(path: Path, space: Space | None = None) -> Supernet:
    """Read a supernet, or one network that was trained separately. Raises as ``load_supernet`` does."""
    found = load(path)
    state = _state_of(found, path)
    named = found.get("space")
    if space is None:
        if not isinstance(named, str):
            raise UsageError(f"{path} does not say which space it is of; name it with --space")
        space = find_space(named)
    names = found.get("classes")
    names = tuple(map(str, names)) if isinstance(names, list) else None
    if "state_dict" in found and ALONE in found:
        architecture = parse_architecture(found[ALONE])
        space.encode([architecture])  # raises if it is wrong
        network: Supernet = OneNetwork(space, architecture, None if names is None else len(names))
    else:
        network = build_supernet(space, _classes_of(state))
    load_state(network, state, path)
    network.class_names = names if names is not None and len(names) == network.classes else None
    network.normalisation = _normalisation(found.get("normalisation"))
    return network


def _normalisation(reported: Any) -> Normalisation | None:
    """None if it is missing, or not in our form."""
    try:
        mean, std = (tuple(map(float, reported[name])) for name in Normalisation._fields)
    except (TypeError, KeyError, ValueError):
        return None
    return Normalisation(mean, std) if len(mean) == len(std) == 3 else None


def _state_of(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    state = found.get("state_dict", found)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise FileError(
            f"{path} holds no state dict of tensors; a supernet's checkpoint does (ofa-train calls it supernet.pth)"
        )
    return {str(name).replace(OLDER, NEWER): tensor for name, tensor in state.items()}


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """None if there is no classifier."""
    weights = [state[name] for name in _CLASSIFIERS if name in state]
    return weights[0].shape[0] if weights and weights[0].ndim == 2 else None


def load_state(supernet: Supernet, given: Mapping[str, Tensor], path: Path) -> None:
    """Raises FileError if names or shapes are not those of the supernet."""
    own = supernet.state_dict()
    lacking = sorted(own.keys() - given.keys())
    foreign = sorted(given.keys() - own.keys())
    other = [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
    if lacking or foreign or other:
        example = next(iter((*other, *lacking, *foreign)))
        raise FileError(
            f"{path} is not a checkpoint of {supernet.space.name}: {len(lacking)} of its {len(own)} tensors "
            "are missing, "
            f"{len(foreign)} are not its own, {len(other)} have another shape (e.g. {example}); name its --space"
        )
    supernet.load_state_dict(given)


def save(path: Path, value: Mapping[str, Any]) -> None:
    """Write atomically. Raises FileError."""
    with replacing(path) as file:
        torch.save(dict(value), file)


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values only. Raises FileError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path} has more than {MAX_BYTES >> 20} MiB, too much for a checkpoint")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # torch raises anything for a damaged stream
        if isinstance(error, FileError):
            raise
        if "Unsupported" in str(error) or "weights_only" in str(error).lower():
            raise FileError(f"{path} holds something else than tensors and plain values; it is not opened") from None
        raise FileError(f"{path} is not a checkpoint, or is damaged; copy or download it again") from None
    if not isinstance(found, dict):
        raise FileError(f"{path} holds a {type(found).__name__}; a checkpoint is a dict with a state_dict")
    return found
