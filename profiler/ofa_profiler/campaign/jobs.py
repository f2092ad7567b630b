"""The jobs of a campaign, blocks and whole networks, lowered before the first trial."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ofa_agent.commands.template import NO_REFERENCE, Template
from ofa_agent.inputs import ModelInput
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import chunks_size
from ofa_nas.spaces import find_space, parse_architecture
from ofa_profiler.lowering import Model, lower
from ofa_tables.identity import Identity

# Inside a network a block finds its weights cold, because other blocks have used the caches since. Timed alone in a
# loop, it finds them warm. This number of bytes clears the caches that belong to one core, and leaves the shared
# ones as they are.
OTHERS_BYTES = 4 << 20


@dataclass(frozen=True)
class Job:
    """A block, or a whole network as one block, to be timed.

    ``others_bytes`` are moved through the caches before each iteration (OTHERS_BYTES). ``parts`` are the blocks of a
    network that are timed inside it.
    """

    block: Block
    model: Model
    others_bytes: int = 0
    parts: tuple[Block, ...] = ()

    timeout_s = 120.0

    @property
    def key(self) -> str:
        return self.block.key

    @property
    def size(self) -> int:
        """A number by which jobs are compared: MACs."""
        return self.block.macs

    @property
    def divided(self) -> bool:
        """Whether parts of it are timed, too."""
        return bool(self.parts)

    def message(self, settings: Any) -> Any:
        message = wire.job_message(self.block, settings, self.model.model_id, self.others_bytes)
        message.parts.extend(wire.Part(key=part.key, operators=len(part.operators)) for part in self.parts)
        return message


@dataclass(frozen=True)
class FileJob:
    """A model file of the user, to be timed as a whole, and if ``divided`` layer by layer."""

    key: str
    model: Model
    format: str
    inputs: tuple[ModelInput, ...]
    divided: bool

    timeout_s = 600.0  # it may be of any size

    @property
    def size(self) -> int:
        """A number by which jobs are compared: bytes."""
        return chunks_size(self.model.chunks)

    def message(self, settings: Any) -> Any:
        return wire.file_job_message(self.key, self.format, self.inputs, self.divided, settings, self.model.model_id)


@dataclass(frozen=True)
class Trial:
    trial_id: str
    job: Job | FileJob
    round: int
    attempt: int = 0
    compared: bool = False  # every device of the pool runs it

    @property
    def bursts(self) -> int:
        return 2 if self.job.divided else 1

    def again(self) -> "Trial":
        """One more attempt, on the next free device."""
        return replace(self, trial_id=uuid.uuid4().hex, attempt=self.attempt + 1, compared=False)


def lower_jobs(
    blocks: Iterable[Block],
    runtime: str,
    batch: int,
    others_bytes: int = 0,
    precision: str = "fp32",
    command: str = "",
) -> list[Job]:
    """One job per key. Everything is lowered before the first trial, because the host may be the device.

    ``command`` is the template of the runtimes ``command:NAME``, as JSON.
    """
    distinct = {block.key: block for block in blocks}.values()
    return [Job(block, lower(runtime, block, batch, precision, command), others_bytes) for block in distinct]


def reference_job(runtime: str, precision: str = "fp32", command: str = "") -> Job:
    """The reference job, the same for every table. Its latency around a trial shows the device speed.

    It is a small network, so that other users of the caches and the memory slow it down as they slow down networks.
    """
    space = find_space("ofa-mbv3-w1.0")
    smallest = {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 128}
    network = space.network(parse_architecture(smallest))
    (job,) = lower_jobs([network], runtime, batch=1, precision=precision, command=command)
    return job


def reference_message(identity: Identity, job: Job, template: Template | None) -> tuple[Any, list[Job]]:
    """Return the message of the reference job, and the job if its model must be sent.

    Each run of a tool takes seconds. Another runtime therefore runs the reference job of a command, if its template
    names one; otherwise the message is empty.
    """
    settings = settings_message(identity, batch=1)
    if template is not None:
        if template.reference == NO_REFERENCE:
            return wire.Job(), []
        job = reference_job(template.reference)
        settings.runtime, settings.precision = template.reference, "fp32"
    return wire.job_message(job.block, settings, job.model.model_id), [job]


def settings_message(identity: Identity, command: str = "", batch: int | None = None) -> Any:
    """Return the settings of the jobs of a table; ``command`` is its template, as JSON."""
    settings = identity.settings
    return wire.Settings(
        runtime=identity.runtime,
        precision=settings.precision,
        threads=settings.threads,
        batch=settings.batch if batch is None else batch,
        command=command,
    )
