"""``ofa-export``: one network, ready to deploy."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from ofa_nas.cli import answer, example, json_option, print_json, run
from ofa_nas.selection import is_json, read_network
from ofa_nas.spaces import find_space
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
@click.option("--checkpoint", type=PATH, required=True, help="ofa-train's, or a published supernet's.")
@click.option("--space", "space_name", help="What a published checkpoint is of; ours say so themselves.")
@click.option(
    "--architecture", required=True, metavar="FILE[:NAME]|JSON", help="One network, e.g. ofa-search's answer."
)
@click.option("--format", required=True, metavar="onnx|tflite|torch", help="torch: TorchScript.")
@click.option("--data", "source", metavar="PATH|digits|fashion-mnist", help="For batch norm's statistics, and a test.")
@click.option("--statistics-images", type=click.IntRange(min=1), default=2000, show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Held-out ones to test on.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True, metavar="fp32|fp16")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="An old one is replaced.")
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
    """Take one network out of a supernet's CHECKPOINT and write it as FILE.

    It is what ofa-profile measures, with trained weights, and is held against the supernet before it is written.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise UsageError("ofa-export needs torch: pip install 'ofa-profile[train]'") from None
    from ofa_nas.supernet import OneNetwork, load_network
    from ofa_nas.training.data import open_data
    from ofa_profiler.export import export

    if not out.parent.is_dir():
        raise FileError(f"cannot write {out}: there is no folder {out.parent}")
    supernet = load_network(checkpoint, find_space(space_name) if space_name else None).eval()
    network = read_network(architecture, "ofa-export")
    supernet.space.encode([network])
    if isinstance(supernet, OneNetwork) and network != supernet.architecture:
        raise UsageError(f"{checkpoint} holds another network alone: {json.dumps(supernet.architecture.to_json())}")
    data = None if source is None else open_data(source)
    if data is not None:
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
    unknown = "; its mean and std are known with --data alone" if found.input.mean is None else ""
    answer.print(f"  takes images as {found.input}{unknown}")
    answer.print(
        f"  largest difference from the supernet {found.largest_difference:.1e} of the largest logit, same answer for "
        f"{found.same_top1:.1%} of the images"
    )
    if found.accuracy is None:
        answer.print(
            "  its batch norm has the supernet's running statistics, a mixture of all sub-networks': with --data they "
            "are estimated for this one"
        )
    else:
        answer.print(f"  top-1 on held-out images {found.accuracy:.2%}, the supernet's {found.supernet_accuracy:.2%}")
    file = "FILE" if is_json(architecture) else shlex.quote(architecture)
    holding = f", FILE with {json.dumps(found.architecture.to_json())}" if is_json(architecture) else ""
    answer.print(
        f"  measured by: ofa-compare --table TABLE --space {found.space} --networks {file}{holding}", markup=False
    )


main = run(command)
