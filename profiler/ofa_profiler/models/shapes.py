"""Shapes of inputs: those of the file, with ``--shape`` for what the file leaves open."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ofa_tables.errors import FileError, UsageError

Shape = tuple[int, ...]
OnFile = tuple[int | str, ...]  # a size, or the name of a dimension that the file leaves open

SINGLE = ""  # the name in Shapes of the only input of a model
LIKELY = {1: (16,), 2: (1, 16), 3: (1, 16, 64), 4: (1, 3, 224, 224)}  # sizes to suggest, by rank


def parse_shapes(texts: Sequence[str]) -> dict[str, Shape]:
    """Parse ``x=1x3x224x224``, or only ``1x3x224x224`` for a model with one input. Raises UsageError."""
    shapes: dict[str, Shape] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.lower().replace("×", "x").split("x"))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1 or (equals and not name):
            raise UsageError(f"--shape takes NAME=1x3x224x224, not {text!r}")
        if name in shapes:
            raise UsageError(f"--shape {name or text} is given twice; remove one of them")
        shapes[name] = shape
    return shapes


def resolve(path: Path, on_file: Mapping[str, OnFile | None], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of each input; None in ``on_file`` is an unknown rank.

    Raises FileError for a dimension that is open and not given, UsageError for a shape that does not fit.
    """
    if SINGLE in shapes and len(on_file) > 1:
        named = ", ".join(on_file)
        raise UsageError(f"{path} has {len(on_file)} inputs ({named}); write their names, such as {_flag(on_file)}")
    others = [name for name in shapes if name not in (SINGLE, *on_file)]
    hint = f" ({', '.join(others)} is not an input of it)" if len(others) == 1 and len(shapes) == 1 else ""
    return {name: _resolved(path, name, of_file, _given(name, shapes), hint) for name, of_file in on_file.items()}


def require_used(shapes: Mapping[str, Shape], names: Sequence[str]) -> None:
    """Raise UsageError for a ``--shape`` of an input that no model has."""
    for name in shapes:
        if name != SINGLE and name not in names:
            raise UsageError(f"--shape {name}=…: no model has an input {name}; inputs: {', '.join(names)}")


def _given(name: str, shapes: Mapping[str, Shape]) -> Shape | None:
    return shapes.get(name, shapes.get(SINGLE))


def _resolved(path: Path, name: str, of_file: OnFile | None, given: Shape | None, hint: str) -> Shape:
    if given is None:
        open_sizes = [str(size) for size in of_file or () if isinstance(size, str)]
        if of_file is None or open_sizes:
            what = "is unknown" if of_file is None else f"is {_written(of_file)}: {_listed(open_sizes)} not fixed"
            raise FileError(f"{path}: the shape of input {name} {what}; add {_flag({name: of_file})}{hint}")
        return tuple(int(size) for size in of_file)
    fits = of_file is None or (
        len(of_file) == len(given)
        and all(isinstance(size, str) or size == wanted for size, wanted in zip(of_file, given, strict=True))
    )
    if not fits:
        raise UsageError(
            f"--shape {name}={_joined(given)} does not fit {path}: the shape there is {_written(of_file or ())}, as in "
            f"{_flag({name: of_file})}"
        )
    return given


def _flag(on_file: Mapping[str, OnFile | None]) -> str:
    return " ".join(f"--shape {name}={_joined(_suggested(of_file))}" for name, of_file in on_file.items())


def _suggested(of_file: OnFile | None) -> Shape:
    sizes = of_file if of_file is not None else ("",) * 4
    likely = LIKELY.get(len(sizes), (1,) * len(sizes))
    return tuple(likely[at] if isinstance(size, str) else size for at, size in enumerate(sizes))


def _joined(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _written(of_file: OnFile) -> str:
    return "×".join(str(size) if size else "?" for size in of_file) or "a scalar"


def _listed(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(name or "?" for name in names))
    return f"{', '.join(distinct[:-1])} and {distinct[-1]} are" if len(distinct) > 1 else f"{distinct[0]} is"


def elements(shape: Sequence[int]) -> int:
    return math.prod(shape)
