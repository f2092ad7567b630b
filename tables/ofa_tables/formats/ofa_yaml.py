"""OFA YAML, the published format of once-for-all's latency tables (Cai et al., ICLR 2020).

One file for a device and a resolution, ``160_lookup_table.yaml``: key → ``{count, mean, std}`` in ms. The published
prediction is the sum of the means; so ``mean`` is the entry's figure here (of a measured table: the median of its
trials' medians), and an exported table prices every network as before. ``std`` and ``count`` are those of the samples.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ofa_tables.errors import FileError, UsageError
from ofa_tables.formats.completeness import require_no_repeats, require_resolution, require_whole
from ofa_tables.formats.format import (
    Figure,
    Format,
    parse_count,
    parse_latency_ms,
    parse_std_ms,
    read_text,
    short,
)
from ofa_tables.model.latency_model import LatencyModel, Space
from ofa_tables.table import LatencyTable

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_FILE_NAME = re.compile(r"(\d{1,5})_lookup_table\.ya?ml", re.ASCII)
_FIRST_KEY = re.compile(r"Conv-input:(\d{1,5})x\1x3-.*", re.ASCII)

_NUMBER_TAGS = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int")

_SHAPE = "a table is a mapping of keys to {count, mean, std}"

# Published rows have count, mean, std; a few more fields do no harm, and a flood of them is not a table.
_MAX_FIELDS = 32


def read(path: Path, space: Space) -> list[Figure]:
    """Every entry of the Space at the resolution of the file's name, or else of its Conv-input key."""
    rows = list(_rows(path, read_text(path)))
    resolution = _resolution_px(path, [key for key, _, _ in rows])
    require_resolution(path, space, resolution)
    figures = [_figure(path, resolution, key, line, fields) for key, line, fields in rows]
    require_no_repeats(path, figures)
    require_whole(path, figures, space, resolution)
    return figures


def write(table: LatencyTable, out: Path, space: Space | None) -> dict[Path, bytes]:
    """Write one file for each resolution at which the table is complete. Raises EntriesMissing if there is none."""
    if space is None:
        raise UsageError("ofa-yaml holds the entries of one space: name it with --space")
    resolutions = LatencyModel(table, space).require()
    return {out / f"{px}_lookup_table.yaml": _render(table, space, px) for px in resolutions}


def _render(table: LatencyTable, space: Space, resolution_px: int) -> bytes:
    entries = filter(None, (table.entry(key, resolution_px) for key in space.keys(resolution_px)))
    rows = {entry.key: {"count": entry.samples, "mean": entry.latency_ms, "std": entry.std_ms} for entry in entries}
    return bytes(yaml.dump(rows, Dumper=_DUMPER, encoding="utf-8", width=1000))


def _resolution_px(path: Path, keys: list[str]) -> int:
    named = _FILE_NAME.fullmatch(path.name)
    keyed = next(filter(None, map(_FIRST_KEY.fullmatch, keys)), None)
    if named and keyed and named[1] != keyed[1]:
        raise FileError(f"{path} is named for {named[1]} px, but its Conv-input key is for {keyed[1]} px; rename it")
    found = named or keyed
    if found is None:
        raise FileError(
            f"{path} does not say its resolution: name it as 160_lookup_table.yaml, or give it its Conv-input key"
        )
    return int(found[1])


def _figure(path: Path, resolution_px: int, key: str, line: int, fields: dict[str, str]) -> Figure:
    place = f"{path}, line {line}: %s of {short(key)}"
    if "mean" not in fields:
        raise FileError(f"{path}, line {line}: {short(key)} has no mean; {_SHAPE}")
    mean = parse_latency_ms(fields["mean"], place % "mean")
    std = parse_std_ms(fields["std"], place % "std") if "std" in fields else None
    count = parse_count(fields["count"], place % "count") if "count" in fields else 0
    return Figure(key, resolution_px, mean, mean, std, count, line)


# The reading is done on YAML's events, one at a time: deep nesting and aliases end it where they stand, every row has
# its line, and repeated keys, of which a mapping would keep the last, come to light.


def _rows(path: Path, text: str) -> Iterator[tuple[str, int, dict[str, str]]]:
    """(key, line, fields) of every row. Raises FileError for anything that is not this format."""
    events = _events(path, text)
    if not isinstance(next(events, None), yaml.MappingStartEvent):
        raise FileError(f"{path} is not a latency table: {_SHAPE}")
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            break
        key, line = _scalar(path, event), event.start_mark.line + 1
        if not isinstance(next(events), yaml.MappingStartEvent):
            raise FileError(f"{path}, line {line}: {short(key)} holds no {{count, mean, std}}; {_SHAPE}")
        yield key, line, _fields(path, key, events)
    if next(events, None) is not None:
        raise FileError(f"{path} holds more than one YAML document; give each resolution its own file")


def _fields(path: Path, key: str, events: Iterator[Any]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            break
        name = _scalar(path, event)
        if name in fields or len(fields) == _MAX_FIELDS:
            wrong = f"has {short(name)} twice" if name in fields else f"has more than {_MAX_FIELDS} fields"
            raise FileError(f"{path}, line {event.start_mark.line + 1}: {short(key)} {wrong}; {_SHAPE}")
        fields[name] = _plain(path, next(events))
    return fields


def _scalar(path: Path, event: Any) -> str:
    if isinstance(event, yaml.ScalarEvent):
        return str(event.value)
    found = "an alias" if isinstance(event, yaml.AliasEvent) else "something nested"
    raise FileError(f"{path}, line {event.start_mark.line + 1}: {found} where a key or a number belongs; {_SHAPE}")


def _plain(path: Path, event: Any) -> str:
    """What YAML takes for a text, because it is quoted or tagged, is given with quotes: no number then."""
    value = _scalar(path, event)
    return value if event.implicit[0] or event.tag in _NUMBER_TAGS else f'"{value}"'


def _events(path: Path, text: str) -> Iterator[Any]:
    """The events of the documents' content. Raises FileError where the text is not YAML."""
    around = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if not isinstance(event, around):
                yield event
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise FileError(f"{path}{place}: not YAML ({problem})") from None


FORMAT = Format("ofa-yaml", read, write, whole_space=True)
