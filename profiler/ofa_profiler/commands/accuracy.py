"""``ofa-accuracy``: collects pairs, and fits and evaluates accuracy models."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ofa_nas.accuracy import Mlp, read_members, write_members
from ofa_nas.accuracy.evaluation import Quality, quality
from ofa_nas.accuracy.pairs import Pairs, read_pairs
from ofa_nas.cli import Resolutions, answer, example, json_option, print_json, run, say
from ofa_nas.spaces import Space, find_space
from ofa_nas.spaces.recorded import about as about_space
from ofa_nas.spaces.recorded import space_about
from ofa_profiler.commands.display import bar
from ofa_tables.errors import UsageError
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.files import require_writable
from ofa_tables.words import counted

PATH = click.Path(path_type=Path)
LITTLE_TAU = 0.3


@click.group(
    name="ofa-accuracy",
    no_args_is_help=True,
    epilog=example(
        "ofa-accuracy collect --checkpoint run/supernet.pth --data fashion-mnist --out pairs.jsonl",
        "ofa-accuracy fit pairs.jsonl --out accuracy.npz",
    ),
)
def command() -> None:
    """Collect pairs, and fit and evaluate accuracy models, which rank networks in ofa-search."""


@command.command(
    short_help="Measure the accuracy of many sub-networks.",
    epilog=example(
        "ofa-accuracy collect --checkpoint run/supernet.pth --data fashion-mnist --networks 2000 --out pairs.jsonl",
        "torchrun --nproc-per-node 8 --no-python ofa-accuracy collect --checkpoint run/supernet.pth …",
    ),
)
@click.option("--checkpoint", type=PATH, required=True, help="Supernet from ofa-train, or a published one.")
@click.option(
    "--space",
    "space_name",
    metavar="NAME|FILE",
    help="Search space of a published checkpoint. Checkpoints written by ofa-train contain it.",
)
@click.option("--data", "source", required=True, metavar="PATH|digits|fashion-mnist", help="Data set, as in ofa-train.")
@click.option(
    "--networks", type=click.IntRange(min=1), default=2000, show_default=True, help="Number of networks to evaluate."
)
@click.option("--table", type=PATH, help="Latency table; networks are sampled evenly over its latencies.")
@click.option(
    "--resolutions",
    type=Resolutions(),
    help='Input sizes in pixels, comma-separated, or "all". [default: all of the space and the table]',
)
@click.option(
    "--images", type=click.IntRange(min=2), default=10_000, show_default=True, help="Maximum held-out images."
)
@click.option(
    "--statistics-images",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Training images for batch-norm statistics.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Processor to evaluate on.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads per process. [default: torch's]")
@click.option("--out", type=PATH, required=True, metavar="PAIRS", help="Output file; an existing file is resumed.")
@json_option
def collect(
    checkpoint: Path,
    space_name: str | None,
    source: str,
    networks: int,
    table: Path | None,
    resolutions: tuple[int, ...] | None,
    images: int,
    statistics_images: int,
    seed: int,
    device: str,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Measure the top-1 accuracy of sub-networks on held-out images.

    Batch-norm statistics are estimated for each network. Each pair is saved as soon as it is measured.
    """
    torch = _torch()
    from ofa_nas.accuracy.collect import Evaluator, networks_to_collect
    from ofa_nas.accuracy.collect import collect as carry_out
    from ofa_nas.accuracy.fit import ENOUGH
    from ofa_nas.supernet import load_supernet
    from ofa_nas.training.data import open_data
    from ofa_nas.training.processes import processes

    if threads:
        torch.set_num_threads(threads)
    with processes(device) as found:
        supernet = load_supernet(checkpoint, find_space(space_name) if space_name else None)
        supernet = supernet.to(found.device, memory_format=torch.channels_last).eval()
        latency = LatencyModel.read(table, supernet.space) if table else None
        wanted = resolutions or (latency.require() if latency else supernet.space.resolutions_px)
        supernet.space.require_resolutions(wanted)
        chosen = networks_to_collect(supernet.space, networks, tuple(wanted), latency, seed)
        data = open_data(source)
        data.require_classes(supernet.classes, supernet.class_names)
        about = {
            **about_space(supernet.space),
            "data": source,
            "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16],
            "images": min(images, len(data.held_out)),
            "statistics_images": min(statistics_images, len(data.train)),
        }
        if found.is_first:
            for note in data.notes:
                say(note)
            if latency and latency.simulated:
                say(f"{table} is simulated: networks are sampled over computed latencies, not measured ones")
            _warn_of_few(len(chosen), ENOUGH)
        with bar("networks evaluated", found.is_first) as progress:
            evaluate = Evaluator(supernet, data, images, statistics_images, found.device)
            pairs = carry_out(evaluate, chosen, out, about, found, progress)
            broken = len(evaluate.broken.of_all(found))
        if not found.is_first:
            return
    _print_collected(out, pairs, broken, as_json)


def _warn_of_few(pairs: int, enough: int) -> None:
    if pairs < enough:
        say(
            f"{counted(pairs, 'pair')} may be too few for ofa-accuracy fit, which needs about {enough}; "
            "run the same command with more --networks to add pairs"
        )


