"""Attacks with torch files, by name; see ``named.py``."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoints_of_attackers import READERS as OF_CHECKPOINTS
from checkpoints_of_attackers import SETTINGS, doubled
from named import ATTACKS, Attack, _pipe
from readers import READERS
from tables_of_attackers import TINY

from ofa_nas.supernet import build_supernet
from ofa_nas.training.state import FORMAT, Progress


def _saved(make: Callable[[], Any], is_old: bool = False) -> Attack:
    def attack(folder: Path) -> Path:
        torch.save(make(), folder / "c.pth", _use_new_zipfile_serialization=not is_old)
        return folder / "c.pth"

    return attack


def _state(tensor: torch.Tensor, name: str = "classifier.linear.linear.weight") -> Attack:
    return _saved(lambda: {"space": "tiny", "state_dict": {**build_supernet(TINY, 10).state_dict(), name: tensor}})


def _layer(weight: torch.Tensor) -> Attack:
    return _saved(lambda: {"0.weight": weight, "0.bias": torch.zeros(1)})


def _with(name: str, value: Any) -> Attack:
    return _saved(lambda: {"space": "tiny", "state_dict": build_supernet(TINY, 10).state_dict(), name: value})


def _bomb(folder: Path) -> Path:
    """A checkpoint in which a record of 128 MiB is compressed to 600 kB."""
    torch.save({"w": torch.zeros(4)}, folder / "small.pth")
    small = zipfile.ZipFile(folder / "small.pth")
    with small, zipfile.ZipFile(folder / "c.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for member in small.infolist():
            is_storage = member.filename.endswith("data/0")
            bomb.writestr(member.filename, bytes(128 << 20) if is_storage else small.read(member))
    return folder / "c.pth"


def _claims(folder: Path) -> Path:
    """An older file with a storage of 4 numbers that claims 2 billion."""
    torch.save({"w": torch.zeros(4)}, folder / "c.pth", _use_new_zipfile_serialization=False)
    content = (folder / "c.pth").read_bytes()
    at = content.index(b"cpu") + 5
    assert content[at : at + 2] == b"K\x04"
    (folder / "c.pth").write_bytes(content[:at] + b"J\xff\xff\xff\x7f" + content[at + 2 :])
    return folder / "c.pth"


def _long_name(folder: Path) -> Path:
    """A checkpoint with a type of which the name has a million characters."""
    torch.save({"w": torch.zeros(4)}, folder / "small.pth")
    with zipfile.ZipFile(folder / "small.pth") as small, zipfile.ZipFile(folder / "c.pth", "w") as long:
        for member in small.infolist():
            long.writestr(member.filename, small.read(member).replace(b"_rebuild_tensor_v2", b"x" * 1_000_000))
    return folder / "c.pth"


def _call_of_two_to_the_60(folder: Path) -> Path:
    """A checkpoint that calls a list of 2^60 values. torch prints what it refuses to call.

    The lists are put into each other first, while they are empty.
    """
    torch.save({"w": torch.zeros(4)}, folder / "small.pth")
    lists = b"".join(b"]q" + bytes([number]) for number in range(61))
    filled = b"".join(b"h" + bytes([n]) + b"(h" + bytes([n + 1]) + b"h" + bytes([n + 1]) + b"e0" for n in range(60))
    content = b"\x80\x02" + lists + b"0" * 61 + filled + b"h\x00)R."
    with zipfile.ZipFile(folder / "small.pth") as small, zipfile.ZipFile(folder / "c.pth", "w") as bomb:
        for member in small.infolist():
            bomb.writestr(member.filename, content if member.filename.endswith(".pkl") else small.read(member))
    return folder / "c.pth"


PROGRESS = {"format": FORMAT, "settings": dict(SETTINGS), "progress": vars(Progress())}

ATTACKS_OF_CHECKPOINTS: dict[str, tuple[str, Attack]] = {
    "checkpoint-is-a-pipe": ("checkpoint", _pipe("c.pth")),
    "one-number-for-billions": ("checkpoint", _state(torch.zeros(1).expand(10**9, 3))),
    "one-number-for-billions-of-classes": ("initial", _state(torch.zeros(1).expand(10**10, 1280))),
    "classes-without-weights": ("checkpoint", _state(torch.zeros(10**12, 0))),
    "sparse": ("checkpoint", _state(torch.sparse_coo_tensor([[0], [1]], [1.0], (10**9, 10**9)))),
    "without-values": ("checkpoint", _state(torch.empty(10**15, device="meta"))),
    "complex": ("checkpoint", _state(torch.ones(3, dtype=torch.complex64))),
    "classes-of-two-to-the-60": ("checkpoint", _with("classes", [doubled(60)])),
    "architecture-of-two-to-the-60": ("checkpoint", _with("architecture", doubled(60))),
    "compressed-checkpoint": ("checkpoint", _bomb),
    "call-of-two-to-the-60": ("checkpoint", _call_of_two_to_the_60),
    "type-with-a-long-name": ("checkpoint", _long_name),
    "older-checkpoint-that-claims-more": ("checkpoint", _claims),
    "model-is-a-pipe": ("pth", _pipe("m.pth")),
    "model-of-billions": ("pth", _layer(torch.zeros(1).expand(10**9, 3))),
    "model-is-sparse": ("pth", _layer(torch.sparse_coo_tensor([[0], [1]], [1.0], (10**6, 10**6)))),
    "state-with-wrong-settings": ("state", _saved(lambda: {**PROGRESS, "settings": 1})),
    "state-with-a-wrong-position": ("state", _saved(lambda: {**PROGRESS, "progress": {"stage": "x"}})),
    "state-with-a-tensor-as-its-format": ("state", _saved(lambda: {**PROGRESS, "format": torch.ones(3)})),
    "state-with-a-tensor-as-a-setting": (
        "state",
        _saved(lambda: {**PROGRESS, "settings": {"space": torch.ones(3), "device": "cpu"}}),
    ),
}
ATTACKS.update(ATTACKS_OF_CHECKPOINTS)
READERS.update(OF_CHECKPOINTS)
