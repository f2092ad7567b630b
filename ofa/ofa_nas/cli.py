"""Shared parts of all commands: errors and exit codes, output, and common flags."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ofa_agent.text import one_line
from ofa_tables.errors import OfaError, UsageError


class PlainConsole(Console):
    """A console that shows control characters as blanks: text of a table or device cannot change the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("".join(one if one.isprintable() or one == "\n" else " " for one in text), **options)


# Progress and messages go to standard error; standard output has only the result.
console = PlainConsole(stderr=True, highlight=False, soft_wrap=True)
answer = PlainConsole(highlight=False, soft_wrap=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on the last line.")


def example(*lines: str) -> str:
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))  # \b: click does not rewrap the lines


def say(text: str) -> None:
    """Print a progress message on standard error."""
    console.print(escape(text))


MAX_ERROR = 10_000  # characters


def say_error(text: str) -> None:
    console.print(f"[bold red]error:[/] {escape(one_line(text, MAX_ERROR))}")


LINE_S = 10.0


class NowAndThen:
    """Limits output: a call returns True at most once every ``seconds``."""

    def __init__(self, seconds: float = LINE_S) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def duration(seconds: float) -> str:
    """Format a duration, rounded to seconds, minutes, or tenths of an hour."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value))


KEPT = "all measurements are kept; run the same command again to resume"


def run(command: click.Command, kept: str = KEPT) -> Callable[[], None]:
    """Return the entry point of a command. Every error prints one line and sets the exit code, without a traceback.

    ``kept`` is the message after an interrupt: what was saved, and how to resume.
    """

    def main() -> None:
        try:
            command.main(standalone_mode=False)
            code = 0
        except click.ClickException as error:
            error.show()
            code = 2
        except OfaError as error:
            say_error(str(error))
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            console.print(f"interrupted; {kept}")
            code = 130
        except BrokenPipeError:  # the reader of the output closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except OSError as error:
            place = error.filename or "the output"
            say_error(f"{place}: {error.strerror}")
            code = 1
        sys.exit(code)

    return main


class Resolutions(click.ParamType[tuple[int, ...]]):
    """Comma-separated resolutions in pixels, such as ``160,176``. ``all`` becomes the empty tuple."""

    name = "PX,PX…|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if value == "all":
            return ()
        try:
            return tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            raise UsageError(f'--resolutions takes numbers, such as 160,192, or "all", not {value!r}') from None


class Percentage(click.ParamType[float]):
    """A percentage, such as ``2%`` or ``2``; the value is the fraction, 0.02."""

    name = "PERCENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            percent = float(str(value).removesuffix("%"))
        except ValueError:
            percent = 0.0
        if not 0 < percent < 100:
            raise UsageError(f"--{param.name if param else 'error'} takes a percentage, such as 2%, not {value!r}")
        return percent / 100
