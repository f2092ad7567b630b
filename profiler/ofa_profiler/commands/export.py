"""``ofa-export``: writes one network of a supernet as a file to deploy."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from ofa_nas.cli import answer, example, json_option, print_json, run, say
from ofa_nas.selection import read_network
from ofa_nas.spaces import find_space
from ofa_nas.spaces.reading import is_inline
from ofa_profiler.models.formats import is_model_file
from ofa_tables.errors import FileError, UsageError

if TYPE_CHECKING:  # it needs torch
    from ofa_profiler.export import Exported

PATH = click.Path(path_type=Path)


@click.command(
    name="ofa-export",
    epilog=example(
        "ofa-export --checkpoint run/supernet.pth --architecture found.json --format onnx --data fashion-mnist "
        "--out net.onnx",
        "ofa-export --checkpoint ofa_mbv3.pth --space ofa-mbv3-w1.0 --architecture found.json --format tflite "
        "--out net.tflite",
    ),
)
@click.option("--checkpoint", type=PATH, required=True, help="Supernet from ofa-train, or a published supernet.")
@click.option(
    "--space",
    "space_name",
    metavar="NAME|FILE",
    help="Search space of a published checkpoint. Checkpoints written by ofa-train contain it.",
)
@click.option(
    "--architecture",
    required=True,
    metavar="FILE[:NAME]|JSON|WORD",
    help="Network to export: ofa-search's output, a published net.config, or smallest, largest or random:SEED.",
)
@click.option("--format", required=True, metavar="onnx|tflite|torch", help='File format; "torch" is TorchScript.')
@click.option(
    "--data",
    "source",
    metavar="PATH|digits|fashion-mnist",
    help="Data set for batch-norm statistics and the accuracy test.",
)
@click.option(
    "--statistics-images",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Training images for batch-norm statistics.",
)
@click.option(
    "--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Held-out images to test on."
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images per inference.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    metavar="fp32|fp16|int8",
    help="Numeric precision; fp16 only with tflite, int8 only with onnx and --data.",
)
@click.option("--out", type=PATH, required=True, metavar="FILE", help="Output file; an existing file is replaced.")
@json_option
def command(
    checkpoint: Path,
    space_name: str | None,
    architecture: str,
    format: str,
    source: str | None,
    statistics_images: int,
    images: int,
    batch: int,
    precision: str,
    out: Path,
    as_json: bool,
) -> None:
    """Extract one network from a supernet and write it to a file.

    The file has the same operators that ofa-profile measures, with trained weights. It is written only if its outputs
    match those of the supernet. In int8, training images of --data determine the ranges of the activations; the
    printed accuracy shows what quantisation costs.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise UsageError("ofa-export needs torch: pip install 'ofa-profile[train]'") from None
    from ofa_nas.supernet import OneNetwork, load_network
    from ofa_nas.training.data import open_data
    from ofa_profiler.export import export

    if not out.parent.is_dir():
        raise FileError(f"cannot write {out}: {out.parent} is not a directory")
    supernet = load_network(checkpoint, find_space(space_name) if space_name else None).eval()
    network = read_network(architecture, "ofa-export", supernet.space)
    if isinstance(supernet, OneNetwork) and network != supernet.architecture:
        only = json.dumps(supernet.architecture.to_json())
        raise UsageError(f"{checkpoint} contains only one network, and it is a different one: {only}")
    data = None if source is None else open_data(source)
    if data is not None:
        for note in data.notes:
            say(note)
        data.require_classes(supernet.classes, supernet.class_names)
    found = export(supernet, network, format, out, data, statistics_images, images, batch, precision)
    if as_json:
        print_json(asdict(found) | {"architecture": found.architecture.to_json()})
        return
    print_exported(found, out, architecture)


def print_exported(found: "Exported", out: Path, architecture: str) -> None:
    answer.print(
        f"[bold]{escape(str(out))}[/]: {found.bytes / 1e6:.2f} MB, {found.macs / 1e6:.1f} M MACs, "
        f"{found.parameters / 1e6:.2f} M parameters"
    )
    unknown = "; mean and std are unknown without --data" if found.input.mean is None else ""
    answer.print(f"  input: {found.input}{unknown}")
    answer.print(
        f"  largest difference from the supernet: {found.largest_difference:.1e} of the largest logit; same top-1 "
        f"class for {found.same_top1:.1%} of the images"
    )
    if found.accuracy is None:
        answer.print(
            "  batch norm uses the supernet's running statistics, which mix all sub-networks; add --data to estimate "
            "them for this network"
        )
    else:
        answer.print(f"  top-1 on held-out images: {found.accuracy:.2%}; supernet: {found.supernet_accuracy:.2%}")
    file = "FILE" if is_inline(architecture) else shlex.quote(architecture)
    holding = f", where FILE contains {json.dumps(found.architecture.to_json())}" if is_inline(architecture) else ""
    answer.print(
        f"  to measure it: ofa-compare --table TABLE --space {found.space} --networks {file}{holding}", markup=False
    )
    if is_model_file(str(out)):
        answer.print(f"  to measure its layers: ofa-profile --target local --model {out}", markup=False)


main = run(command)
