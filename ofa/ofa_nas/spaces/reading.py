"""Read architectures in every form that people have them in. All commands use this.

* gene lists, as published: ``{"ks": [3, 5, …], "e": […], "d": […], "r": 160}``
* one number for all genes of a list, as the published ``set_active_subnet`` takes it: ``{"ks": 7, "e": 6, "d": 4, …}``
* the words ``smallest``, ``largest`` and ``random:SEED``
* a published network config (``net.config``), with the resolution in it or in the ``run.config`` beside it
* lists of these, and the files that this program writes
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_nas.spaces.architecture import EXAMPLE, RESOLUTION, Architecture, is_number, parse_architecture, short
from ofa_nas.spaces.network_config import genes_of_config, is_network_config
from ofa_nas.spaces.space import Population, Space
from ofa_nas.spaces.text import parse
from ofa_tables.errors import FileError, UsageError
from ofa_tables.reading import read_text

# Keys under which published files and our files store architectures.
_WRAPPERS = ("architecture", "architectures", "networks", "front", "results")
_WORD = re.compile(r"smallest|largest|random:\d{1,18}")
_RANDOM = "random:"
RUN_CONFIG = "run.config"
MOST_BYTES = 64 << 20


def is_word(source: str) -> bool:
    """Whether the text names a network of any space: ``smallest``, ``largest``, ``random:SEED``."""
    if source.strip().startswith(_RANDOM) and not _WORD.fullmatch(source.strip()):
        raise UsageError(f"{short(source)} needs a seed: a number of at most 18 digits, such as random:0")
    return _WORD.fullmatch(source.strip()) is not None


def is_inline(source: str) -> bool:
    """Whether the text is itself an architecture, or a list of them, and not a path."""
    return source.lstrip()[:1] in ("{", "[", "(") or is_word(source)


def read_architectures(
    source: str, space: Space | None = None, resolutions_px: Sequence[int] | None = None
) -> tuple[list[Architecture], bool]:
    """Read architectures from text, or from the path of a file with such text. Also return whether it is a list.

    With a ``space``, they are complete members of it; words choose among ``resolutions_px``. Without one, they must be
    gene lists. Raises UsageError for invalid architectures, and FileError if the file cannot be read.
    """
    value = source.strip() if is_word(source) else read_value(source, space)
    found = list(architectures_in(value, space, resolutions_px))
    if not found:
        raise UsageError(f"{short(source)} does not contain an architecture")
    return found, len(found) > 1 or isinstance(value, list)


def read_value(source: str, space: Space | None = None) -> Any:
    """Parse text, or the text of a file. A network config gets the resolution of the run.config beside it."""
    inline = is_inline(source)
    try:
        value = parse(source if inline else _read(Path(source)))
    except ValueError as error:
        raise UsageError(
            f"{short(source)} is neither JSON nor Python ({error}); an architecture looks like {example_of(space)}"
        ) from None
    if not inline and is_network_config(value) and not any(name in value for name in RESOLUTION):
        beside = Path(source).with_name(RUN_CONFIG)
        run = read_value(str(beside)) if beside.exists() and Path(source).name != RUN_CONFIG else None
        if isinstance(run, Mapping) and "image_size" in run:
            return {**value, "image_size": run["image_size"]}
    return value


def architectures_in(
    value: Any, space: Space | None = None, resolutions_px: Sequence[int] | None = None
) -> Iterator[Architecture]:
    """Find the architectures in parsed text."""
    if isinstance(value, list):
        # The published search returns (accuracy, architecture, latency).
        beside = any(isinstance(item, Mapping) for item in value)
        for item in value:
            if not (beside and is_number(item)):
                yield from architectures_in(item, space, resolutions_px)
    elif isinstance(value, Mapping) and any(name in value for name in _WRAPPERS):
        for name in _WRAPPERS:
            if name in value:
                yield from architectures_in(value[name], space, resolutions_px)
    elif space is None:
        yield parse_architecture(value)
    else:
        yield architecture_in(value, space, resolutions_px)


def architecture_in(value: Any, space: Space, resolutions_px: Sequence[int] | None = None) -> Architecture:
    """The member of the space that one parsed value describes. Raises UsageError."""
    if isinstance(value, str) and is_word(value):
        return _named(value.strip(), space, resolutions_px)
    if is_network_config(value):
        if not any(name in value for name in RESOLUTION):
            raise UsageError(
                'a network config has no resolution: add "image_size": 224 to it, or put its run.config beside it'
            )
        value = {**genes_of_config(value, space), "r": value.get("r", value.get("image_size"))}
    elif isinstance(value, Mapping):
        value = space.complete(value)
    architecture = parse_architecture(value, space.example)
    space.encode([architecture])  # raises if it is not a member
    return architecture


def _named(word: str, space: Space, resolutions_px: Sequence[int] | None) -> Architecture:
    wanted = tuple(resolutions_px or space.resolutions_px)
    space.require_resolutions(wanted)
    if word.startswith(_RANDOM):
        seed = int(word.removeprefix(_RANDOM))
        return space.decode(space.sample(1, np.random.default_rng(seed), wanted))[0]
    genes = np.zeros(len(space.radices), dtype=np.uint8) if word == "smallest" else (space.radices - 1).astype(np.uint8)
    genes[-1] = space.resolutions_px.index((min if word == "smallest" else max)(wanted))
    return space.decode(Population(genes[:, None]))[0]


def example_of(space: Space | None) -> str:
    return EXAMPLE if space is None else space.example


def _read(path: Path) -> str:
    try:
        return read_text(path, MOST_BYTES, "a file of architectures", "give a JSON file or the JSON itself")
    except FileError as error:
        near = difflib.get_close_matches(str(path)[:100], ("smallest", "largest", "random:0"), n=1)
        if path.exists():
            raise
        hint = f"did you mean {near[0]}? " if near else ""
        raise FileError(f"{error}; {hint}give a JSON file, the JSON itself, smallest, largest or random:SEED") from None
