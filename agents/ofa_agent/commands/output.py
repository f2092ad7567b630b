"""Read the latency and the times of layers from what a tool printed or wrote, by the rules of its template."""

import csv
import io
import json
import math
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ofa_agent.commands.template import CYCLES, RATES, UNITS, Pairs, Rule

LONGEST_QUOTE = 200

# The name of a layer (empty without names), its value, and whether it changes the layout of data.
Record = Tuple[str, float, bool]


class NoMatch(ValueError):
    """The output does not contain what the rule describes."""


class Latency(NamedTuple):
    """The latency of one inference in ns: all samples, or their mean or median; 0 if unknown."""

    samples_ns: Tuple[int, ...] = ()
    mean_ns: int = 0
    median_ns: int = 0


class Layer(NamedTuple):
    """A layer in order of execution; ``time`` is in ns, or in cycles."""

    name: str
    time: float
    between: bool = False


def read_latency(rule: Rule, text: str, batch: int = 1) -> Latency:
    """Return the latency that ``text`` contains. Raises NoMatch.

    If a regular expression matches several times, the last match counts, because tools print their progress first.
    """
    found = [value for _, value, _ in _records(rule, text)]
    if rule.statistic == "samples":
        return Latency(samples_ns=tuple(_ns(value, rule, batch) for value in found))
    if len(found) > 1 and not rule.regex:
        raise NoMatch("%d values, not one; add statistic = 'samples' if each is one run" % len(found))
    value_ns = _ns(found[-1], rule, batch)
    return Latency(median_ns=value_ns) if rule.statistic == "median" else Latency(mean_ns=value_ns)


def read_layers(rule: Rule, text: str) -> List[Layer]:
    """Return the layers that ``text`` contains, in the same order. Raises NoMatch.

    Layers with the same name are added. Layers that took no time are left out, because they were not executed.
    """
    factor = 1.0 if rule.unit == CYCLES else UNITS[rule.unit]
    times: Dict[str, float] = {}
    between: Dict[str, bool] = {}
    for name, value, is_between in _records(rule, text):
        if not value or (rule.skip and re.search(rule.skip, name)):
            continue
        if value < 0 or not math.isfinite(value):
            raise NoMatch("the time %g of layer %s" % (value, name))
        times[name] = times.get(name, 0.0) + (value + rule.offset) * factor
        between[name] = is_between
    layers = [Layer(name, time, between[name]) for name, time in times.items()]
    if not layers:
        raise NoMatch("only layers that took no time")
    return layers


def last_line(text: str) -> str:
    """Return the last line that is not empty, at most LONGEST_QUOTE characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "(nothing)"
    return lines[-1] if len(lines[-1]) <= LONGEST_QUOTE else lines[-1][:LONGEST_QUOTE] + "…"


def _ns(value: float, rule: Rule, batch: int) -> int:
    if not value > 0 or not math.isfinite(value):
        raise NoMatch("the value %g, which is not a latency" % value)
    if rule.unit in RATES:
        return max(1, round(1e9 / value * (batch if rule.unit == "images/s" else 1)))
    return max(1, round(value * UNITS[rule.unit]))


def _records(rule: Rule, text: str) -> List[Record]:
    """Return all records that the rule describes. Raises NoMatch if there are none."""
    read = _by_json if rule.json else _by_csv if rule.csv else _by_regex
    found = read(rule, text)
    if not found:
        raise NoMatch("no such value")
    return found


def _by_regex(rule: Rule, text: str) -> List[Record]:
    matches = list(re.finditer(rule.regex, text, re.MULTILINE))
    if rule.name or "name" in re.compile(rule.regex).groupindex:
        return [(match.group("name"), _number(match.group("time")), False) for match in matches]
    return [("", _number(match.group(1)), False) for match in matches]


def _by_csv(rule: Rule, text: str) -> List[Record]:
    rows = csv.reader(io.StringIO(text), delimiter=rule.delimiter, skipinitialspace=True)
    header: List[str] = []
    found = []
    for row in rows:
        cells = [cell.strip() for cell in row]
        if not header:
            header = cells if rule.csv in cells else []  # tools write other lines above the header
        elif len(cells) > header.index(rule.csv):
            record = _record(rule, dict(zip(header, cells)), rule.csv)
            found += [record] if record else []
    if not header:
        raise NoMatch("no such column")
    return found


def _by_json(rule: Rule, text: str) -> List[Record]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise NoMatch("not JSON: %s" % error) from None
    steps = re.findall(r"[^.\[\]]+|\[\*\]|\[\d+\]", rule.json)
    last = steps[-1]
    if last.startswith("["):
        return [("", _number(value), False) for value in _walk(content, steps)]
    found = []
    for parent in _walk(content, steps[:-1]):
        record = _record(rule, parent, last) if isinstance(parent, dict) else None
        found += [record] if record else []
    return found


def _walk(value: Any, steps: List[str]) -> List[Any]:
    """Return the values at the end of a path; ``[*]`` stands for every item of a list."""
    values = [value]
    for step in steps:
        if step == "[*]":
            values = [item for each in values if isinstance(each, list) for item in each]
        elif step.startswith("["):
            index = int(step[1:-1])
            values = [each[index] for each in values if isinstance(each, list) and index < len(each)]
        else:
            values = [each[step] for each in values if isinstance(each, dict) and step in each]
    return values


def _record(rule: Rule, fields: Dict[str, Any], value: str) -> Optional[Record]:
    """Return the record in ``fields``; None if it lacks the value or the name, or does not fit ``where``."""
    if value not in fields or (rule.name and rule.name not in fields) or not _fits(rule.where, fields):
        return None
    between = bool(rule.between) and _fits(rule.between, fields)
    return str(fields[rule.name]) if rule.name else "", _number(fields[value]), between


def _fits(wanted: Pairs, fields: Dict[str, Any]) -> bool:
    return all(str(fields.get(field, "")) == text for field, text in wanted)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise NoMatch("%.60r, which is not a number" % (value,)) from None
