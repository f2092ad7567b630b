"""The plan of a run, derived from its options before training."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ofa_nas.selection import read_network, read_networks
from ofa_nas.spaces import Architecture, Population, Space
from ofa_nas.spaces.recorded import find_space_in
from ofa_nas.spaces.space import IntArray
from ofa_nas.training.options import Options
from ofa_nas.training.recipes import Stage, stages_of
from ofa_nas.training.sampling import Choices, EvenlyOverLatency, Sampler, Uniform, unused_choices
from ofa_tables.errors import UsageError
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.words import counted

FOLLOWED = 5  # sub-networks whose accuracy is followed by default
INDEPENDENT = "independent"
TEACHER_WORK = 1 / 3  # of a sub-network's step: the forward pass only


@dataclass(frozen=True)
class Plan:
    """``followed`` are the sub-networks whose accuracy is reported, with ``predicted_ms`` if there is a table;
    ``unused[g]`` the choices of gene g that no network within the limit has. ``skipped`` are the stages of the recipe
    before the first one that is trained.
    """

    space: Space
    stages: tuple[Stage, ...]
    resolutions_px: tuple[int, ...]
    followed: tuple[Architecture, ...]
    latency: LatencyModel | None = None
    limit_ms: float = math.inf
    unused: tuple[IntArray, ...] = field(default=())
    skipped: tuple[Stage, ...] = ()

    @classmethod
    def of(cls, options: Options) -> "Plan":
        """Raises UsageError if options contradict each other; OfaError if a file cannot be read, a table lacks entries,
        or no network meets the limit.
        """
        space = find_space_in(options.space, [options.table] if options.table else [])
        skipped, stages = _stages(options, space)
        latency = _latency(options, space)
        limit_ms = options.max_latency_ms or math.inf
        wanted: Sequence[int] = space.resolutions_px if latency is None else latency.require()
        if options.recipe == INDEPENDENT:
            wanted = [_independent(options, space).resolution_px]
        wanted = options.resolutions or wanted
        space.require_resolutions(wanted)
        unused: tuple[IntArray, ...] = ()
        if latency is not None:
            latency.require(wanted)
            unused = tuple(unused_choices(latency, space, limit_ms, wanted))
            wanted = [px for px in wanted if space.resolutions_px.index(px) not in unused[-1]]
        followed = _followed(options, space, tuple(wanted), latency, limit_ms)
        if latency is not None:
            latency.require(sorted({each.resolution_px for each in followed}))
        return cls(space, stages, tuple(wanted), tuple(followed), latency, limit_ms, unused, skipped)

    @property
    def predicted_ms(self) -> list[float | None]:
        if self.latency is None:
            return [None] * len(self.followed)
        return [float(ms) for ms in self.latency.predict(self.space.encode(self.followed))]

    @property
    def largest(self) -> Architecture:
        genes = (self.space.radices - 1).astype(np.uint8)
        return self.space.decode(Population(genes[:, None]))[0]

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def ratios_before(self, at: int) -> tuple[float, ...]:
        """The expand ratios that were trained before stage ``at``."""
        return (*self.skipped, *self.stages)[len(self.skipped) + at - 1].ratios(self.space)

    def work(self, stages: Sequence[Stage] | None = None) -> float:
        """The work in epochs of one sub-network."""
        return sum(work_of_epoch(stage) * stage.epochs for stage in (self.stages if stages is None else stages))

    def sampler(self, stage: Stage, seed: tuple[int, ...]) -> Sampler:
        """Sample evenly over latency if there is a table and the stage has networks within the limit at each
        resolution; ``seed`` chooses the candidates. Otherwise sample uniformly.
        """
        choices = Choices.of_stage(self.space, stage)
        if self.latency is None or stage.trains_one:
            return Uniform(choices)
        choices = choices.without(self.unused)
        even = EvenlyOverLatency(choices, self.latency, self.limit_ms, seed)
        return even if all(even.reaches(px) for px in self.resolutions_px) else Uniform(choices)

    def table_digest(self) -> str | None:
        """A digest of the latencies of many networks, to the nanosecond."""
        if self.latency is None:
            return None
        networks = self.space.sample_spread(1000, np.random.default_rng(0), self.resolutions_px)
        return hashlib.sha256(self.latency.predict(networks).round(6).tobytes()).hexdigest()

    @property
    def simulated(self) -> bool:
        """Whether the latencies of the table were computed instead of measured."""
        return self.latency is not None and self.latency.simulated

    def note_on_table(self) -> str | None:
        """A note on the table, if its latencies are not measured."""
        if self.latency is None or not self.simulated:
            return None
        return f"{self.latency.table.path} is simulated: its latencies are computed, not measured on a device"

    def left_out(self) -> str | None:
        """What the limit excludes, as text."""
        if not any(len(choices) for choices in self.unused):
            return None
        choices = sum(len(choices) for choices in self.unused[:-1])
        return (
            f"under {self.limit_ms:g} ms {choices} of {int(self.space.radices[:-1].sum())} choices are of no use and "
            f"left out, and {counted(len(self.unused[-1]), 'resolution')}"
        )


def work_of_epoch(stage: Stage) -> float:
    return stage.sub_networks + (TEACHER_WORK if stage.distilled else 0.0)


def _stages(options: Options, space: Space) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """(stages to skip, stages to train)."""
    stages = tuple(stages_of(options.recipe, space, options.epochs_scale))
    first = options.first_stage or 1
    if first > len(stages):
        raise UsageError(
            f"the recipe {options.recipe} has {counted(len(stages), 'stage')}, so --first-stage is too large"
        )
    if first > 1 and options.init is None:
        raise UsageError("--first-stage needs --init, the checkpoint that the earlier stages would have trained")
    return stages[: first - 1], stages[first - 1 :]


def _latency(options: Options, space: Space) -> LatencyModel | None:
    if options.table is None:
        if options.max_latency_ms is not None:
            raise UsageError("--max-latency-ms needs the --table that predicts latencies")
        return None
    return LatencyModel.read(options.table, space)


def _followed(
    options: Options, space: Space, resolutions_px: tuple[int, ...], latency: LatencyModel | None, limit_ms: float
) -> list[Architecture]:
    """The given sub-networks, or some spread from the smallest to the largest."""
    if options.recipe == INDEPENDENT:
        return [_independent(options, space)]
    if options.evaluate is not None:
        return read_networks(options.evaluate, space, resolutions_px)[0]
    candidates = space.sample_spread(512, np.random.default_rng(0), resolutions_px)
    sizes = space.macs(candidates) if latency is None else latency.predict(candidates)
    if latency is not None and (sizes <= limit_ms).any():
        candidates, sizes = candidates[sizes <= limit_ms], sizes[sizes <= limit_ms]
    wanted = np.linspace(sizes.min(), sizes.max(), FOLLOWED)
    return space.decode(candidates[list(dict.fromkeys(int(np.abs(sizes - size).argmin()) for size in wanted))])


def _independent(options: Options, space: Space) -> Architecture:
    if options.architecture is None:
        raise UsageError("the recipe independent trains one network: name it with --architecture")
    return read_network(options.architecture, "the recipe independent", space, options.resolutions)
