"""The formats of model files: how each is recognised and read, and which runtimes read it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_agent.commands.template import parse_text
from ofa_profiler.models.model_file import MOST_BYTES, WHAT, ModelFile, Shape
from ofa_profiler.targets.target import Target
from ofa_tables.errors import DeviceError, FileError, UsageError
from ofa_tables.reading import opened

Read = Callable[[Path, Mapping[str, Shape]], ModelFile]


@dataclass(frozen=True)
class Format:
    """``runtimes`` read it, in order of preference."""

    name: str
    suffixes: tuple[str, ...]
    runtimes: tuple[str, ...]
    title: str


FORMATS = (
    Format("onnx", (".onnx",), ("onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt"), "ONNX"),
    Format(
        "tflite",
        (".tflite", ".lite"),
        (
            *("tflite", "benchmark_model", "tflite-gpu"),
            *("benchmark_model-none", "benchmark_model-gpu", "benchmark_model-nnapi", "benchmark_model-hexagon"),
        ),
        "TFLite",
    ),
    Format("pt2", (".pt2",), ("torch", "torch-compile"), "torch.export"),
)


def is_model_file(text: str) -> bool:
    """Whether a text names a model file, by its suffix."""
    return Path(text).suffix.lower() in {suffix for each in FORMATS for suffix in each.suffixes}


def format_of(path: Path) -> Format:
    """Return the format of a file by its suffix. Raises UsageError."""
    for each in FORMATS:
        if path.suffix.lower() in each.suffixes:
            return each
    known = ", ".join(suffix for each in FORMATS for suffix in each.suffixes)
    hint = "; export it with torch.export.save" if path.suffix.lower() in (".pt", ".pth") else ""
    raise UsageError(f"{path} is not a model file that can be profiled: the suffix must be one of {known}{hint}")


def read_model(path: Path, shapes: Mapping[str, Shape] | None = None) -> ModelFile:
    """Read a model file; ``shapes`` are those of open inputs. Raises FileError, UsageError."""
    found = format_of(path)
    with opened(path, MOST_BYTES, WHAT):  # before the packages below are imported
        pass
    try:
        return _reader(found.name)(path, shapes or {})
    except MemoryError:
        raise FileError(f"{path} does not fit into the memory of this machine; use a smaller model") from None


def _reader(name: str) -> Read:
    if name == "onnx":
        from ofa_profiler.models.onnx_reader import read_onnx

        return read_onnx
    if name == "tflite":
        from ofa_profiler.models.tflite_reader import read_tflite

        return read_tflite
    from ofa_profiler.models.pt2_reader import read_pt2

    return read_pt2


def find_runtime(target: Target, wanted: str | None, name: str, description: Mapping[str, Any]) -> str:
    """Return the runtime that runs files of a format on the device. Raises UsageError, DeviceError.

    By default it is the first one of the target that reads the format, or another that loads there.
    """
    (found,) = (each for each in FORMATS if each.name == name)
    there: Sequence[str] = description["runtimes"]
    if wanted is not None:
        _require_reads(wanted, found, target.commands.get(wanted, ""))
        return wanted
    reading = [*found.runtimes, *(key for key, text in target.commands.items() if parse_text(text).model == name)]
    preferred = [runtime for runtime in [*target.runtimes, *found.runtimes] if runtime in reading and runtime in there]
    if not preferred:
        reasons = [f"{runtime}: {description['missing_runtimes'].get(runtime, '')}" for runtime in found.runtimes[:2]]
        raise DeviceError(
            f"{target.name} has no runtime that reads {found.title} files ({'; '.join(reasons)}); install one, such as "
            f"with ofa-targets provision {target.name} --runtime {found.runtimes[0]}"
        )
    return preferred[0]


def require_reads(runtime: str, file: ModelFile, command: str = "") -> None:
    """Raise UsageError if a runtime, of a command template ``command`` as JSON, does not read files of this format."""
    _require_reads(runtime, next(each for each in FORMATS if each.name == file.format), command)


def _require_reads(runtime: str, found: Format, command: str) -> None:
    reads = parse_text(command).model == found.name if command else runtime in found.runtimes
    if not reads:
        raise UsageError(f"runtime {runtime} does not read {found.title} files; {', '.join(found.runtimes)} do")


def stated_accuracies(texts: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Parse ``mine.onnx=0.752``. Raises UsageError."""
    accuracies: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        name = Path(name).name
        if name not in names:
            raise UsageError(f"--accuracy-of {text}: {name or text} is not one of the model files")
        try:
            accuracies[name] = float(value)
        except ValueError:
            accuracies[name] = -1.0
        if not 0 < accuracies[name] <= 1:
            raise UsageError(f"--accuracy-of takes FILE=0.752, a fraction from 0 to 1, not {text!r}")
    return accuracies
