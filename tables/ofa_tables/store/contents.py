"""What the columns and the JSON values of a table file must be. SQLite stores any value in any column.

The functions return what is wrong, in words; an empty text if nothing is.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ofa_tables.reading import parse_json
from ofa_tables.store.measurement import reported_in

_NONE = type(None)
_MOST = float(sys.maxsize)
_MOST_NS = 1e18  # 30 years
_MOST_MS = 1e12  # 30 years; negative latencies can be read, and ofa-table check reports them
_MOST_PX = 1 << 16
_LAST_S = 1e11  # the year 5138

_Column = tuple[frozenset[type], float, float]  # types, smallest and largest value; text has no bounds
_TEXT: _Column = (frozenset({str}), 0.0, 0.0)
_NS: _Column = (frozenset({int}), 0.0, _MOST_NS)
_MS: _Column = (frozenset({float, int, _NONE}), -_MOST_MS, _MOST_MS)
_COUNT: _Column = (frozenset({int}), 0.0, _MOST)
_FLAG: _Column = (frozenset({int, bool}), 0.0, 1.0)
_TIME: _Column = (frozenset({float, int}), -_LAST_S, _LAST_S)

_COLUMNS: dict[str, _Column] = {
    **dict.fromkeys(("trial_id", "key", "status", "error", "condition"), _TEXT),
    **dict.fromkeys(("median_ms", "mean_ms", "std_ms"), _MS),
    **dict.fromkeys(("round", "count", "warmup_runs"), _COUNT),
    **dict.fromkeys(("first_ns", "timed_ns", "load_ns", "reference_before_ns", "reference_after_ns"), _NS),
    **dict.fromkeys(("warm", "narrow"), _FLAG),
    **dict.fromkeys(("started_at", "received_at"), _TIME),
    "resolution_px": (frozenset({int, _NONE}), 0.0, float(_MOST_PX)),
    "samples_ns": (frozenset({bytes}), 0.0, 0.0),
}


def measurements_problem(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Check rows of the table ``measurements`` column by column, which takes a tenth of the time of reading them."""
    for name, column in zip(names, zip(*rows, strict=True), strict=False):
        kinds, low, high = _COLUMNS[name]
        found = set(map(type, column))
        if not found <= kinds:
            others = ", ".join(sorted(kind.__name__ for kind in found - kinds))
            return f"{name} of a measurement is of type {others}"
        values = column if _NONE not in found else [value for value in column if value is not None]
        if high > low and values and not (low <= min(values) and max(values) <= high):
            return f"{name} of a measurement is out of range: {min(values):.4g} to {max(values):.4g}"
        if name == "samples_ns" and any(len(samples) % 8 for samples in column):
            return "samples_ns of a measurement are not whole numbers of 8 bytes"
    return ""


def conditions_problem(conditions: Iterable[str], reported: dict[str, Mapping[str, Any]]) -> str:
    """Check the conditions of measurements, and add what the estimates use of each to ``reported``."""
    for condition in set(conditions):
        try:
            reported[condition] = reported_in(condition)
        except ValueError as error:
            return f"condition of a measurement: {error}"
    return ""


# JSON values.

_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number()(value)


