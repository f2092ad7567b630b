"""Take values from the tables of a space file, each checked. A message names file, stage, key, and allowed values."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from ofa_tables.errors import FileError

REQUIRED: Any = object()


class Fields:
    """The values of one table. ``done`` raises FileError if a value was never asked for: its key is not known.

    ``origin`` is the file, and ``place`` the table in it; both are for messages. All methods raise FileError.
    """

    def __init__(self, values: Mapping[str, Any], origin: str, place: str = "") -> None:
        self._values = values
        self._origin = origin
        self.place = place
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def fail(self, text: str) -> NoReturn:
        where = f"{self._origin}: {self.place}: " if self.place else f"{self._origin}: "
        raise FileError(where + text)

    def whole(self, name: str, low: int, high: int, default: Any = REQUIRED) -> int:
        return self._checked(name, default, f"a whole number from {low} to {high}", _is_whole(low, high))

    def number(self, name: str, low: float, high: float, default: Any = REQUIRED) -> float:
        return self._checked(name, default, f"a number from {low:g} to {high:g}", _is_number(low, high))

    def flag(self, name: str, default: Any = REQUIRED) -> bool:
        return self._checked(name, default, "true or false", lambda value: isinstance(value, bool))

    def text(self, name: str, most: int, default: Any = REQUIRED) -> str:
        fits = lambda value: isinstance(value, str) and 0 < len(value) <= most and value.isprintable()  # noqa: E731
        return self._checked(name, default, f"a text of at most {most} characters", fits)

    def one_of(self, name: str, allowed: Sequence[Any], default: Any = REQUIRED) -> Any:
        wanted = f"one of {', '.join(map(str, allowed))}"
        return self._checked(
            name, default, wanted, lambda value: any(value == each and type(value) is type(each) for each in allowed)
        )

    def wholes(
        self, name: str, low: int, high: int, most: int, default: Any = REQUIRED, rising: bool = True
    ) -> tuple[int, ...]:
        wanted = f"a list of at most {most} whole numbers from {low} to {high}" + (", rising" if rising else "")
        return self._list(name, most, wanted, _is_whole(low, high), default, rising)

    def numbers(self, name: str, low: float, high: float, most: int, default: Any = REQUIRED) -> tuple[float, ...]:
        wanted = f"a list of at most {most} numbers from {low:g} to {high:g}, rising"
        return self._list(name, most, wanted, _is_number(low, high), default, True)

    def choices(
        self, name: str, allowed: Collection[str], most: int, default: Any = REQUIRED, each_once: bool = True
    ) -> tuple[str, ...]:
        found: tuple[str, ...] = self._list(
            name,
            most,
            f"a list of at most {most} of {', '.join(allowed)}",
            lambda value: isinstance(value, str) and value in allowed,
            default,
            False,
        )
        if each_once and len(set(found)) < len(found):
            self.fail(f"{name} has {next(value for value in found if found.count(value) > 1)!r} twice; remove one")
        return found

    def table(self, name: str, place: str, default: Any = REQUIRED) -> "Fields":
        values = self._checked(name, default, "a table", lambda value: isinstance(value, Mapping))
        return Fields(values, self._origin, place)

    def tables(self, name: str, most: int, place: Callable[[int], str], default: Any = REQUIRED) -> list["Fields"]:
        """Return the tables of a list; ``place`` makes the place of each from its number, counted from 1."""
        wanted = f"a list of 1 to {most} tables"
        values = self._list(name, most, wanted, lambda value: isinstance(value, Mapping), default, False)
        return [Fields(value, self._origin, place(number)) for number, value in enumerate(values, start=1)]

    def named_tables(self, name: str, most: int, place: Callable[[str], str]) -> dict[str, "Fields"]:
        wanted = f"a table of at most {most} tables"
        fits = lambda value: (  # noqa: E731
            isinstance(value, Mapping) and len(value) <= most and all(isinstance(v, Mapping) for v in value.values())
        )
        values = self._checked(name, {}, wanted, fits)
        return {key: Fields(inner, self._origin, place(key)) for key, inner in values.items()}

    def raw(self, name: str, default: Any = REQUIRED) -> Any:
        return self._checked(name, default, "present", lambda value: True)

    def done(self) -> None:
        for name in self._values:
            if name not in self._known:
                near = difflib.get_close_matches(str(name)[:100], self._known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(self._known)}"
                self.fail(f"unknown key {_short(name)}; {hint}")

    def _checked(self, name: str, default: Any, wanted: str, fits: Callable[[Any], bool]) -> Any:
        self._known.append(name)
        if name not in self._values:
            if default is REQUIRED:
                near = difflib.get_close_matches(name, [each for each in self._values if each not in self._known], n=1)
                self.fail(f"{name} is missing; " + (f"did you mean {near[0]}?" if near else f"it must be {wanted}"))
            return default
        value = self._values[name]
        if not fits(value):
            self.fail(f"{name} is {_short(value)}; it must be {wanted}")
        return value

    def _list(
        self, name: str, most: int, wanted: str, fits: Callable[[Any], bool], default: Any, rising: bool
    ) -> tuple[Any, ...]:
        def fit(value: Any) -> bool:
            is_list = isinstance(value, list | tuple) and 1 <= len(value) <= most and all(map(fits, value))
            return is_list and (not rising or all(low < high for low, high in pairwise(value)))

        return tuple(self._checked(name, default, wanted, fit))


def _is_whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _is_number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
