"""Find the weights in a checkpoint, and bring their names into the form of our supernets.

Training programs put the state dict into other dicts, and wrappers (DataParallel, torch.compile, averages of weights)
put words in front of the names. Profilers add further tensors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

# Where a checkpoint keeps its weights. The first that is found counts: averages are read if there is nothing else.
CONTAINERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "checkpoint"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
)
DEEPEST = 4
MOST_CLASSES = 100_000  # a network is built for them before the weights are compared
ANYWHERE = frozenset({"module", "_orig_mod"})  # DataParallel and torch.compile, also around parts of a network
AVERAGES = frozenset({"ema", "ema_model", "model_ema"})
IN_FRONT = ANYWHERE | AVERAGES | {"model", "net"}
COUNTER = "num_batches_tracked"  # older versions of torch did not save it; nothing here reads it
IGNORED = frozenset(
    {COUNTER, "total_ops", "total_params", "n_averaged", "num_updates", "decay", "__flops__", "__params__"}
    | {"_extra_state"}
)
MATRIX = "_matrix"  # of a smaller kernel; networks that are not elastic have none
_CLASSIFIERS = ("classifier.linear.weight", "classifier.linear.linear.weight")
# Published names, older ones first, and the names of networks that are not elastic.
_OLDER, _NEWER = ".mobile_inverted_conv.", ".conv."
_RENAMED = (
    (".bn.bn.", ".bn."),
    (".conv.conv.weight", ".conv.weight"),
    (".linear.linear.", ".linear."),
    (".linear.", ".linear.linear."),
    (".bn.", ".bn.bn."),
    (".conv.weight", ".conv.conv.weight"),
)


def state_of(found: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the tensors by name, without wrappers' words; None if there are none."""
    tensors = _tensors_in(found, 0)
    return None if tensors is None else _unwrapped(tensors)


def _tensors_in(found: Mapping[str, Any], depth: int) -> dict[str, Tensor] | None:
    inner = [found[name] for name in CONTAINERS if isinstance(found.get(name), Mapping)] if depth < DEEPEST else []
    for container in inner:
        tensors = _tensors_in(container, depth + 1)
        if tensors is not None:
            return tensors
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)} or None


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file may hold weights and their average: the average gives only what is lacking otherwise."""
    by_prefix: dict[tuple[str, ...], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        prefix = tuple(takewhile(IN_FRONT.__contains__, parts[:-1]))
        rest = ".".join(part for part in parts[len(prefix) :] if part not in ANYWHERE)
        by_prefix.setdefault(prefix, {})[rest] = tensor
    merged: dict[str, Tensor] = {}
    for prefix in sorted(by_prefix, key=lambda prefix: (bool(AVERAGES & set(prefix)), -len(by_prefix[prefix]))):
        merged = by_prefix[prefix] | merged
    return merged


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """None if there is no classifier, or none that a network could have."""
    weights = [state[name] for name in _CLASSIFIERS if name in state]
    if not weights or weights[0].ndim != 2 or not weights[0].numel() or len(weights[0]) > MOST_CLASSES:
        return None
    return weights[0].shape[0]


@dataclass(frozen=True)
class Fit:
    """``tensors`` have the names and the shapes of the network. ``missing``, ``unknown`` and ``misshapen`` are the
    names of the others, sorted; the second ones as the checkpoint has them.
    """

    tensors: dict[str, Tensor]
    missing: list[str]
    unknown: list[str]
    misshapen: list[str]

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.unknown or self.misshapen)

    @property
    def not_finite(self) -> str | None:
        """The first tensor with a value that is not a number or is infinite."""
        return next((name for name, tensor in self.tensors.items() if not torch.isfinite(tensor).all()), None)


def fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Fit:
    """Compare what a checkpoint has with ``own``, the state dict of a network."""
    named = {_name_in(own, name): name for name in given}
    common = own.keys() & named.keys()
    misshapen = [name for name in common if not _is_like(own[name], given[named[name]])]
    tensors = {name: given[named[name]] for name in own if name in common and name not in misshapen}
    return Fit(
        tensors,
        sorted(name for name in own.keys() - named.keys() if _last(name) not in IGNORED),
        sorted(named[name] for name in named.keys() - own.keys() if _last(name) not in IGNORED),
        sorted(misshapen),
    )


def _name_in(own: Iterable[str], name: str) -> str:
    """The name that ``own`` has for a tensor; the given one if it has none."""
    newer = name.replace(_OLDER, _NEWER)
    candidates = [newer, *(newer.replace(before, after) for before, after in _RENAMED if before in newer)]
    return next((candidate for candidate in candidates if candidate in own), newer)


def _is_like(own: Tensor, given: Tensor) -> bool:
    return own.shape == given.shape and own.is_floating_point() == given.is_floating_point()


def _last(name: str) -> str:
    return name.rpartition(".")[2]
