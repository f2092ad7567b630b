"""Accuracy of sub-networks, each with its own batch-norm statistics."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ofa_nas.spaces import Architecture
from ofa_nas.supernet import estimated
from ofa_nas.training.data import Batch, Broken, Draw, Images, evaluation_batches, loader
from ofa_nas.training.processes import Processes

BATCH = 500


def accuracy(
    model: torch.nn.Module,
    architecture: Architecture,
    images: Images,
    statistics: Sequence[Tensor],
    processes: Processes,
    workers: int = 0,
    broken: Broken | None = None,
) -> float:
    """Top-1 accuracy on all ``images``, 0…1, shared among the processes. ``statistics`` are batches for batch norm.
    ``broken`` counts images that cannot be decoded.
    """
    batches = _batches(images, architecture.resolution_px, processes, workers, broken)
    hits = correct(model, architecture, batches, statistics)
    right, seen = processes.total(int(hits.sum()), len(hits))
    return right / seen


@torch.no_grad()
def correct(
    model: torch.nn.Module,
    architecture: Architecture,
    batches: Iterator[tuple[Tensor, Tensor]],
    statistics: Sequence[Tensor],
) -> Tensor:
    """(images,) bool: which images the sub-network classifies correctly."""
    forward: Callable[[Tensor], Tensor] = lambda x: model(x, architecture)  # noqa: E731
    with estimated(model, forward, statistics):
        hits = [(forward(images).argmax(1) == labels).cpu() for images, labels in batches]
    return torch.cat(hits) if hits else torch.zeros(0, dtype=torch.bool)  # a process may have no batch


def statistics_batches(
    images: Images,
    count: int,
    resolution_px: int,
    seed: int,
    processes: Processes,
    workers: int = 0,
    augmented: bool = False,
    broken: Broken | None = None,
) -> list[Tensor]:
    """About ``count`` training images for batch-norm statistics, the same in every process."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    draws = [
        [Draw(index, resolution_px, index if augmented else None) for index in chosen[start : start + BATCH]]
        for start in range(0, len(chosen), BATCH)
    ]
    return [batch.images.to(processes.device) for batch in counting(loader(images, draws, workers), broken)]


def counting(batches: Iterable[Batch], broken: Broken | None) -> Iterator[Batch]:
    """Yield batches; ``broken`` counts the images that cannot be decoded."""
    for batch in batches:
        if broken is not None:
            broken.add(batch.broken)
        yield batch


def _batches(
    images: Images, resolution_px: int, processes: Processes, workers: int, broken: Broken | None
) -> Iterator[tuple[Tensor, Tensor]]:
    draws = evaluation_batches(images, px=resolution_px, batch_size=BATCH, rank=processes.rank, world=processes.world)
    for batch in counting(loader(images, draws, workers), broken):
        yield batch.images.to(processes.device), batch.labels.to(processes.device)