def _print_collected(out: Path, pairs: Pairs, broken: int, as_json: bool) -> None:
    accuracies = pairs.accuracies
    if as_json:
        print_json({"file": str(out), "pairs": len(accuracies), **pairs.about, "broken_images": broken})
    else:
        answer.print(
            f"{escape(str(out))}: {counted(len(accuracies), 'network')} of {pairs.about['space']} on "
            f"{counted(pairs.about['images'], 'image')}, top-1 {accuracies.min():.2%} to {accuracies.max():.2%}"
        )
        if broken:
            answer.print(f"{counted(broken, 'image')} could not be decoded; other images replaced them")


@command.command(
    short_help="Fit an accuracy model to pairs.",
    epilog=example("ofa-accuracy fit pairs.jsonl --out accuracy.npz"),
)
@click.argument("source", metavar="PAIRS", type=PATH)
@click.option("--members", type=click.IntRange(min=1), default=5, show_default=True, help="Ensemble size.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--out", type=PATH, required=True, metavar="FILE.npz", help="Output file; an existing file is replaced.")
@json_option
def fit(source: Path, members: int, seed: int, out: Path, as_json: bool) -> None:
    """Fit an ensemble of MLPs to PAIRS, and report its error on the held-out tenth of the networks."""
    _torch()
    from ofa_nas.accuracy.fit import fit as carry_out

    pairs = read_pairs(source)
    space = space_about(pairs.about, str(source))
    require_writable(out)
    say(f"fitting an ensemble of {members} to {len(pairs.pairs)} pairs")
    with bar("members fitted") as progress:
        found = carry_out(pairs, space, members, seed, progress)
    write_members(out, found)
    _report(out, Mlp(space, found, str(out)), pairs, space, as_json)


@command.command(
    short_help="Report the error of an accuracy model.",
    epilog=example("ofa-accuracy evaluate accuracy.npz pairs.jsonl"),
)
@click.argument("file", metavar="FILE", type=PATH)
@click.argument("source", metavar="PAIRS", type=PATH)
@click.option(
    "--all", "all_pairs", is_flag=True, help="Test on all pairs; use it with pairs that the model was not fitted on."
)
@json_option
def evaluate(file: Path, source: Path, all_pairs: bool, as_json: bool) -> None:
    """Report the error and rank correlation of a model on held-out pairs.

    The rank correlation between two halves of the test images is printed as a reference. A model's correlation with
    one half cannot be much higher than that.
    """
    pairs = read_pairs(source)
    space = space_about(pairs.about, str(source))
    _report(file, Mlp(space, read_members(file), str(file)), pairs, space, as_json, all_pairs)


@command.command(
    name="import",
    short_help="Convert a torch predictor to .npz.",
    epilog=example("ofa-accuracy import predictor.pth --out predictor.npz"),
)
@click.argument("source", metavar="FILE.pth", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="FILE.npz", help="Output file; an existing file is replaced.")
@json_option
def import_(source: Path, out: Path, as_json: bool) -> None:
    """Convert a published accuracy predictor, a torch state dict, to an .npz file.

    The conversion needs torch; ofa-search can read the .npz file without it.
    """
    members = read_members(source)
    write_members(out, members)
    layers = members[0]
    sizes = [layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers)]
    if as_json:
        print_json({"file": str(out), "sizes": sizes, "members": len(members)})
    else:
        ensemble = f"an ensemble of {len(members)}, each of " if len(members) > 1 else ""
        answer.print(f"{escape(str(out))}: {ensemble}{counted(len(layers), 'layer')}, {' → '.join(map(str, sizes))}")


def _report(path: Path, model: Mlp, pairs: Pairs, space: Space, as_json: bool, all_pairs: bool = False) -> None:
    tested = pairs if all_pairs else pairs.only([pair.is_held_out for pair in pairs.pairs])
    if not tested.pairs:
        raise UsageError(f"none of the {len(pairs.pairs)} pairs is held out; collect more, or add --all")
    found = quality(model, tested, space)
    if as_json:
        print_json({"file": str(path), "members": len(model.members), "pairs": len(pairs.pairs), **asdict(found)})
    else:
        answer.print(f"{escape(str(path))}: {_words(found, all_pairs)}")


def _words(found: Quality, all_pairs: bool) -> str:
    tau, with_half, of_halves = (
        "none" if each is None else f"{each:.3f}" for each in (found.tau, found.tau_with_half, found.tau_of_halves)
    )
    networks = counted(found.networks, "network" if all_pairs else "held-out network")
    with_each_other = f"between the halves {of_halves}"
    lines = [
        f"on {networks}: RMSE {100 * found.rmse:.2f} points of accuracy, bias {100 * found.bias:+.2f}",
        f"  Kendall's tau {tau}; with one half of the images {with_half}, {with_each_other}",
    ]
    if found.within_95 is not None:
        lines.append(f"  {found.within_95:.0%} of the networks are within the model's 95 % interval")
    if found.tau is None or found.tau < LITTLE_TAU:
        lines.append(
            "  the model hardly ranks the networks; collect more networks or use more --images. Networks of equal "
            "accuracy cannot be ranked"
        )
    return "\n".join(lines)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise UsageError("this needs torch: pip install 'ofa-profile[train]'") from None
    return torch


main = run(command)

if __name__ == "__main__":
    main()
