"""The state of a run, written atomically, so that ``--resume`` leads to exactly the same weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa_nas.supernet.checkpoints import save
from ofa_nas.supernet.pickles import load
from ofa_tables.errors import FileError, UsageError

FORMAT = 3
CONTENTS = frozenset({"data", "table", "architecture", "init"})  # contents are compared, not paths


@dataclass
class Progress:
    """``stage``, ``epoch`` and ``batch`` come next; ``loss`` is the loss of the last complete epoch. ``seconds`` and
    ``joules`` cover all sessions, ``first_stage_s`` is the duration of the first stage; ``broken`` are paths of images
    that could not be decoded. ``sorts``: whether channels may be sorted; not if the run started from a checkpoint with
    narrow networks.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    joules: float | None = None
    images: int = 0
    epoch_losses: list[float] = field(default_factory=list)
    loss: float = float("nan")
    images_per_second: float = 0.0
    first_stage_s: float | None = None
    broken: list[str] = field(default_factory=list)
    sorts: bool = True


def write_state(path: Path, settings: Mapping[str, Any], progress: Progress, tensors: Mapping[str, Any]) -> None:
    """``tensors`` are the state of the learner, by name. Raises FileError."""
    save(path, {"format": FORMAT, "settings": dict(settings), "progress": vars(progress), **tensors})


def read_state(path: Path, settings: Mapping[str, Any]) -> tuple[Progress, dict[str, Any]]:
    """Raises FileError if it cannot be read, UsageError if it was started with other settings."""
    found = load(path)
    if "state_dict" in found:
        raise FileError(
            f"{path} holds a network's weights, not a run's state: restore the state.pth that the run wrote, or "
            "use another --out to start over"
        )
    version = found.get("format")
    if not isinstance(version, int) or version != FORMAT:
        raise FileError(f"{path} was written by a different version of ofa-profile; use another --out to start over")
    before, progress = found.pop("settings", None), _progress(found.pop("progress", None))
    if progress is None or not isinstance(before, dict) or not all(map(_is_plain, before.values())):
        raise FileError(
            f"{path} is damaged: it does not contain the position of the run; use another --out to start over"
        )
    if before.get("device") == "auto":  # an older one, which does not contain the device
        before["device"] = settings["device"]
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        listed = ", ".join(_reported(name, before.get(name)) for name in changed)
        raise UsageError(
            f"{path} was started with {listed}; use the same values, or start over with another --out and no --resume"
        )
    return progress, found


def not_of_this_run(path: Path, error: Exception) -> FileError:
    """The error for tensors that do not fit the run."""
    reason = " ".join(str(error).split())[:200]
    return FileError(f"{path} is damaged, or not of this run ({reason}); use another --out to start over")


def _progress(value: Any) -> Progress | None:
    """None if a field is missing, unknown, or of another type."""
    empty = vars(Progress(joules=0.0, first_stage_s=0.0))
    if not isinstance(value, dict) or value.keys() != empty.keys():
        return None
    for name, like in empty.items():
        is_missing = value[name] is None and name in ("joules", "first_stage_s")
        kinds = (int, float) if isinstance(like, float) else (type(like),)
        if not is_missing and type(value[name]) not in kinds:
            return None
    is_valid = all(type(loss) is float for loss in value["epoch_losses"]) and all(
        isinstance(name, str) for name in value["broken"]
    )
    return Progress(**value) if is_valid else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(item is None or isinstance(item, str | int | float) for item in value)
    return value is None or isinstance(value, str | int | float)


def _reported(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {flag}"
    if name in CONTENTS:
        return f"another {flag} (or other contents of it)"
    if value is True:
        return flag
    return f"{flag} {','.join(map(str, value)) if isinstance(value, list) else value}"
