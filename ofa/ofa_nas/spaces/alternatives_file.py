"""Read the definition of a space of positions with alternatives."""

from collections.abc import Mapping
from typing import Any

from ofa_agent.operators import ACTIVATIONS, InvalidBlock
from ofa_nas.spaces.alternatives import SKIP, Alternative, AlternativesSpace, Choice, InvertedResidual
from ofa_nas.spaces.architecture import LONGEST_NAME
from ofa_nas.spaces.definitions import (
    LARGEST_KERNEL,
    LARGEST_RATIO,
    MOST_CHANNELS,
    MOST_STRIDE,
    read_classes,
    read_resolutions,
)
from ofa_nas.spaces.fields import Fields
from ofa_nas.spaces.steps import Place, read_steps

MOST_ALTERNATIVES, MOST_POSITIONS = 64, 128
MOST_OPERATORS = 1 << 13  # of all alternatives of all positions


def read_alternatives(name: str, fields: Fields) -> AlternativesSpace:
    """Raises FileError."""
    classes, resolutions_px = read_classes(fields), read_resolutions(fields)
    known: dict[str, Alternative] = {SKIP: ()}
    tables = fields.named_tables("alternatives", MOST_ALTERNATIVES, lambda key: f"alternative {key[:LONGEST_NAME]}")
    for key, table in tables.items():
        if key == SKIP or not 0 < len(key) <= LONGEST_NAME or not key.isprintable():
            fields.fail(f'alternatives has {key[:LONGEST_NAME]!r}; "skip" is built in, and a name is not empty')
        known[key] = _alternative(table)
    choices: list[Choice] = []
    for table in fields.tables("positions", MOST_POSITIONS, lambda number: f"position table {number}"):
        choices += _choices(table, known, classes, f"position {len(choices) + 1}")
        if len(choices) > MOST_POSITIONS:
            fields.fail(f"positions has more than {MOST_POSITIONS} positions; use fewer, or a smaller repeat")
    steps = sum(_size(alternative) for choice in choices for alternative in choice.alternatives.values())
    if steps > MOST_OPERATORS:
        fields.fail(f"its positions have {steps:,} operators, and {MOST_OPERATORS:,} is the most; use fewer of them")
    definition = {"classes": classes, "resolutions": list(resolutions_px), **_plain(fields)}
    fields.done()
    try:
        return AlternativesSpace(name, choices, resolutions_px, classes, definition)
    except InvalidBlock as error:
        fields.fail(str(error))


def define_alternatives(space: AlternativesSpace) -> dict[str, Any]:
    return dict(space.definition)


def _size(alternative: Alternative) -> int:
    return len(alternative) if isinstance(alternative, tuple) else 1


def _plain(fields: Fields) -> Mapping[str, Any]:
    return {name: fields.raw(name) for name in ("alternatives", "positions") if name in fields}


def _alternative(fields: Fields) -> Alternative:
    if "operators" in fields:
        found: Alternative = read_steps(fields, "operators")
    else:
        found = InvertedResidual(
            fields.one_of("kernel", range(1, LARGEST_KERNEL + 1, 2)),
            fields.number("expand", 0.1, LARGEST_RATIO),
            fields.flag("squeeze_excite", False),
            fields.one_of("activation", ACTIVATIONS, None),
        )
    fields.done()
    return found


def _choices(fields: Fields, known: Mapping[str, Alternative], classes: int, default_stage: str) -> list[Choice]:
    stage = fields.text("stage", LONGEST_NAME, default_stage)
    channels = fields.whole("channels", 1, MOST_CHANNELS, None)
    stride = fields.whole("stride", 1, MOST_STRIDE, 1)
    repeat = fields.whole("repeat", 1, MOST_POSITIONS, 1)
    activation = fields.one_of("activation", ACTIVATIONS, "relu")
    if "operators" in fields:
        alternatives: dict[str, Alternative] = {stage: read_steps(fields, "operators")}
    else:
        names = fields.choices("alternatives", known, MOST_ALTERNATIVES)
        if names == (SKIP,):
            fields.fail('alternatives has only "skip"; add another one, or remove the position')
        alternatives = {name: known[name] for name in names}
    is_fixed = "operators" in fields
    fields.done()
    return [
        Choice(
            stage,
            Place(channels, stride if number == 0 else 1, activation, classes),
            alternatives,
            is_fixed,
            repeat > 1 and number == 0,
        )
        for number in range(repeat)
    ]
