"""The ``benchmark_model`` binary that a user has for a phone: found, and held against the phone's ABI."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from ofa_tables.errors import DeviceError

SETTING = "benchmark_model"
# ELF's e_machine by Android's name of an ABI (psABI supplements), and what TensorFlow's nightly builds call it.
MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62, "x86": 3}
NIGHTLY = {"arm64-v8a": "android_aarch64", "armeabi-v7a": "android_arm"}
DOWNLOADS = "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest"


def find(settings: Mapping[str, str], abi: str, phone: str) -> Path:
    """The user's binary. Raises DeviceError where there is none, or one for other phones."""
    given = settings.get(SETTING)
    path = Path(given).expanduser() if given else _downloaded(abi)
    if path is None or not path.is_file():
        missing = f"{path} is not there" if path else "TFLite's benchmark_model is not here"
        raise DeviceError(f"{missing}; {_where(abi)}, and name it with --set {SETTING}=PATH")
    machine = _machine(path)
    if machine is not None and machine != MACHINES.get(abi, machine):
        names = {number: name for name, number in MACHINES.items()}
        raise DeviceError(
            f"{path} is for {names.get(machine, f'ELF machine {machine}')}, {phone} is {abi}; {_where(abi)}"
        )
    return path


def _where(abi: str) -> str:
    build = NIGHTLY.get(abi)
    if build is None:
        return f"build it for {abi} from the sources of TensorFlow (tensorflow/lite/tools/benchmark)"
    return f"get it for {abi} from {DOWNLOADS}/{build}_benchmark_model"


def _downloaded(abi: str) -> Path | None:
    """Where litert-cli keeps its downloads."""
    cache = Path(os.environ.get("LITERT_CLI_HOME", Path.home() / ".litert"))
    found = sorted(cache.glob(f"**/*{abi}*/benchmark_model")) if cache.is_dir() else []
    return found[-1] if found else None


def _machine(path: Path) -> int | None:
    """What kind of processor an ELF file is for; None where it is none, as a script is."""
    with path.open("rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return None
    (machine,) = struct.unpack(">H" if head[5] == 2 else "<H", head[18:20])
    return int(machine)
