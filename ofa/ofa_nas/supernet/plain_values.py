"""Check what a torch file contained: plain values of limited number and depth, and tensors that are what they claim."""

from typing import Any

import torch
from torch import Tensor

MOST_VALUES = 2_000_000
DEEPEST = 50
_MOST_BITS = 512  # of an integer
_LAYERS = (torch.Tensor, torch.nn.Parameter)


def values_problem(found: Any, most_bytes: int) -> str:
    """Say what is wrong, with the place of it; empty if nothing is. ``most_bytes`` is the limit of all tensors.

    A list that contains one other list twice, and so on, has 2^n values in a file of n lines: every place counts.
    """
    waiting: list[tuple[str, int, Any]] = [("", 0, found)]
    seen = tensor_bytes = 0
    while waiting:
        place, depth, value = waiting.pop()
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            return f"it has more than {MOST_VALUES:,} values, or more than {DEEPEST} levels of them"
        if isinstance(value, Tensor):
            problem = tensor_problem(value)
            if problem:
                return f"{place[:100]} {problem}"
            tensor_bytes += value.numel() * value.element_size()
            if tensor_bytes > most_bytes:
                return f"its tensors have more than {most_bytes >> 20} MiB"
        elif isinstance(value, dict):
            if any(isinstance(name, tuple | frozenset) for name in value):
                return f"{place[:100]} has a key that is not a plain value"
            waiting += [(name if isinstance(name, str) else place, depth + 1, item) for name, item in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            if seen + len(waiting) + len(value) > MOST_VALUES:
                return f"it has more than {MOST_VALUES:,} values, or more than {DEEPEST} levels of them"
            waiting += [(place, depth + 1, item) for item in value]
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return f"{place[:100]} is an integer of {value.bit_length()} bits"
    return ""


def tensor_problem(tensor: Tensor) -> str:
    """Say how a tensor differs from a dense one in memory of which every element is stored; empty if it does not."""
    if type(tensor) not in _LAYERS:
        return f"is a {type(tensor).__name__}, not a tensor"
    if tensor.layout != torch.strided:
        return f"is not a dense tensor ({tensor.layout})"
    if tensor.device.type != "cpu":
        return f"has no values (device {tensor.device.type})"
    if tensor.is_quantized or tensor.is_complex():
        return f"is of type {tensor.dtype}, which no network here has"
    needed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if needed > stored:
        return f"claims {needed:,} bytes of {tuple(tensor.shape)}, but the file has {stored:,} of them"
    return ""
