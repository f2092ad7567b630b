"""A model file of the user: its inputs, and its operators with their work."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ofa_agent.inputs import KINDS, ModelInput
from ofa_agent.operators import MAX_VALUES, product
from ofa_agent.protocol import messages as wire
from ofa_profiler.lowering import Model
from ofa_tables.errors import FileError
from ofa_tables.store.measurement import NETWORK

MOST_BYTES = wire.MAX_MODEL_BYTES
WHAT = "a model file"
FILE_KEY = f"{NETWORK}file/"  # begins the keys of model files

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FileOperator:
    """An operator of the file. ``outputs`` are names of values. None: unknown.

    ``macs`` are multiply-accumulates of one run. ``moved_bytes`` are those of its inputs, weights and outputs.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    macs: int | None = None
    moved_bytes: int | None = None
    label: str = ""  # for people; empty: the name


@dataclass(frozen=True)
class ModelFile:
    """A model file. ``content`` is what is sent to the device, with its weights inside.

    ``parameters`` is the number of weights, None if unknown. ``has_all_macs`` is False if an operator that computes
    products has none.
    """

    path: Path
    format: str
    content: bytes = field(repr=False)
    inputs: tuple[ModelInput, ...]
    operators: tuple[FileOperator, ...] = field(repr=False, default=())
    parameters: int | None = None
    has_all_macs: bool = True

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def model(self) -> Model:
        chunks = (self.content,)
        return Model(wire.model_id_of(chunks), chunks)

    @cached_property
    def digest(self) -> str:
        """A hash of the content and of the inputs: the same file with another shape is another model."""
        inputs = "".join(f"\n{each} {each.below}" for each in self.inputs)
        return hashlib.sha256(f"{self.model.model_id}{inputs}".encode()).hexdigest()[:12]

    @property
    def key(self) -> str:
        """The key of the whole model in tables."""
        return f"{FILE_KEY}{self.name}@{self.digest}"

    @property
    def macs(self) -> int | None:
        """The MACs of one run; None if those of an operator are unknown."""
        known = [operator.macs for operator in self.operators if operator.macs is not None]
        return sum(known) if known and self.has_all_macs else None

    @property
    def resolution_px(self) -> int:
        """The height of an image input; 0 if no input is an image."""
        for each in self.inputs:
            if len(each.shape) == 4:
                channels_last = each.shape[3] in (1, 3, 4)
                return each.shape[1] if channels_last else each.shape[2]
        return 0


def require_possible(path: Path, inputs: Sequence[ModelInput]) -> None:
    """Check that random values can be made for these inputs. Raises FileError."""
    if not inputs:
        raise FileError(f"{path} has no inputs; give a model that takes some")
    for each in inputs:
        if each.kind not in KINDS:
            raise FileError(
                f"{path}: input {each.name} has values of type {each.kind}, which cannot be filled at random; "
                f"known types: {', '.join(KINDS)}"
            )
        if product(each.shape) > MAX_VALUES:
            raise FileError(f"{path}: input {each} has more than {MAX_VALUES:,} values; use a smaller shape")


def count_bytes(names: Sequence[str], sizes: Mapping[str, int | None]) -> int | None:
    """Sum the sizes of values; None if one is unknown. An optional value that is absent has an empty name."""
    found = [sizes.get(name) for name in names if name]
    return None if any(size is None for size in found) else sum(size for size in found if size is not None)
