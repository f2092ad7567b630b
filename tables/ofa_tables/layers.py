"""Keys of the layers of model files: which model, and what the runtime calls the layer.

The order of layers is not part of a key: a runtime may execute independent layers in another order the next time.
"""

from dataclasses import dataclass

from ofa_agent.text import one_line
from ofa_tables.store.measurement import LAYER

MOST_NAME = 300  # characters


@dataclass(frozen=True)
class LayerKey:
    """A layer of the model with this digest: the one with this number among those with equal names.

    ``moved_bytes`` are reported by the runtime; 0: unknown.
    """

    digest: str
    number: int
    operator: str
    moved_bytes: int
    name: str

    def __str__(self) -> str:
        return f"{LAYER}{self.digest}/{self.number} {self.operator or '-'} {self.moved_bytes} {self.name}"


def layer_key(model_key: str, number: int, operator: str, name: str, moved_bytes: int) -> str:
    """Return the key of a layer. ``model_key`` ends with ``@`` and the digest of the model."""
    operator = one_line(operator, MOST_NAME).replace(" ", "_")
    return str(LayerKey(model_key.rpartition("@")[2], number, operator, moved_bytes, one_line(name, MOST_NAME)))


def parse_layer_key(key: str) -> LayerKey | None:
    """Return the parts of the key of a layer; None for another key."""
    place, _, rest = key.removeprefix(LAYER).partition(" ")
    digest, _, number = place.partition("/")
    operator, _, rest = rest.partition(" ")
    moved_bytes, _, name = rest.partition(" ")
    if not key.startswith(LAYER) or not number.isdecimal() or not moved_bytes.isdecimal():
        return None
    return LayerKey(digest, int(number), "" if operator == "-" else operator, int(moved_bytes), name)
