"""Profile eight public architectures as a user's own files, and check the figures.

    .venv/bin/python scripts/own_models.py --folder build/own-models
    .venv/bin/python scripts/own_models.py --folder build/own-models --converter PYTHON    # also as TFLite

Exports the architectures of ``architectures.py`` by PyTorch as ONNX, quantises one with onnxruntime.quantization, and
with ``--converter`` (a Python with litert-torch) writes TFLite files. Profiles every file layer by layer, and prints
the sum of the layers relative to the whole model, and for ONNX the whole model relative to a bare loop
(``bare_loop.py``), interleaved. ``--check`` also fails if a ratio is off by more than 2 %.
"""

import argparse
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from architectures import ARCHITECTURES, SIZE, make
from bare_loop import compare, in_words
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from ofa_profiler.library import profile_model, read_model
from ofa_profiler.models.results import ModelProfile

QUANTISED = "resnet-18"
TOLERANCE = 0.02


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.only or [*ARCHITECTURES, f"{QUANTISED}-int8"]
    _export(names, options.folder)
    if options.converter:
        converter = [options.converter, str(Path(__file__).with_name("architectures.py")), str(options.folder)]
        subprocess.run(converter, check=True, env={**os.environ, "PYTHONPATH": ""})
    paths = [options.folder.absolute() / f"{name}{suffix}" for name in names for suffix in (".onnx", ".tflite")]
    paths = [path for path in paths if path.exists()]
    os.chdir(options.folder)
    off: list[str] = []
    for path in paths:
        profile = profile_model(path, effort=options.effort, threads=options.threads, fresh=False)
        if profile.failure:
            off.append(f"{path.name}: {profile.failure}")
            print(off[-1], flush=True)
            continue
        print(_line(profile), flush=True)
        whole = (profile.layers_ms + profile.between_ms) / profile.latency_ms
        off += [f"{path.name}: layers / whole {whole:.4f}"] if abs(whole - 1) > TOLERANCE else []
    files = [read_model(path) for path in paths if path.suffix == ".onnx"]
    for name, ratios in compare(files, options.rounds, options.threads):
        print(f"{name}: agent / bare loop {in_words(ratios)}", flush=True)
        middle = float(np.median(ratios))
        off += [f"{name}: agent / bare loop {middle:.4f}"] if abs(middle - 1) > TOLERANCE else []
    if off:
        print(f"more than {TOLERANCE:.0%} off: {'; '.join(off)}")
    sys.exit(bool(off) and options.check)


def _line(profile: ModelProfile) -> str:
    interval = "" if profile.half_width is None else f" ±{profile.half_width:.1%}"
    macs = "" if profile.macs is None else f", {profile.macs / 1e6:,.0f} M MACs"
    counted = sum(layer.macs or 0 for layer in profile.layers)
    assigned = f", {counted / profile.macs:.1%} of them in layers" if profile.macs else ""
    layers = (
        f"{len(profile.layers)} layers, their sum {profile.layers_ms / profile.latency_ms:.4f} of the whole, "
        f"{profile.between_ms / profile.latency_ms:.1%} between layers"
        if profile.layers
        else profile.layers_error
    )
    memory = "" if profile.peak_mb is None else f", {profile.peak_mb:.0f} MB"
    return f"{profile.name}: {profile.latency_ms:.4g} ms{interval}{memory}{macs}{assigned}; {layers}"


def _export(names: list[str], folder: Path) -> None:
    for name in names:
        path = folder / f"{name}.onnx"
        if not path.exists():
            if name.endswith("-int8"):
                _export([QUANTISED], folder)
                quantize_static(folder / f"{QUANTISED}.onnx", path, _Random(), QuantFormat.QDQ, per_channel=True)
                continue
            module, example = make(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(module, (example,), str(path), input_names=["x"], dynamo=False)


class _Random(CalibrationDataReader):
    """Random images to calibrate with: they change the outputs of a quantised model, not its latency."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        shape = (1, 3, SIZE, SIZE)
        self._images = iter([{"x": generator.standard_normal(shape).astype(np.float32)} for _ in range(2)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._images, None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/own-models"))
    parser.add_argument("--only", nargs="+", help="Names of architectures.")
    parser.add_argument("--converter", help="A Python with litert-torch.")
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--rounds", type=int, default=20, help="Rounds of the comparison with a bare loop.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="Exit with 1 if a ratio is off by more than 2 %%.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
