"""Find the user's ``benchmark_model`` binary and check its ABI."""

from collections.abc import Mapping
from pathlib import Path

from ofa_agent.runtimes import benchmark_model
from ofa_tables.errors import DeviceError

SETTING = "benchmark_model"
DOWNLOADS = Path("~/.cache/litert-cli/binaries")  # of litert-cli, one directory per ABI
HEAD_BYTES = 20


def find(settings: Mapping[str, str], abi: str, phone: str) -> Path:
    """The binary that the user named, or the one that litert-cli keeps. Raises DeviceError if there is none for this
    ABI.
    """
    downloaded = DOWNLOADS.expanduser() / abi / "benchmark_model"
    path = Path(settings[SETTING]).expanduser() if SETTING in settings else downloaded
    try:
        with path.open("rb") as file:
            built_for = benchmark_model.abi(file.read(HEAD_BYTES))
    except OSError as error:
        what = f"{path}: {error.strerror}" if SETTING in settings else "TFLite's benchmark_model is not here"
        raise DeviceError(f"{what}; {_where(abi)} and name it with --set {SETTING}=PATH") from None
    if built_for and built_for != abi:
        raise DeviceError(f"{path} is built for {built_for}, {phone} is {abi}; {_where(abi)}")
    return path


def _where(abi: str) -> str:
    prebuilt = benchmark_model.PREBUILT.get(abi)
    return f"get it for {abi} from {prebuilt}" if prebuilt else f"build it for {abi} from TensorFlow's sources"
