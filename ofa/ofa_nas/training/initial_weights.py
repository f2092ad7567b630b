"""Start a run from a checkpoint: one of ours, or a published one, also with another number of classes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ofa_nas.spaces import parse_architecture
from ofa_nas.supernet import OneNetwork, Supernet, build_supernet
from ofa_nas.supernet.checkpoints import ALONE, class_names_of, misfit, require_finite, tensors_of
from ofa_nas.supernet.pickles import MAX_BYTES, load
from ofa_nas.supernet.state_dicts import MATRIX, Fit, classes_of, fit
from ofa_tables.errors import FileError, UsageError
from ofa_tables.reading import opened
from ofa_tables.words import counted

LARGEST = "largest"  # the recipe that trains only the largest network


@dataclass(frozen=True)
class Initial:
    """``trained_narrow``: whether narrow networks of the checkpoint are trained, so that channels must stay in order.
    ``notes`` are messages for the user.
    """

    has_new_classifier: bool
    trained_narrow: bool
    notes: tuple[str, ...]


def start_from(path: Path, model: Supernet, classes: Sequence[str]) -> Initial:
    """Put the weights of a checkpoint into the model. The classifier stays as it is if its classes are others.

    Raises FileError if the checkpoint is damaged or fits another space, UsageError if it is of another kind.
    """
    found = load(path)
    given = tensors_of(found, path)
    count, names = classes_of(given), class_names_of(found)
    is_largest = found.get("recipe") == LARGEST or not any(name.endswith(MATRIX) for name in given)
    if isinstance(model, OneNetwork):
        given, count = _of_one_network(found, given, model, path, count, names)
    elif ALONE in found:
        raise UsageError(f"{path} holds one network that was trained alone; only --recipe independent starts from that")
    is_new = count != model.classes or (names is not None and names != tuple(classes))
    own = model.state_dict()
    fitted = _without(fit(own, given), _classifier_names(model) if is_new else set())
    if not fitted.is_whole:
        raise FileError(misfit(model, fitted, given, path))
    require_finite(fitted, path)
    model.load_state_dict(own | fitted.tensors)
    notes = [f"starting from {path}: {counted(len(fitted.tensors), 'tensor')} of {len(own)}"]
    if is_new:
        notes.append(_on_new_classifier(path, count, names, classes))
    return Initial(is_new, not is_largest, tuple(notes))


def _without(fitted: Fit, names: set[str]) -> Fit:
    """Leave out these tensors, and let the matrices of smaller kernels be missing: they start as the identity."""
    return Fit(
        {name: tensor for name, tensor in fitted.tensors.items() if name not in names},
        [name for name in fitted.missing if name not in names and not name.endswith(MATRIX)],
        fitted.unknown,
        [name for name in fitted.misshapen if name not in names],
    )


def _on_new_classifier(path: Path, count: int | None, names: Sequence[str] | None, classes: Sequence[str]) -> str:
    has = "no classifier" if count is None else f"{count:,} classes"
    if count == len(classes) and names is not None:
        theirs, ours = next(pair for pair in zip(names, classes, strict=True) if pair[0] != pair[1])
        return f"the classifier is new: {path} has a class {theirs!r} where --data has {ours!r}"
    return f"the classifier is new: {path} has {has}, and --data has {len(classes):,}"


def _classifier_names(model: Supernet) -> set[str]:
    """The names of the last linear layer."""
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    return {f"{last}.weight", f"{last}.bias"}


def _of_one_network(
    found: Mapping[str, Any],
    given: Mapping[str, Tensor],
    model: OneNetwork,
    path: Path,
    count: int | None,
    names: Sequence[str] | None,
) -> tuple[dict[str, Tensor], int | None]:
    """The weights of the network, with the names of ``model``, and the number of classes.

    They come from a supernet, or from a checkpoint of the same network.
    """
    space = model.space
    if ALONE not in found:
        supernet = build_supernet(space, count)
        fitted = _without(fit(supernet.state_dict(), given), set())
        if not fitted.is_whole:
            raise FileError(misfit(supernet, fitted, given, path))
        require_finite(fitted, path)
        supernet.load_state_dict(supernet.state_dict() | fitted.tensors)
        alone = supernet.extract(model.architecture).state_dict()
        return {f"network.{name}": tensor for name, tensor in alone.items()}, supernet.classes
    architecture = parse_architecture(found[ALONE])
    if space.network(architecture).key != space.network(model.architecture).key:
        raise UsageError(f"{path} holds another network than --architecture: {json.dumps(architecture.to_json())}")
    return dict(given), len(names) if names is not None else space.classes


def digest_of(path: Path | None) -> str | None:
    """A digest of the file. Raises FileError."""
    if path is None:
        return None
    with opened(path, MAX_BYTES, "a checkpoint") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
