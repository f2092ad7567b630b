"""The processes of a run: one, or those that ``torchrun`` started.

Every process draws the same sub-networks and has the same weights. Gradients are averaged in one piece, over the
parameters that the step's sub-networks used: all processes know which, so none has to look for unused ones.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ofa_tables.errors import OfaError, UsageError

# After this time a hanging process ends the others; a process that dies ends them at once.
SILENCE = timedelta(minutes=10)
MEETING = timedelta(minutes=2)  # time for all processes to start


class Processes:
    """``rank`` of ``world``, ``local_rank`` on this host, and the device of this process."""

    def __init__(self, rank: int, world: int, device: torch.device, local_rank: int = 0) -> None:
        self.rank = rank
        self.world = world
        self.device = device
        self.is_first_of_host = local_rank == 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the processes."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.world

    def total(self, *counts: int) -> list[int]:
        """The sum of each value over the processes."""
        if self.world == 1:
            return list(counts)
        summed = torch.tensor(counts, dtype=torch.int64, device=self.device)
        dist.all_reduce(summed)
        return [int(count) for count in summed]

    def any(self, is_so: bool) -> bool:
        """Whether it is true in at least one process."""
        return bool(self.total(int(is_so))[0])

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """(mean, biased variance, count) of each channel of (N, C, H, W) over all processes, which have equally large
        parts.
        """
        own_variance, own_mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        if self.world == 1:
            return own_mean, own_variance, x.numel() // x.shape[1]
        mean = _Sum.apply(own_mean) / self.world
        # Not E[x²] − mean², which loses all digits in single precision if a channel hardly varies.
        variance = _Sum.apply(own_variance + (own_mean - mean).square()) / self.world
        return mean, variance, x.numel() // x.shape[1] * self.world

    def from_first(self, value: Any) -> Any:
        """The value of the first process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is summed, too."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


@contextlib.contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes of this run. ``device`` is auto, cpu or cuda. Raises UsageError, OfaError if a process ended."""
    found = _device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(0, 1, found)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if found.type == "cuda":
        found = torch.device("cuda", local_rank)
        torch.cuda.set_device(found)
    _meet(found, rank, world)
    try:
        yield Processes(rank, world, found, local_rank)
        dist.barrier()
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise OfaError(
            f"rank {rank} lost another process ({_first_line(error)}); the last checkpoint is kept: see that process's "
            "own message, and resume with --resume"
        ) from None
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _meet(device: torch.device, rank: int, world: int) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store, *_ = next(rendezvous("env://", rank, world, timeout=MEETING))
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=SILENCE)
        store.set_timeout(SILENCE)
    except (RuntimeError, ValueError) as error:
        raise OfaError(
            f"rank {rank} did not meet all of the {world} processes within {MEETING.total_seconds():.0f} s "
            f"({_first_line(error)}): see the others' own messages, and MASTER_ADDR and MASTER_PORT"
        ) from None


def _lost(error: RuntimeError) -> bool:
    words = ("Connection closed", "Connection reset", "gloo", "NCCL", "Timed out", "Broken pipe", "peer")
    return any(word in str(error) for word in words)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:160]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no CUDA device here; train with --device cpu, or install torch with CUDA")
    return torch.device(name)
