"""Supernet checkpoints in the published form, ``{"state_dict": …}``; ours also name their space."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_nas.normalisation import Normalisation
from ofa_nas.spaces import Space, all_spaces, parse_architecture
from ofa_nas.spaces.recorded import NAME, about, space_about
from ofa_nas.supernet.alone import OneNetwork
from ofa_nas.supernet.build import build_supernet
from ofa_nas.supernet.network import Supernet
from ofa_nas.supernet.pickles import load
from ofa_nas.supernet.state_dicts import MOST_CLASSES, Fit, classes_of, fit, state_of
from ofa_tables.errors import FileError, UsageError
from ofa_tables.store.files import replacing
from ofa_tables.words import counted

ALONE = "architecture"  # of a network that was trained separately


def save_supernet(path: Path, supernet: Supernet, **reported: Any) -> None:
    """Write the published form, with the space (``spaces.recorded``) and plain values ``reported``.

    Raises FileError.
    """
    alone = {ALONE: supernet.architecture.to_json()} if isinstance(supernet, OneNetwork) else {}
    save(path, {"state_dict": supernet.state_dict(), **about(supernet.space), **alone, **reported})


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
    state = tensors_of(found, path)
    space = space or _space_of(found, state, path)
    names = class_names_of(found)
    if "state_dict" in found and ALONE in found:
        architecture = parse_architecture(found[ALONE])
        space.encode([architecture])  # raises if it is wrong
        network: Supernet = OneNetwork(space, architecture, None if names is None else len(names))
    else:
        network = build_supernet(space, classes_of(state))
    load_state(network, state, path)
    network.class_names = names if names is not None and len(names) == network.classes else None
    network.normalisation = _normalisation(found.get("normalisation"))
    return network


def class_names_of(found: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = found.get("classes")
    return tuple(map(str, names)) if isinstance(names, list) and len(names) <= MOST_CLASSES else None


def _space_of(found: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> Space:
    if isinstance(found.get(NAME), str):
        return space_about(found, str(path))
    fitting = _spaces_of(state)
    which = f"its tensors fit {_either(fitting)}" if fitting else "its tensors fit no space of ofa-profile"
    raise UsageError(f"{path} does not say which space it is of; name it with --space ({which})")


def _normalisation(reported: Any) -> Normalisation | None:
    """None if it is missing, or not in our form."""
    if not isinstance(reported, Mapping):
        return None
    try:
        mean, std = (tuple(map(float, reported[name])) for name in Normalisation._fields)
    except (TypeError, KeyError, ValueError, OverflowError, RuntimeError):  # torch raises RuntimeError for a tensor
        return None
    return Normalisation(mean, std) if len(mean) == len(std) == 3 else None


def tensors_of(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint. Raises FileError if it has none."""
    state = state_of(found)
    if state is None:
        raise FileError(
            f"{path} holds no state dict of tensors; a supernet's checkpoint does (ofa-train calls it supernet.pth)"
        )
    return state


def load_state(supernet: Supernet, given: Mapping[str, Tensor], path: Path) -> None:
    """Raises FileError if names or shapes are not those of the supernet, or a value is not finite."""
    own = supernet.state_dict()
    fitted = fit(own, given)
    if not fitted.is_whole:
        raise FileError(misfit(supernet, fitted, given, path))
    require_finite(fitted, path)
    supernet.load_state_dict(own | fitted.tensors)


def require_finite(fitted: Fit, path: Path) -> None:
    if fitted.not_finite is not None:
        raise FileError(
            f"{path}: {fitted.not_finite} has values that are not finite (NaN or infinity); give a checkpoint from "
            "before the training diverged"
        )


def misfit(supernet: Supernet, fitted: Fit, given: Mapping[str, Tensor], path: Path) -> str:
    """The message for weights that are not those of the supernet: what differs, and which space to name."""
    own = len(supernet.state_dict())
    parts = [
        f"{len(names)} {what if len(names) > 1 else what_of_one} (e.g. {names[0]})"
        for names, what, what_of_one in (
            (fitted.missing, f"of its {own} tensors are missing", f"of its {own} tensors is missing"),
            (fitted.unknown, "are not its own", "is not its own"),
            (fitted.misshapen, "have another shape or type", "has another shape or type"),
        )
        if names
    ]
    fitting = _spaces_of(given)
    if fitting:
        advice = f"it fits {_either(fitting)}: name that with --space"
    else:
        advice = f"its {counted(len(given), 'tensor')} fit no space of ofa-profile: give a supernet of one of them"
    return f"{path} is not a checkpoint of {supernet.space.name}: {', '.join(parts)}; {advice}"


def _spaces_of(given: Mapping[str, Tensor]) -> list[str]:
    """The spaces of which these tensors are a supernet."""
    found = []
    for space in all_spaces():
        try:
            with torch.device("meta"):
                own = build_supernet(space, classes_of(given)).state_dict()
        except UsageError:  # a space of another package, without a supernet
            continue
        if fit(own, given).is_whole:
            found.append(space.name)
    return found


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def save(path: Path, value: Mapping[str, Any]) -> None:
    """Write atomically. Raises FileError."""
    with replacing(path) as file:
        torch.save(dict(value), file)