def _is_number(low: float = -1e18, high: float = 1e18) -> _Check:
    """Accept numbers within the bounds; not NaN, and not True and False."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_integer(low: int, high: int) -> _Check:
    return lambda value: type(value) is int and low <= value <= high


def _is_list(of: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _is_mapping(of: _Check) -> _Check:
    return lambda value: isinstance(value, dict) and all(map(of, value.values()))


def _is_any(value: Any) -> bool:
    return True


def _is_object(required: Mapping[str, _Check], optional: Mapping[str, _Check], others: bool = False) -> _Check:
    """Accept objects with these fields; with further ones only if ``others``."""
    known = {**required, **optional}
    return lambda value: (
        isinstance(value, dict)
        and required.keys() <= value.keys()
        and (others or value.keys() <= known.keys())
        and all(known.get(name, _is_any)(item) for name, item in value.items())
    )


def _is_optional(of: _Check) -> _Check:
    return lambda value: value is None or of(value)


_SETTINGS = _is_object(
    {}, {"precision": _is_text, "threads": _is_integer(0, 1 << 31), "batch": _is_integer(0, 1 << 31)}
)
_IDENTITY = _is_object(
    {**dict.fromkeys(("target", "fingerprint", "runtime", "runtime_version"), _is_text), "settings": _SETTINGS},
    {"blocks": _is_text},
)
_CONDITIONS = _is_object(
    {},
    {
        **dict.fromkeys(("set", "not_set", "connection"), _is_mapping(_is_plain)),
        **dict.fromkeys(("notes", "warnings"), _is_list(_is_text)),
    },
    others=True,
)
_CALIBRATION = _is_object(
    {"scale": _is_number(-1e6, 1e6), "networks": _is_integer(0, 1 << 31)},
    {
        "base_ms": _is_number(-1e12, 1e12),
        "error": _is_optional(_is_number(0, 1e6)),
        "shifts": _is_mapping(_is_number(-1e6, 1e6)),
        "kind": lambda value: value in ("sum", "launch-bound"),
        "made_for": _is_optional(_is_text),
    },
)
_VALUES: dict[str, _Check] = {
    "id": _is_text,
    "created_at": _is_number(-_LAST_S, _LAST_S),
    "device": _is_object({}, {"chip": _is_plain}, others=True),
    "identity": _IDENTITY,
    "conditions": _CONDITIONS,
    "interpolates": lambda value: isinstance(value, bool),  # written by earlier versions
    "estimates": _is_object(
        {
            "keys": _is_list(_is_text),
            "weights": _is_mapping(_is_number(0, 1)),
            **dict.fromkeys(("of", "log_ms", "factors", "own"), _is_text),
        },
        dict.fromkeys(("device_ms", "launch_ms"), _is_text),
    ),
    "imported_from": _is_list(_is_text),
    "priors": _is_list(_is_text),
    "file": _is_object(
        {},
        {
            **dict.fromkeys(("macs", "parameters"), _is_optional(_is_number(0, 1e18))),
            "resolution_px": _is_optional(_is_integer(0, _MOST_PX)),
            "accuracy": _is_optional(_is_number(0, 1)),
        },
    ),
    "calibration": _CALIBRATION,
}
_ARCHITECTURE = _is_mapping(lambda value: _is_plain(value) or _is_list(_is_plain)(value))


def _value_problem(name: str, value: Any) -> str:
    """Check a value of the table ``meta``. Other names than those above may have any value."""
    check = _VALUES.get(name.partition("/")[0], _is_any)
    return "" if check(value) else f"{name[:60]} has a missing, unknown or wrong value"


def values_problem(rows: Iterable[Sequence[Any]]) -> str:
    """Check (name, value) of all rows of ``meta``."""
    for name, text in rows:
        if not (isinstance(name, str) and isinstance(text, str)):
            return "a row of meta is not text"
        try:
            problem = _value_problem(name, parse_json(text))
        except ValueError as error:
            problem = f"{name[:60]} is not valid JSON: {error}"
        if problem:
            return problem
    return ""


def networks_problem(rows: Iterable[Sequence[Any]]) -> str:
    """Check (key, space, architecture, role) of all rows of ``networks``; an architecture is JSON."""
    for row in rows:
        if not all(map(_is_text, row)):
            return "a row of networks is not text"
        try:
            is_fitting = _ARCHITECTURE(parse_json(row[2]))
        except ValueError as error:
            return f"the architecture of {row[0][:60]} is not valid JSON: {error}"
        if not is_fitting:
            return f"the architecture of {row[0][:60]} has a value that is neither a number nor a list of numbers"
    return ""
