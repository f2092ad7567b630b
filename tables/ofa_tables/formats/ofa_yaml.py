"""OFA YAML, the published format of once-for-all's latency tables (Cai et al., ICLR 2020).

One file per device and resolution, ``160_lookup_table.yaml``: key → ``{count, mean, std}`` in ms. Some publish ``var``
(ms²) instead of ``std``, or the same content as ``.json``. The published
prediction is the sum of the means. ``mean`` is therefore the latency of the entry (in a measured table: the median of
the medians of its trials), so that an exported table predicts the same latencies. ``std`` and ``count`` are those of
the samples.

Entries of a simulated table have the field ``simulated: true``, which the published code ignores, and the file begins
with a comment. On import the mark remains.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ofa_tables.errors import FileError, UsageError
from ofa_tables.estimates.entry import Entry
from ofa_tables.formats.completeness import require_no_repeats, require_resolution, require_whole
from ofa_tables.formats.format import (
    Format,
    PublishedEntry,
    parse_count,
    parse_deviation,
    parse_latency_ms,
    read_text,
    require_few,
    short,
)
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.model.space import Space
from ofa_tables.store.measurement import SIMULATED
from ofa_tables.table import LatencyTable

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_FILE_NAME = re.compile(r"(\d{1,5})_lookup_table\.(?:ya?ml|json)", re.ASCII)
_FIRST_KEY = re.compile(r"Conv-input:(\d{1,5})x\1x3-.*", re.ASCII)

_NUMBER_TAGS = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int")

_SHAPE = "a table is a mapping of keys to {count, mean, std}"

# Published rows have count, mean and std. A few more fields are accepted.
_MAX_FIELDS = 32

_SIMULATED = b"# simulated: entries with this field were computed by ofa-profile, not measured on a device\n"


def read(path: Path, space: Space) -> list[PublishedEntry]:
    """Read the entries of one resolution, given by the file name or by the Conv-input key."""
    text = read_text(path)
    if path.suffix.lower() == ".json":
        text = text.replace("\t", " ")  # JSON is YAML, except for tabs between values
    rows = list(_rows(path, text))
    resolution = _resolution_px(path, [key for key, _, _ in rows])
    require_resolution(path, space, resolution)
    entries = [_entry(path, resolution, key, line, fields) for key, line, fields in rows]
    require_no_repeats(path, entries)
    require_whole(path, entries, space, resolution)
    return entries


def write(table: LatencyTable, out: Path, space: Space | None) -> dict[Path, bytes]:
    """Write one file for each resolution at which the table is complete. Raises EntriesMissing if there is none."""
    if space is None:
        raise UsageError("ofa-yaml contains the entries of one space; add --space")
    resolutions = LatencyModel(table, space).require()
    return {out / f"{px}_lookup_table.yaml": _render(table, space, px) for px in resolutions}


def _render(table: LatencyTable, space: Space, resolution_px: int) -> bytes:
    entries = filter(None, (table.entry(key, resolution_px) for key in space.keys(resolution_px)))
    rows = {entry.key: _row(entry) for entry in entries}
    comment = _SIMULATED if any(SIMULATED in row for row in rows.values()) else b""
    return comment + bytes(yaml.dump(rows, Dumper=_DUMPER, encoding="utf-8", width=1000))


def _row(entry: Entry) -> dict[str, Any]:
    row = {"count": entry.samples, "mean": entry.latency_ms, "std": entry.std_ms}
    return {**row, SIMULATED: True} if entry.simulated else row


def _resolution_px(path: Path, keys: list[str]) -> int:
    named = _FILE_NAME.fullmatch(path.name)
    keyed = next(filter(None, map(_FIRST_KEY.fullmatch, keys)), None)
    if named and keyed and named[1] != keyed[1]:
        raise FileError(f"{path} is named for {named[1]} px, but its Conv-input key is for {keyed[1]} px; rename it")
    found = named or keyed
    if found is None:
        raise FileError(f"{path} has no resolution; name it like 160_lookup_table.yaml or add its Conv-input key")
    return int(found[1])


def _entry(path: Path, resolution_px: int, key: str, line: int, fields: dict[str, str]) -> PublishedEntry:
    def place(field: str) -> str:
        return f"{path}, line {line}: {field} of {short(key)}"

    if "mean" not in fields:
        raise FileError(f"{path}, line {line}: {short(key)} has no mean; {_SHAPE}")
    mean = parse_latency_ms(fields["mean"], place("mean"))
    std = parse_deviation(fields, place)
    count = parse_count(fields["count"], place("count")) if "count" in fields else 0
    simulated = fields.get(SIMULATED, "false").lower() != "false"
    return PublishedEntry(key, resolution_px, mean, mean, std, count, line, simulated=simulated)


# Files are read as YAML events, one at a time. Thus deep nesting and aliases are refused at once, every row has a line
# number, and repeated keys are found (a mapping would keep only the last).


def _rows(path: Path, text: str) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Yield (key, line, fields) of every row. Raises FileError for any other format."""
    events = _events(path, text)
    if not isinstance(next(events, None), yaml.MappingStartEvent):
        raise FileError(f"{path} is not a latency table; {_SHAPE}")
    for number, event in enumerate(events):  # _fields takes the events in between
        if isinstance(event, yaml.MappingEndEvent):
            break
        require_few(path, number)
        key, line = _scalar(path, event), event.start_mark.line + 1
        if not isinstance(next(events), yaml.MappingStartEvent):
            raise FileError(f"{path}, line {line}: {short(key)} has no {{count, mean, std}}; {_SHAPE}")
        yield key, line, _fields(path, key, events)
    if next(events, None) is not None:
        raise FileError(f"{path} contains more than one YAML document; use one file per resolution")


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
    found = "an alias" if isinstance(event, yaml.AliasEvent) else "a nested value"
    raise FileError(f"{path}, line {event.start_mark.line + 1}: {found} instead of a key or a number; {_SHAPE}")


def _plain(path: Path, event: Any) -> str:
    """Return a scalar as text, with quotes if YAML reads it as a string, so that it is not parsed as a number."""
    value = _scalar(path, event)
    return value if event.implicit[0] or event.tag in _NUMBER_TAGS else f'"{value}"'


def _events(path: Path, text: str) -> Iterator[Any]:
    """Yield the events of the content. Raises FileError if the text is not YAML."""
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
