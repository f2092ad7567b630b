"""Batches at elastic resolutions, through torch's ordinary DataLoader.

A batch's size is drawn from (seed, epoch, batch), so it is the same on every process; what augments an image from
(seed, epoch, image), so that it does not matter which process loads it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ofa_nas.training.data.images import Batch, Draw, Images, mixed
from ofa_tables.errors import OfaError, UsageError

SIZES = 0x7078  # (seed, epoch) and (seed, epoch, 0) are one stream: sizes need a separate stream


def training_batches(
    images: Images,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    resolutions_px: Sequence[int],
    rank: int = 0,
    world: int = 1,
    first: int = 0,
) -> list[list[Draw]]:
    """This process's equal part of each batch of an epoch, starting with batch ``first``. An incomplete last batch is
    dropped unless it is the only one. ``batch_size`` is the total of all processes. Raises UsageError if it cannot be
    divided.
    """
    size = min(batch_size, len(images) // world * world)
    if batch_size % world or not size:
        raise UsageError(
            f"{world} processes cannot share batches of {batch_size} of {len(images)} images equally; give a "
            "--batch-size that they divide"
        )
    order = np.random.default_rng((seed, epoch)).permutation(len(images))
    part = size // world
    batches = []
    for number in range(first, len(images) // size):
        px = int(np.random.default_rng((seed, epoch, number, SIZES)).choice(np.asarray(resolutions_px)))
        start = number * size + rank * part
        chosen = order[start : start + part]
        seeds = mixed(np.uint64(_seed_of(seed, epoch)) + chosen.astype(np.uint64))
        batches.append([Draw(int(index), px, int(own)) for index, own in zip(chosen, seeds, strict=True)])
    return batches


def evaluation_batches(images: Images, *, px: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[Draw]]:
    """All images in order, not augmented; the batches alternate between the processes."""
    starts = range(0, len(images), batch_size)[rank::world]
    return [[Draw(at, px, None) for at in range(start, min(start + batch_size, len(images)))] for start in starts]


def loader(images: Images, batches: Sequence[Sequence[Draw]], workers: int = 0) -> Iterator[Batch]:
    """``workers`` processes decode ahead; with 0 this process does. Raises what ``images`` raises, and OfaError if a
    worker dies.
    """
    return _from_workers(images, batches, workers) if workers else map(images.__getitems__, batches)


def _from_workers(images: Images, batches: Sequence[Sequence[Draw]], workers: int) -> Iterator[Batch]:
    loading = DataLoader(
        _Telling(images),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="forkserver",
    )
    try:
        for found in loading:
            if isinstance(found, OfaError):
                raise found
            yield found
    except (RuntimeError, EOFError, ConnectionError) as error:  # of its pipe, if that is noticed first
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise OfaError(
            "a process that loads images was killed, possibly because memory ran out: resume with fewer --workers"
        ) from None


class _Telling(Dataset[Batch]):
    """Return a worker's error: torch would raise it again with the worker's traceback in its message."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __getitems__(self, draws: Sequence[Draw]) -> Batch | OfaError:
        try:
            return self._images.__getitems__(draws)
        except OfaError as error:
            return error


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _seed_of(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])
