"""torch files with wrong contents, and the readers of such files. Requires torch."""

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import torch
from mutations import VALUES, change_bytes
from readers import ARCHITECTURE, Reader, read_model
from tables_of_attackers import TINY

from ofa_nas.spaces import parse_architecture
from ofa_nas.supernet import OneNetwork, build_supernet
from ofa_nas.supernet.checkpoints import load_network, save_supernet
from ofa_nas.training.initial_weights import digest_of, start_from
from ofa_nas.training.state import FORMAT, Progress, read_state, write_state

SETTINGS = {"space": "tiny", "device": "cpu"}


def doubled(depth: int) -> Any:
    """A value of 2^depth parts in a file of some bytes."""
    value: Any = "x"
    for _ in range(depth):
        value = [value, value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def tensors() -> list[Any]:
    return [
        torch.zeros(1).expand(10**9, 3),
        torch.zeros(1).expand(2**40),
        torch.zeros(10**12, 0),
        torch.zeros(0),
        torch.zeros(()),
        torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.ones(1), (10**9, 10**9)),
        torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 10**9)),
        torch.empty(3, device="meta"),
        torch.empty(10**15, device="meta"),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(3, dtype=torch.float64) * float("nan"),
        torch.ones(3, dtype=torch.bfloat16),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        torch.ones(3, 4).t(),
        torch.ones(3).as_strided((2**20, 2**20), (0, 0)),
        torch.nn.Parameter(torch.ones(3)),
        torch.ones(3, requires_grad=True),
    ]


OTHERS = (doubled, endless, tensors)


def change_checkpoint(random_: random.Random, content: bytes, path: Path) -> None:
    """Change bytes of the file, bytes of the pickle in it, or values and tensors."""
    kind = random_.randrange(6)
    if kind == 0:
        path.write_bytes(change_bytes(random_, content))
    elif kind <= 2:
        _change_members(random_, content, path, only=".pkl" if kind == 1 else "")
    else:
        value = torch.load(io.BytesIO(content), weights_only=True)
        _change_values(random_, value)
        try:
            torch.save(value, path, _use_new_zipfile_serialization=random_.random() < 0.7)
        except Exception:  # torch cannot write every value
            path.write_bytes(content[: random_.randrange(len(content))])


def _change_members(random_: random.Random, content: bytes, path: Path, only: str) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    names = [number for number, (name, _) in enumerate(members) if only in name]
    number = random_.choice(names)
    members[number] = members[number][0], change_bytes(random_, members[number][1])
    with zipfile.ZipFile(path, "w", random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for name, inside in members:
            new.writestr(name, inside)


def _change_values(random_: random.Random, value: dict[str, Any]) -> None:
    nasty = [*VALUES, doubled(60), endless(), *tensors()]
    inner = value.get("state_dict") if isinstance(value.get("state_dict"), dict) else value
    target = inner if random_.random() < 0.6 else value
    name = random_.choice(list(target))
    kind = random_.randrange(5)
    if kind == 0:
        del target[name]
    elif kind == 1:
        target[random_.choice(("x", "space", "classes", "architecture", "normalisation", "state_dict"))] = target[name]
    elif kind == 2:
        value[random_.choice(("space", "classes", "architecture", "normalisation", "recipe"))] = random_.choice(nasty)
    else:
        target[name] = random_.choice(nasty)


def _checkpoints(folder: Path) -> list[Path]:
    supernet = build_supernet(TINY, 10)
    save_supernet(folder / "supernet.pth", supernet, classes=[str(number) for number in range(10)], recipe="largest")
    return [folder / "supernet.pth"]


def _both(folder: Path) -> list[Path]:
    one = OneNetwork(TINY, parse_architecture(ARCHITECTURE), 10)
    save_supernet(folder / "alone.pth", one, normalisation={"mean": [0.5] * 3, "std": [0.5] * 3})
    return [*_checkpoints(folder), folder / "alone.pth"]


def read_checkpoint(path: Path) -> None:
    digest_of(path)
    load_network(path)


def read_initial(path: Path) -> None:
    start_from(path, build_supernet(TINY, 10), [str(number) for number in range(10)])


def _states(folder: Path) -> list[Path]:
    write_state(folder / "state.pth", SETTINGS, Progress(), {"weights": {"w": torch.ones(3)}})
    assert FORMAT
    return [folder / "state.pth"]


def _models(folder: Path) -> list[Path]:
    layers = {"0.weight": torch.rand(4, 128), "0.bias": torch.rand(4)}
    torch.save({"state_dict": {**layers, "2.weight": torch.rand(1, 4), "2.bias": torch.rand(1)}}, folder / "m.pth")
    return [folder / "m.pth"]


READERS = {
    "checkpoint": Reader(_both, change_checkpoint, read_checkpoint),
    "initial": Reader(_checkpoints, change_checkpoint, read_initial),
    "state": Reader(_states, change_checkpoint, lambda path: read_state(path, SETTINGS)),
    "pth": Reader(_models, change_checkpoint, read_model),
}
