"""Spaces of positions with alternatives: one choice of a block at each position (FBNet, TF-NAS, DARTS-like chains).

An architecture has one gene list, ``alternatives``: the name of the choice at each position that has several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ofa_agent import keys
from ofa_agent import operators as ops
from ofa_agent.operators import Block, Operator, Shape
from ofa_nas.spaces.architecture import NAMED, Architecture
from ofa_nas.spaces.parts import IMAGE_CHANNELS, inverted_residual, inverted_residual_key, make_divisible
from ofa_nas.spaces.space import ABSENT, GeneGroup, IntArray, Position, Space
from ofa_nas.spaces.steps import Place, Step, operators_of

SKIP = "skip"  # the alternative without operators
_POOLED, _FLAT = 0, -1  # instead of a reduction


@dataclass(frozen=True)
class InvertedResidual:
    """The compact form of an inverted residual. Without an ``activation``, it has that of its position."""

    kernel: int
    expand: float
    squeeze_excite: bool = False
    activation: str | None = None

    def operators(self, shape: Shape, place: Place) -> tuple[Operator, ...]:
        mid = self._mid(shape)
        squeeze = ops.SqueezeExcite(mid, make_divisible(mid / 4)) if self.squeeze_excite else None
        out = shape[0] if place.channels is None else place.channels
        function = self.activation or place.activation
        return tuple(inverted_residual(shape[0], mid, out, self.kernel, place.stride, function, squeeze))

    def key(self, shape: Shape, output: Shape, place: Place) -> str:
        function, skip = self.activation or place.activation, place.stride == 1 and shape[0] == output[0]
        mid = self._mid(shape)
        return inverted_residual_key(shape, output, mid, self.kernel, place.stride, skip, self.squeeze_excite, function)

    def _mid(self, shape: Shape) -> int:
        return shape[0] if self.expand == 1 else make_divisible(shape[0] * self.expand)


Alternative = InvertedResidual | tuple[Step, ...]  # empty: skip


@dataclass(frozen=True)
class Choice:
    """One position: its place, and its alternatives by name.

    ``is_fixed``: it has one, which has no name in the file. ``drops_skip``: leave "skip" out if its output differs from
    its input, as in the first of several equal positions.
    """

    stage: str
    place: Place
    alternatives: Mapping[str, Alternative]
    is_fixed: bool = False
    drops_skip: bool = False


@dataclass(frozen=True)
class _Entry:
    """A block, independent of the resolution: where it stands (by reduction of the image), and what it is."""

    reduction: int
    input_channels: int
    operators: tuple[Operator, ...]


class AlternativesSpace(Space):
    """The networks of a list of choices. ``definition`` is the content of its file.

    The alternatives of a position are ordered by MACs, "skip" first, so that smaller choices come first. Raises
    InvalidBlock, which names position and alternative, if the operators do not fit together.
    """

    kernel_sizes = ()
    expand_ratios: tuple[int, ...] = ()
    groups_share_blocks = False
    choice_names = ("alternatives",)
    batch_norm_epsilon = 1e-5

    def __init__(
        self,
        name: str,
        choices: Sequence[Choice],
        resolutions_px: tuple[int, ...],
        classes: int,
        definition: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.classes = classes
        self.definition = definition
        self.stages = tuple(dict.fromkeys(choice.stage for choice in choices))
        self._choices = tuple(choices)
        self._blocks = lru_cache(maxsize=None)(self._build_blocks)
        self._entry_of: dict[_Entry, int] = {}
        self._made_of: list[tuple[_Entry, Alternative, Place]] = []
        self._named: list[tuple[str, ...]] = []
        self._entries: list[tuple[int, ...]] = []
        state: tuple[int, Shape] = (1, (IMAGE_CHANNELS, max(resolutions_px), max(resolutions_px)))
        for number, choice in enumerate(choices, start=1):
            state = self._add(number, choice, *state)
        self.names = tuple(names for names, choice in zip(self._named, choices, strict=True) if not choice.is_fixed)
        groups = [
            GeneGroup(f"position {number}", tuple(range(len(names))), 1)
            for number, (names, choice) in enumerate(zip(self._named, choices, strict=True), start=1)
            if not choice.is_fixed
        ]
        self.groups = (*groups, GeneGroup("r", resolutions_px, 1))
        self.others_encoded = tuple(group.name for group in groups)

    def _add(self, number: int, choice: Choice, reduction: int, shape: Shape) -> tuple[int, Shape]:
        """Add the entries of a position with this input. Return the reduction and the shape of its output."""
        found: dict[str, tuple[Alternative, tuple[Operator, ...]]] = {}
        ends: dict[str, tuple[int, Shape]] = {}
        for name, alternative in choice.alternatives.items():
            try:
                operators = _operators(alternative, shape, choice.place)
                output = ops.shapes(operators, shape)[-1] if operators else shape
            except ops.InvalidBlock as error:
                raise ops.InvalidBlock(f"{_at(number, choice, name)}: {error}") from None
            except (IndexError, TypeError):
                raise ops.InvalidBlock(
                    f"{_at(number, choice, name)}: it cannot take a value of shape {shape}"
                ) from None
            alike = next((other for other, (_, those) in found.items() if those == operators), None)
            if alike is not None:
                raise ops.InvalidBlock(f"{_at(number, choice, name)} is the same block as {alike}; remove one of them")
            ends[name] = _reductions(operators, reduction)[-1], output
            found[name] = alternative, operators
        if SKIP in found and choice.drops_skip and len(set(ends.values())) > 1:
            del found[SKIP], ends[SKIP]
        (first, end), *others = ends.items()
        for name, other in others:
            if other != end:
                raise ops.InvalidBlock(
                    f"{_at(number, choice, name)} has the output {_words(*other)}, and {first} {_words(*end)}; all "
                    "alternatives of a position need the same"
                )
        names = sorted(found, key=lambda name: (bool(found[name][1]), _macs(found[name][1], shape)))
        self._named.append(tuple(names))
        self._entries.append(tuple(self._entry(reduction, shape, *found[name], choice.place) for name in names))
        return end

    def _entry(
        self, reduction: int, shape: Shape, alternative: Alternative, operators: tuple[Operator, ...], place: Place
    ) -> int:
        if not operators:
            return ABSENT
        entry = _Entry(reduction, shape[0], operators)
        if entry not in self._entry_of:
            self._entry_of[entry] = len(self._made_of)
            self._made_of.append((entry, alternative, place))
        return self._entry_of[entry]

    def blocks(self, resolution_px: int) -> tuple[Block, ...]:
        return self._blocks(resolution_px)

    def _build_blocks(self, resolution_px: int) -> tuple[Block, ...]:
        self.require_resolutions([resolution_px])
        return tuple(_block(*each, resolution_px) for each in self._made_of)

    def build_positions(self) -> tuple[Position, ...]:
        positions, gene = [], 0
        for choice, entries in zip(self._choices, self._entries, strict=True):
            stage, none = self.stages.index(choice.stage), np.full(len(entries), ABSENT)
            rows = () if choice.is_fixed else (gene,)
            gene += len(rows)
            radices = () if choice.is_fixed else (len(entries),)
            positions.append(Position(stage, rows, radices, np.array(entries), none, none))
        return tuple(positions)

    def choices_of(self, position: Position, code: int) -> tuple[Any, ...]:
        if not position.genes or position.entries[code] == ABSENT:
            return ()
        return (self.names[position.genes[0]][code],)

    def genes_of(self, architecture: Architecture) -> list[int]:
        chosen = self.gene_of(architecture, NAMED, len(self.names))
        for at, names in enumerate(self.names):
            self.require_choices(chosen, names, NAMED, [at])
        self.require_resolutions([architecture.resolution_px])
        indices = [names.index(name) for name, names in zip(chosen, self.names, strict=True)]
        return [*indices, self.resolutions_px.index(architecture.resolution_px)]

    def architecture_of(self, indices: IntArray) -> Architecture:
        chosen = tuple(names[index] for names, index in zip(self.names, indices[:-1], strict=True))
        return Architecture({NAMED: chosen}, self.resolutions_px[int(indices[-1])])

    def complete(self, genes: Mapping[str, Any]) -> dict[str, Any]:
        """Repeat a single name at every position."""
        return {
            name: [value] * len(self.names) if name == NAMED and isinstance(value, str) else value
            for name, value in genes.items()
        }


def _operators(alternative: Alternative, shape: Shape, place: Place) -> tuple[Operator, ...]:
    if isinstance(alternative, InvertedResidual):
        return alternative.operators(shape, place)
    return operators_of(alternative, shape, place)


def _block(entry: _Entry, alternative: Alternative, place: Place, resolution_px: int) -> Block:
    shape = _shape(entry, resolution_px)
    operators = _operators(alternative, shape, place)
    output = ops.shapes(operators, shape)[-1]
    if isinstance(alternative, InvertedResidual):
        return Block(alternative.key(shape, output, place), shape, operators)
    return Block(keys.operators_key(shape, output, operators), shape, operators)


def _shape(entry: _Entry, resolution_px: int) -> Shape:
    if entry.reduction == _FLAT:
        return (entry.input_channels,)
    px = 1 if entry.reduction == _POOLED else (resolution_px - 1) // entry.reduction + 1
    return (entry.input_channels, px, px)


def _reductions(operators: Sequence[Operator], reduction: int) -> list[int]:
    """Return the reduction of each value: the factor by which it is smaller than the image."""
    found = [reduction]
    for operator in operators:
        if isinstance(operator, ops.Add | ops.Take):
            found.append(found[operator.value])
        elif isinstance(operator, ops.Linear):
            found.append(_FLAT)
        elif isinstance(operator, ops.Pool):
            found.append(_POOLED)
        else:
            found.append(found[-1] * getattr(operator, "stride", getattr(operator, "size", 1)))
    return found


def _macs(operators: Sequence[Operator], shape: Shape) -> int:
    return Block("", shape, tuple(operators)).macs if operators else 0


def _words(reduction: int, shape: Shape) -> str:
    where = {_POOLED: "after a pool", _FLAT: "after a linear layer"}.get(reduction, f"at 1/{reduction} of the image")
    return f"{shape[0]} channels {where}"


def _at(number: int, choice: Choice, name: str) -> str:
    named = "" if choice.is_fixed else f": {name}"
    return f"position {number} ({choice.stage}){named}"
