"""``ofa-train``, and under torchrun ``-m ofa_nas.training``."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ofa_nas.cli import Resolutions, answer, example, json_option, print_json, run
from ofa_tables.errors import OfaError, UsageError
from ofa_tables.store.files import replacing
from ofa_tables.words import counted

NO_MEMORY = ("out of memory", "allocate memory")  # the messages of torch for a GPU and for a CPU
POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(
    name="ofa-train",
    epilog=example(
        "ofa-train --space tiny --data fashion-mnist --recipe progressive --epochs-scale 0.02 --out run",
        "ofa-train --space tiny --data digits --recipe progressive --table laptop.lut --max-latency-ms 0.3 --out run",
        "ofa-train --space ofa-mbv3-w1.0 --data flowers --recipe none --init ofa_mbv3_d234_e346_k357_w1.0",
        "torchrun --nproc-per-node 8 -m ofa_nas.training --space ofa-mbv3-w1.0 --data imagenet --workers 8",
    ),
)
@click.option(
    "--space", required=True, metavar="NAME|FILE", help="Search space to train, such as tiny or my_space.toml."
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    metavar="PATH|digits|fashion-mnist",
    help="Images: digits, fashion-mnist, or a directory with train/CLASS/ and val/CLASS/.",
)
@click.option(
    "--recipe",
    default="progressive",
    show_default=True,
    help="Stages to train: progressive, compound, largest, none or independent.",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Checkpoint of ofa-train, or a published one, to start from. With other classes, the classifier is new.",
)
@click.option("--first-stage", type=click.IntRange(min=1), help="First stage of the recipe to train; requires --init.")
@click.option(
    "--table", type=click.Path(path_type=Path), help="Latency table; sub-networks are drawn evenly over its latencies."
)
@click.option(
    "--max-latency-ms", type=POSITIVE, help="Latency limit; choices that no network within the limit has are left out."
)
@click.option("--epochs-scale", type=POSITIVE, default=1.0, show_default=True, help="Fraction of the papers' epochs.")
@click.option(
    "--rate-scale", type=POSITIVE, default=1.0, show_default=True, help="Multiple of the papers' learning rates."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Images per step, over all processes.",
)
@click.option(
    "--resolutions", type=Resolutions(), help="Input sizes in pixels. [default: all of the space and the table]"
)
@click.option("--train-images", type=click.IntRange(min=1), help="Number of training images to use. [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("training"), show_default=True)
@click.option("--resume", is_flag=True, help="Resume the run in --out, or start it if there is none.")
@click.option(
    "--architecture",
    metavar="FILE[:NAME]|JSON|WORD",
    help="Network that the recipe independent trains; WORD is smallest, largest or random:SEED.",
)
@click.option(
    "--evaluate",
    metavar="FILE|JSON|WORD",
    help="Sub-networks to evaluate during training. [default: five, from small to large]",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
@click.option("--compile", is_flag=True, help="Compile the teacher with torch.compile, once for all image sizes.")
@click.option(
    "--accumulate", type=click.IntRange(min=1), default=1, help="Number of parts in which a batch is computed."
)
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Decay of an average of the weights, such as 0.9999.",
)
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True)
@click.option(
    "--batch-norm",
    type=click.Choice(["auto", "shared", "own"]),
    default="auto",
    show_default=True,
    help="Compute statistics over all processes (shared) or per process (own); auto: shared if there are several.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of a process; default: torch's.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that load images.")
@click.option("--checkpoint-minutes", type=POSITIVE, default=15.0, show_default=True)
@click.option("--evaluations", type=click.IntRange(min=0), default=20, show_default=True, help="While it trains.")
@json_option
def command(resume: bool, as_json: bool, resolutions: tuple[int, ...] | None, **flags: Any) -> None:
    """Train the supernet of SPACE, and report the accuracy of its sub-networks.

    OUT holds supernet.pth (as published), state.pth (for --resume), epochs.csv, evaluations.csv and, with --table, the
    curve of accuracy over milliseconds. After Ctrl-C, --resume continues from the last epoch or checkpoint.
    """
    try:
        import torch
    except ImportError:
        raise UsageError("training needs torch: pip install 'ofa-profile[train]'") from None
    from ofa_nas.training.options import Options
    from ofa_nas.training.processes import processes
    from ofa_nas.training.trainer import STATE, Trainer

    options = Options(resolutions=resolutions or None, **flags)
    if (options.out / STATE).exists() and not resume:
        raise UsageError(f"{options.out} already contains a run; resume it with --resume, or use another --out")
    if options.threads:
        torch.set_num_threads(options.threads)
    with _memory_reported(), processes(options.device) as found:
        trained = Trainer(options, found).run(resume)
        if not found.is_first:
            return
    summary = _summary(options, trained)
    with replacing(options.out / "summary.json") as file:
        file.write(json.dumps(summary).encode() + b"\n")
    if as_json:
        print_json(summary)
    else:
        _print(trained)


@contextlib.contextmanager
def _memory_reported() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        raise OfaError(
            "the device ran out of memory: start over with --accumulate, which splits batches, or with a "
            "smaller --batch-size"
        ) from None


def _summary(options: Any, trained: Any) -> dict[str, Any]:
    def listed(found: list[Any]) -> list[dict[str, Any]]:
        return [
            {
                "architecture": each.architecture.to_json(),
                "predicted_ms": each.predicted_ms,
                "simulated": each.simulated,
                "accuracy": each.accuracy,
            }
            for each in found
        ]

    return {
        "checkpoint": trained.path,
        "space": options.space,
        "data": options.data,
        "recipe": options.recipe,
        "init": None if options.init is None else str(options.init),
        "seed": options.seed,
        "epochs": trained.epochs,
        "loss": trained.loss,
        "images_per_second": round(trained.images_per_second, 1),
        "held_out": listed(trained.held_out),
        "test": listed(trained.test),
        "broken_images": trained.broken,
        "cost": trained.cost.to_json(),
    }


def _print(trained: Any) -> None:
    answer.print(f"[bold]{escape(trained.path)}[/] after {counted(trained.epochs, 'epoch')}, loss {trained.loss:.4f}")
    for held_out, test in zip(trained.held_out, trained.test, strict=True):
        latency = "" if test.predicted_ms is None else f"{test.predicted_ms:.3f} {test.unit}  "
        answer.print(f"  network {test.label}  {latency}{held_out.accuracy:.2%} held out  {test.accuracy:.2%} test")
    if trained.broken:
        answer.print(f"{counted(trained.broken, 'image')} could not be decoded; others stood in their places")
    cost = trained.cost
    energy = "no energy meter can be read here"
    if cost.energy_kwh is not None:
        grams = cost.to_json()["grams_per_kwh"]
        energy = f"{cost.energy_kwh:.3f} kWh ({cost.energy_of}), {cost.co2_grams:.0f} g of CO2 at {grams:g} g/kWh"
    answer.print(f"cost: {cost.device_hours:.3f} device hours; {energy}")
    if cost.one_by_one_hours is not None:
        answer.print(
            f"trained one by one as long as the largest, {cost.networks} networks take {cost.one_by_one_hours:.3f} "
            "device hours; this run has all of the space"
        )


main = run(command, "the last checkpoint, if any, is kept; run the same command with --resume to continue")

if __name__ == "__main__":
    main()
