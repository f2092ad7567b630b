"""Profile a model from Python: a file, or a module of PyTorch with example inputs."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_profiler.campaign.progress import ShowProgress, no_progress, silent
from ofa_profiler.models.formats import read_model
from ofa_profiler.models.model_file import ModelFile
from ofa_profiler.models.profile import profile_files
from ofa_profiler.models.results import ModelProfile
from ofa_profiler.table_file import Say
from ofa_profiler.targets.target import Target, find_target
from ofa_tables.errors import FileError, UsageError
from ofa_tables.identity import Settings

AS_ONNX = ("onnxruntime", "openvino")  # beginnings of the names of runtimes that read ONNX


def profile_model(
    model: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    target: str | Target = "local",
    runtime: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 1,
    precision: str | None = None,
    effort: str = "standard",
    settings: Mapping[str, str] | None = None,
    fresh: bool = False,
    say: Say = silent,
    show_progress: ShowProgress = no_progress,
) -> ModelProfile:
    """Measure how long a model and its layers take on a target.

    ``model`` is the path of a .onnx, .tflite or .pt2 file, with ``shapes`` for inputs that it leaves open; or a
    ``torch.nn.Module`` with ``example_inputs``, the arguments of its ``forward``. A module is exported by
    ``torch.export`` and executed by PyTorch, or exported to ONNX if ``runtime`` reads that. Measurements are kept in a
    table in the current folder. Raises OfaError; a model that failed has a ``failure``.
    """
    device = find_target(target, settings or {}, runtime) if isinstance(target, str) else target
    if isinstance(model, str | Path):
        if example_inputs is not None:
            raise UsageError("example_inputs are for a module; a file has its own inputs, with shapes={...} if open")
        file = read_model(Path(model), {name: tuple(shape) for name, shape in (shapes or {}).items()})
    else:
        if example_inputs is None:
            raise UsageError("a module needs example_inputs: the arguments of its forward, such as (torch.randn(…),)")
        file = export(model, tuple(example_inputs), as_onnx=bool(runtime and runtime.startswith(AS_ONNX)))
    (profile,) = profile_files(
        [file],
        [device],
        Settings(threads=threads),
        runtime=runtime,
        precision=precision,
        effort=effort,
        fresh=fresh,
        say=say,
        show_progress=show_progress,
    )
    return profile


def export(module: Any, example_inputs: tuple[Any, ...], as_onnx: bool) -> ModelFile:
    """Export a module of PyTorch in evaluation mode. Raises FileError if PyTorch cannot."""
    import torch

    was_training = module.training
    module.eval()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{type(module).__name__}{'.onnx' if as_onnx else '.pt2'}"
            if as_onnx:
                torch.onnx.export(module, example_inputs, str(path), dynamo=False)
            else:
                torch.export.save(torch.export.export(module, example_inputs), str(path))
            return read_model(path)
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileError(f"PyTorch cannot export {type(module).__name__}: {reason}") from None
    finally:
        module.train(was_training)
