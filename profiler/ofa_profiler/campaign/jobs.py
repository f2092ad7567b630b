"""The jobs of a campaign, blocks and whole networks, lowered before the first trial."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ofa_agent.operators import Block
from ofa_nas.spaces import find_space, parse_architecture
from ofa_profiler.lowering import Model, lower

# Inside a network a Block finds its weights cold: the others' have passed through the caches since its last run. Timed
# over and over alone, it finds them warm. So much clears the caches that a core has to itself, and leaves the shared
# ones as they are.
OTHERS_BYTES = 4 << 20


@dataclass(frozen=True)
class Job:
    """A Block, or a whole network as one, to be timed.

    ``others_bytes`` are moved through the caches before each run: see OTHERS_BYTES. ``parts`` are the Blocks of a
    network that are to be timed inside it.
    """

    block: Block
    model: Model
    others_bytes: int = 0
    parts: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Trial:
    trial_id: str
    job: Job
    round: int
    attempt: int = 0
    compared: bool = False  # it is taken by every device that shares the campaign

    @property
    def bursts(self) -> int:
        return 2 if self.job.parts else 1

    def again(self) -> "Trial":
        """One more attempt, on the next free device."""
        return replace(self, trial_id=uuid.uuid4().hex, attempt=self.attempt + 1, compared=False)


def lower_jobs(
    blocks: Iterable[Block], runtime: str, batch: int, others_bytes: int = 0, precision: str = "fp32"
) -> list[Job]:
    """One job a key; everything is lowered before the first trial, for the host may be the device too."""
    distinct = {block.key: block for block in blocks}.values()
    return [Job(block, lower(runtime, block, batch, precision), others_bytes) for block in distinct]


def reference_job(runtime: str, precision: str = "fp32") -> Job:
    """The reference Job: what it takes around a trial is the device's speed. The same for every table.

    A small network: it slows down as networks do where others use the same caches and memory.
    """
    space = find_space("ofa-mbv3-w1.0")
    smallest = {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 128}
    (job,) = lower_jobs([space.network(parse_architecture(smallest))], runtime, batch=1, precision=precision)
    return job
