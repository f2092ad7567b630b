"""``ofa-accuracy``: files of accuracy models."""

from pathlib import Path

import click
from rich.markup import escape

from ofa_nas.accuracy import read_members, write_members
from ofa_nas.cli import answer, example, json_option, print_json, run


@click.group(name="ofa-accuracy", no_args_is_help=True)
def command() -> None:
    """Accuracy models, which rank networks in ofa-search."""


@command.command(
    name="import",
    short_help="Turn torch's file into one that needs no torch.",
    epilog=example("ofa-accuracy import predictor.pth --out predictor.npz"),
)
@click.argument("source", metavar="FILE.pth", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE.npz", help="An old one is replaced."
)
@json_option
def import_(source: Path, out: Path, as_json: bool) -> None:
    """Read the published accuracy predictor, a state dict that torch saved, and write it as an .npz.

    Reading takes torch; ofa-search then does not.
    """
    members = read_members(source)
    write_members(out, members)
    layers = members[0]
    sizes = [layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers)]
    if as_json:
        print_json({"file": str(out), "sizes": sizes, "members": len(members)})
    else:
        ensemble = f"an ensemble of {len(members)}, each of " if len(members) > 1 else ""
        answer.print(f"{escape(str(out))}: {ensemble}{len(layers)} layers, {' → '.join(map(str, sizes))}")


main = run(command)
