"""Keys of the layers of model files: which model, where in it, and what the runtime calls the layer."""

from dataclasses import dataclass

from ofa_agent.text import one_line
from ofa_tables.store.measurement import LAYER

MOST_NAME = 300  # characters


@dataclass(frozen=True)
class LayerKey:
    """A layer of the model with this digest. ``moved_bytes`` are reported by the runtime; 0: unknown."""

    digest: str
    index: int
    operator: str
    moved_bytes: int
    name: str

    def __str__(self) -> str:
        return f"{LAYER}{self.digest}/{self.index} {self.operator or '-'} {self.moved_bytes} {self.name}"


def layer_key(model_key: str, index: int, operator: str, name: str, moved_bytes: int) -> str:
    """Return the key of a layer. ``model_key`` ends with ``@`` and the digest of the model."""
    operator = one_line(operator, MOST_NAME).replace(" ", "_")
    return str(LayerKey(model_key.rpartition("@")[2], index, operator, moved_bytes, one_line(name, MOST_NAME)))


def parse_layer_key(key: str) -> LayerKey | None:
    """Return the parts of the key of a layer; None for another key."""
    place, _, rest = key.removeprefix(LAYER).partition(" ")
    digest, _, index = place.partition("/")
    operator, _, rest = rest.partition(" ")
    moved_bytes, _, name = rest.partition(" ")
    if not key.startswith(LAYER) or not index.isdecimal() or not moved_bytes.isdecimal():
        return None
    return LayerKey(digest, int(index), "" if operator == "-" else operator, int(moved_bytes), name)
